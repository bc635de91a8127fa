"""The same training without delta layers, beside the refined model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deltafine.document.report import Report
from deltafine.errors import DeltafineWarning, Interrupted
from deltafine.jobs.refine import refine
from deltafine.model import delta_layers
from deltafine.report.holding import control_tables
from tests.small_runs import FAST, write_small_model, write_small_videos

HOW: dict[str, Any] = {**FAST, "epochs": 2, "learning_rate": 0.1, "warmup": 0.0, "distill": 0.0}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("material")
    return write_small_model(folder / "small.keras"), write_small_videos(folder / "videos")


@pytest.fixture(scope="module")
def controlled(material: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    out = tmp_path_factory.mktemp("controlled") / "run"
    return refine(*material, out, **HOW, control=True), out


@pytest.fixture(scope="module")
def plain(material: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    """The same run without the control."""
    out = tmp_path_factory.mktemp("plain") / "run"
    return refine(*material, out, **HOW), out


class Stops:
    """A user who presses Ctrl-C when some words come up."""

    def __init__(self, words: str) -> None:
        self.words = words

    def say(self, words: str) -> None: ...

    def progress(self, what: str, *_: Any) -> None:
        if what.startswith(self.words):
            raise KeyboardInterrupt

    def epoch(self, *_: Any) -> None: ...


def test_it_is_measured_as_the_original_is_and_has_a_table(controlled: tuple[Report, Path]) -> None:
    report, _ = controlled
    assert report.controls is not None
    trained = report.controls.trained
    assert trained is not None
    assert trained.epochs == 2
    assert 0 <= trained.quality <= 1
    assert [point.every for point in trained.held] == [point.every for point in report.controls.held]
    (table,) = [table for table in control_tables(report) if "without delta layers" in table.title]
    assert table.lines[0] == ("1", "100.0%", f"{trained.quality:.1%}")


def test_it_has_the_weights_of_a_training_that_is_no_refinement(
    controlled: tuple[Report, Path], material: tuple[Path, Path]
) -> None:
    import h5py
    import keras

    with h5py.File(controlled[1] / "checkpoints" / "control.h5") as file:
        trained = [file[name][()] for name in sorted(file)]
    kernel = np.asarray(keras.models.load_model(material[0]).get_layer("conv2").kernel)
    (found,) = [value for value in trained if value.shape == kernel.shape][:1]
    assert np.abs(found - kernel).max() > 0.05  # two epochs at a rate of 0.1
    assert not [value for value in trained if not np.isfinite(value.astype("float64")).all()]


def test_the_refined_model_is_the_same_without_it(controlled: tuple[Report, Path], plain: tuple[Report, Path]) -> None:
    import keras

    with_it, without = (keras.models.load_model(out / "refined.keras") for _, out in (controlled, plain))
    assert delta_layers(without)
    for one, other in zip(with_it.get_weights(), without.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_stopped_within_it_a_resumed_run_comes_to_the_same(
    controlled: tuple[Report, Path], material: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        refine(*material, out, **HOW, control=True, listener=Stops("control without delta layers, epoch 2"))
    assert (out / "checkpoints" / "control.h5").exists()
    resumed = refine(*material, out, **HOW, control=True, resume=True)
    assert resumed.controls == controlled[0].controls


def test_a_finished_run_gets_it_later(
    material: tuple[Path, Path], tmp_path: Path, controlled: tuple[Report, Path], plain: tuple[Report, Path]
) -> None:
    out = shutil.copytree(plain[1], tmp_path / "run")
    assert plain[0].controls is not None
    later = refine(*material, out, **HOW, control=True, resume=True)
    assert later.controls == controlled[0].controls


def test_a_damaged_checkpoint_of_it_is_said_and_it_is_trained_again(
    controlled: tuple[Report, Path], material: tuple[Path, Path], tmp_path: Path
) -> None:
    out = shutil.copytree(controlled[1], tmp_path / "run")
    (out / "checkpoints" / "control.h5").write_bytes(b"damaged")
    with pytest.warns(
        DeltafineWarning, match=r"The control without delta layers is trained again, since .*control\.h5"
    ):
        again = refine(*material, out, **HOW, control=True, resume=True)
    assert again.controls == controlled[0].controls


def test_without_labels_it_is_not_trained_and_that_is_said(material: tuple[Path, Path], tmp_path: Path) -> None:
    report = refine(*material, tmp_path / "run", **HOW, task="distill", control=True)
    assert report.controls is None or report.controls.trained is None
    assert any("without labels nothing tells whether training made it better" in said for said in report.warnings)
