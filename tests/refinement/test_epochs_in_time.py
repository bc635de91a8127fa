"""``--time`` finds the number of epochs; all else is as if that number had been given."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltafine.errors import DeltafineError
from deltafine.jobs.refine import Quiet, refine
from deltafine.refinement.run.preparation import Prepared, prepare
from deltafine.refinement.training.epochs_in_time import epochs_in
from deltafine.settings import RefineSettings
from deltafine.settings.declaring import seconds_of
from tests.small_runs import FAST, write_small_model, write_small_videos


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("material")
    return write_small_model(folder / "m.keras"), write_small_videos(folder / "videos", per_class=3)


@pytest.fixture(scope="module")
def timed(material: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that may take a second, which is over when its training begins."""
    out = tmp_path_factory.mktemp("timed") / "run"
    refine(*material, out, time="1s", **FAST)
    return out


def weights(out: Path) -> list[bytes]:
    import keras

    return [np.asarray(value).tobytes() for value in keras.models.load_model(out / "refined.keras").variables]


def test_a_run_without_time_left_has_one_epoch_and_its_settings_say_so(timed: Path) -> None:
    settings = tomllib.loads((timed / "settings.toml").read_text())
    assert (settings["time"], settings["epochs"]) == (1.0, 1)
    assert len((timed / "history.csv").read_text().splitlines()) == 2


def test_timing_the_steps_changes_nothing_in_the_training(
    timed: Path, material: tuple[Path, Path], tmp_path: Path
) -> None:
    passes = tomllib.loads((timed / "settings.toml").read_text())["passes"]
    refine(*material, tmp_path / "given", epochs=1, passes=passes, **FAST)
    assert weights(tmp_path / "given") == weights(timed)


def test_a_recipe_of_a_run_that_filled_its_time_gives_its_epochs(
    timed: Path, material: tuple[Path, Path], tmp_path: Path
) -> None:
    refine(*material, tmp_path / "again", recipe=timed / "settings.toml")
    assert weights(tmp_path / "again") == weights(timed)


def test_a_run_goes_on_with_the_epochs_that_were_found(timed: Path, material: tuple[Path, Path]) -> None:
    before = weights(timed)
    refine(*material, timed, resume=True, time="1s", **FAST)
    assert weights(timed) == before


def test_time_and_epochs_together_are_refused(material: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(DeltafineError, match="--time or --epochs, not both"):
        refine(*material, tmp_path / "run", time="20m", epochs=3)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def prepared(material: tuple[Path, Path]) -> Prepared:
    return prepare(RefineSettings(model=str(material[0]), data=str(material[1]), time=3600, **FAST), Quiet())


@given(st.floats(1, 1e5), st.floats(1e-4, 10), st.floats(0, 10), st.floats(1e-5, 1))
def test_so_many_epochs_fit_into_the_time_and_one_more_does_not(
    prepared: Prepared, left: float, step: float, answering: float, per_frame: float
) -> None:
    epochs = epochs_in(left, prepared, step=step, answering=answering, per_frame=per_frame)
    steps = len(prepared.clips("train", epoch=1))
    frames = sum(len(prepared.data.frame_labels(video)) for video in prepared.data.select("validation"))
    measuring = per_frame * frames * 3.5  # the streams are the validation videos
    of_an_epoch = steps * step + frames * per_frame
    room = 0.85 * left - measuring - steps / prepared.passes * answering
    assert epochs == 1 or epochs * of_an_epoch <= room * (1 + 1e-9)
    assert (epochs + 1) * of_an_epoch > room * (1 - 1e-9)


@pytest.mark.parametrize(
    ("text", "seconds"), [("20m", 1200), ("1h30m", 5400), ("90s", 90), ("0.5h", 1800), ("2h 5min", 7500), (30.0, 30)]
)
def test_times_as_people_write_them(text: Any, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["20", "soon", "", "m", "1m20", "-5m"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(DeltafineError, match=r"'time'.*20m"):
        refine("m.keras", "videos", "run", time=text)
