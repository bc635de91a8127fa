"""Runs at the ends of what can be: few and many classes, one video, the shortest and long clips, batches of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from deltafine import refine
from deltafine.errors import DeltafineError
from deltafine.report import Report
from tests.small_runs import SIZE, small_model, write_small_model, write_small_video, write_small_videos

pytestmark = pytest.mark.slow

FAST: dict[str, Any] = {"epochs": 1, "relative_threshold": 0.5}


def write_arrays(path: Path, videos: int, frames: int, classes: int) -> Path:
    """Noise; a fifth of the videos validates."""
    draw = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["frames"] = draw.integers(0, 256, (videos, frames, SIZE, SIZE, 3), np.uint8)
        file["labels"] = np.arange(videos) % classes
        file.create_dataset("classes", data=[f"class {n}" for n in range(classes)], dtype=h5py.string_dtype())
        splits = ["validation" if n % 5 == 4 else "train" for n in range(videos)]
        file.create_dataset("splits", data=splits, dtype=h5py.string_dtype())
    return path


def check(report: Report, out: Path) -> None:
    """The run is whole, and its figures are figures."""
    assert list(report.models) == ["original", "calibrated", "refined"]
    for measurement in report.models.values():
        assert 0 <= measurement.streams.operations.mac_density <= 1
    assert np.isfinite(report.history[0].loss)
    loaded = keras.models.load_model(out / "refined.keras")
    assert all(np.isfinite(value).all() for value in loaded.get_weights())


def test_a_thousand_classes(tmp_path: Path) -> None:
    model = write_small_model(tmp_path / "model.keras", classes=1000)
    data = write_arrays(tmp_path / "data.h5", 10, 8, 1000)
    report = refine(model, data, tmp_path / "run", frames=4, batch=4, **FAST)
    check(report, tmp_path / "run")
    assert report.model.outputs == len(report.data.classes) == 1000


def test_one_output(tmp_path: Path) -> None:
    two = small_model()
    head = keras.layers.Dense(1, activation="sigmoid", name="one")(two.get_layer("pool").output)
    keras.Model(two.input, head).save(tmp_path / "model.keras")
    data = write_small_videos(tmp_path / "videos")
    report = refine(tmp_path / "model.keras", data, tmp_path / "run", frames=4, batch=4, **FAST)
    check(report, tmp_path / "run")
    assert report.model.outputs == 1


@pytest.fixture
def of_one_class(tmp_path: Path) -> Path:
    for number in range(5):
        write_small_video(tmp_path / "videos" / "dark" / f"{number}.avi", light=False, seed=number)
    return tmp_path / "videos"


@pytest.mark.parametrize("how", [{"classes": ("dark", "light")}, {"task": "distill"}])
def test_videos_of_one_class_alone(how: dict[str, Any], of_one_class: Path, tmp_path: Path) -> None:
    """A model of two, which is told the name of the other, or follows the original."""
    model = write_small_model(tmp_path / "model.keras")
    report = refine(model, of_one_class, tmp_path / "run", frames=4, batch=4, **how, **FAST)
    check(report, tmp_path / "run")


def test_videos_of_one_class_say_nothing_of_the_order_of_two(of_one_class: Path, tmp_path: Path) -> None:
    model = write_small_model(tmp_path / "model.keras")
    with pytest.raises(DeltafineError, match=r"has 2 outputs but .* has 1 class "):
        refine(model, of_one_class, tmp_path / "run", frames=4, **FAST)


@pytest.mark.parametrize(("frames", "batch"), [(2, 8), (256, 1), (8, 1)])
def test_clips_of_any_length_and_batches_of_one(tmp_path: Path, frames: int, batch: int) -> None:
    data = write_arrays(tmp_path / "data.h5", 5, max(frames, 12), 2)
    model = write_small_model(tmp_path / "model.keras")
    report = refine(model, data, tmp_path / "run", frames=frames, batch=batch, **FAST)
    check(report, tmp_path / "run")
    assert report.models["refined"].clips.frames % frames == 0
