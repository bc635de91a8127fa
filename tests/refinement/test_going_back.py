"""A training that leaves the budget by far goes back to weights within it."""

from __future__ import annotations

import math
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deltafine.document.history import FrontPoint
from deltafine.errors import Interrupted
from deltafine.jobs.refine import Quiet, refine
from deltafine.refinement.thresholds.budget import Budget
from deltafine.refinement.training.steering import RETURNED, Steering
from deltafine.settings import resolve
from tests.small_runs import write_small_model, write_small_videos

WRECKS: dict[str, Any] = {
    "task": "regression",
    "clip_output": "per-frame",
    "frames": 4,
    "batch": 4,
    "epochs": 3,
    "penalty": 1000.0,
    "max_accuracy_drop": "5%",
    "learning_rate": 0.5,
    "warmup": 0.0,
    "recalibrate": 0,
}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("material")
    return write_small_model(folder / "small.keras"), write_small_videos(folder / "videos")


class Stopping(Quiet):
    """Hears what is said, and stops the run in an epoch, if it is given one."""

    def __init__(self, epoch: str = "") -> None:
        self._epoch = epoch
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def progress(self, what: str, done: int, total: int, figures: str = "") -> None:
        if self._epoch and what == self._epoch:
            self._epoch = ""
            signal.raise_signal(signal.SIGTERM)


def weights_of(run: Path) -> list[bytes]:
    import keras

    return [np.asarray(v).tobytes() for v in keras.models.load_model(run / "refined.keras").variables]


def test_each_epoch_that_wrecks_the_network_begins_where_the_training_began(
    material: tuple[Path, Path], tmp_path: Path
) -> None:
    listener = Stopping()
    report = refine(*material, tmp_path / "run", listener=listener, **WRECKS)
    said = [line for line in listener.said if "left the budget by far" in line]
    assert len(said) == 2  # after the last epoch there is nothing to go back for
    assert all("goes on from its start" in line for line in said)
    penalties = [epoch.penalty for epoch in report.history]
    assert penalties[0] > penalties[1] > penalties[2]
    whole = weights_of(tmp_path / "run")

    with pytest.raises(Interrupted):
        refine(*material, tmp_path / "stopped", listener=Stopping("epoch 2"), **WRECKS)
    again = refine(*material, tmp_path / "stopped", resume=True, **WRECKS)
    without_times = [epoch.model_copy(update={"seconds": 0}) for epoch in report.history]
    assert [epoch.model_copy(update={"seconds": 0}) for epoch in again.history] == without_times
    assert weights_of(tmp_path / "stopped") == whole


def steering(**settings: Any) -> Steering:
    found = resolve(model="m", data="d", **settings)
    return Steering(found, Budget.of(found), 0.8, 1000, 10, 10)


def point(epoch: int, judged: float, density: float, penalty: float = 40.0) -> FrontPoint:
    return FrontPoint(epoch=epoch, penalty=penalty, accuracy=judged, mac_density=density, pixel_density=density)


def test_what_the_training_began_with_is_no_reason_to_go_back() -> None:
    one = steering()
    one.before_training(point(0, 0.6, 0.06))
    assert not one.wrecked(point(1, 0.58, 0.05), 0.1)
    assert one.wrecked(point(1, 0.49, 0.05), 0.1)
    assert not steering(penalty=5.0).wrecked(point(1, 0.0, 0.05), 0.1)  # nothing is steered


def test_lambda_is_smaller_than_what_led_away_and_the_density_begins_from_the_earlier_epoch() -> None:
    one = steering()
    one.before_training(point(0, 0.81, 0.06))
    for epoch, judged, density in ((1, 0.82, 0.05), (2, 0.83, 0.03), (3, 0.4, 0.01)):
        measured = point(epoch, judged, density, one.strength)
        one.after_epoch(measured, epoch / 10)
    assert one.wrecked(measured, 0.3)
    earlier = point(2, 0.83, 0.03, penalty=50.0)
    one.go_back(earlier)
    assert one.strength <= RETURNED * 50.0
    other = steering()
    other.restore(one.state())
    assert other.strength == one.strength
    one.after_epoch(point(4, 0.83, 0.029), 0.4)
    other.after_epoch(point(4, 0.83, 0.029), 0.4)
    assert one.state() == other.state()
    assert math.isclose(one.state()["pace"][0], 0.029)
