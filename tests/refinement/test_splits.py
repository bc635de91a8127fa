"""What each split is used for: a test split is reported on, and nothing is chosen by it."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from deltafine import refine
from deltafine.errors import DeltafineError
from deltafine.jobs.measure import measure_model
from deltafine.measurement.task import held_out, open_data, open_streams
from deltafine.report import Report
from deltafine.video import open_dataset
from tests.small_runs import FAST, SIZE, write_small_model, write_small_video
from tests.video.painted import write_video

TEST_FRAMES = 15


@pytest.fixture
def three_splits(tmp_path: Path) -> Path:
    root = tmp_path / "videos"
    for number, split in enumerate(("train", "val", "test")):
        for light, name in enumerate(("dark", "light")):
            frames = TEST_FRAMES if split == "test" else 12
            write_small_video(root / split / name / "0.avi", bool(light), seed=2 * number + light, frames=frames)
    return root


def run(model: Path, data: Path, out: Path) -> tuple[Report, list[dict[str, str]], list[np.ndarray]]:
    report = refine(model, data, out, **{**FAST, "epochs": 1})
    with (out / "history.csv").open() as file:
        history = [{k: v for k, v in row.items() if "second" not in k} for row in csv.DictReader(file)]
    return report, history, keras.models.load_model(out / "refined.keras").get_weights()


def test_the_report_measures_on_a_test_split(three_splits: Path, tmp_path: Path) -> None:
    report = refine(write_small_model(tmp_path / "model.keras"), three_splits, tmp_path / "run", **FAST, epochs=0)
    assert (report.data.train_videos, report.data.validation_videos, report.data.test_videos) == (2, 2, 2)
    assert report.stream_data is not None
    assert report.stream_data.layout == "folder per class, test split"
    figures = report.models["calibrated"]
    assert (figures.streams.videos, figures.streams.frames) == (2, 2 * TEST_FRAMES)
    assert figures.clips.frames == 2 * (TEST_FRAMES // 4 + 1) * 4
    assert "The test split is what the report measures on: nothing was chosen by it." in report.warnings


@pytest.mark.slow
def test_nothing_is_chosen_by_a_test_split(three_splits: Path, tmp_path: Path) -> None:
    model = write_small_model(tmp_path / "model.keras")
    report, history, weights = run(model, three_splits, tmp_path / "one")
    for light, name in enumerate(("light", "dark")):  # other test videos, with the labels the other way round
        write_small_video(three_splits / "test" / name / "0.avi", bool(light), seed=70 + light, frames=TEST_FRAMES)
    other, same_history, same_weights = run(model, three_splits, tmp_path / "other")
    assert same_history == history
    for one, two in zip(weights, same_weights, strict=True):
        np.testing.assert_array_equal(one, two)
    assert other.models["refined"].streams != report.models["refined"].streams


def test_a_model_is_measured_afresh_on_the_test_split_too(three_splits: Path, tmp_path: Path) -> None:
    report, _ = measure_model(write_small_model(tmp_path / "model.keras"), three_splits, frames=4)
    assert report.models["original"].streams.frames == 2 * TEST_FRAMES
    assert report.stream_data is not None


def test_notes_about_the_data_are_warnings_of_the_report(three_splits: Path, tmp_path: Path) -> None:
    shutil.rmtree(three_splits / "val")
    (three_splits / "captions.csv").write_text("file,caption\n0.avi,dark\n")
    report, _ = measure_model(write_small_model(tmp_path / "model.keras"), three_splits, frames=4)
    assert report.stream_data is None
    assert report.models["original"].streams.frames == 2 * TEST_FRAMES
    said = "\n".join(report.warnings)
    assert "The data has no validation split: its test split is what is validated on." in said
    assert "Found captions.csv, not used because it has no column of labels or splits" in said


def test_a_test_split_that_cannot_be_measured_on_is_left_and_that_is_said(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "validation", "test")):
        write_video(tmp_path / f"{split}.avi", 6, first=6 * number)
    rows = "path,label,split\ntrain.avi,a,train\nvalidation.avi,b,validation\ntest.avi,{},test\n"
    (tmp_path / "manifest.csv").write_text(rows.format(""))
    found = "Found a test split of 1 video, not used because"
    assert held_out(open_dataset(tmp_path), 4, None) == (None, [f"{found} they have no labels."])
    (tmp_path / "manifest.csv").write_text(rows.format("a"))
    held, (said,) = held_out(open_dataset(tmp_path), 7, None)
    assert (held, said) == (None, f"{found} none of them has the 7 frames of a clip that can be read.")
    held, _ = held_out(open_dataset(tmp_path), 6, None)
    assert held is not None
    assert [(video.name, video.split) for video in held.videos] == [("test.avi", "validation")]


def test_streams_of_three_splits_are_measured_on_but_for_those_to_train(three_splits: Path, tmp_path: Path) -> None:
    write_small_video(tmp_path / "data" / "dark" / "0.avi", light=False, seed=50)
    write_small_video(tmp_path / "data" / "light" / "0.avi", light=True, seed=51)
    streams = open_streams(three_splits, open_dataset(tmp_path / "data"), "classification")
    assert len(streams.select("validation")) == 4
    assert not streams.select("test")


def test_a_class_called_like_a_split_is_one_in_the_streams_and_without_labels_too(tmp_path: Path) -> None:
    classes = ("bus", "train")
    for number, folder in enumerate(("data", "streams")):
        for other, name in enumerate(classes):
            write_video(tmp_path / folder / name / "0.avi", 3, first=10 * number + 4 * other)
    data = open_data(tmp_path / "data", "classification", classes=classes)
    assert len(open_streams(tmp_path / "streams", data, "classification").select("validation")) == 2
    assert len(open_data(tmp_path / "data", "distill", classes=classes).videos) == 2
    with pytest.raises(DeltafineError, match="called like a split, beside bus"):
        open_data(tmp_path / "data", "distill", classes=None)


def write_angles(folder: Path, names: str, split: str, seed: int) -> dict[str, list[float]]:
    """Videos with an angle for every frame, no two of them the same; gives the angles."""
    random = np.random.default_rng(seed)
    angles = {name: [round(float(angle), 3) for angle in random.normal(0, 5, 12)] for name in names}
    rows = ["video,frame,label,split"]
    for number, name in enumerate(names):
        write_small_video(folder / f"{name}.avi", number % 2 == 0, seed=seed + number)
        side = "validation" if name == names[-1] else split
        rows += [f"{name}.avi,{frame},{angle},{side}" for frame, angle in enumerate(angles[name])]
    (folder / "labels.csv").write_text("\n".join(rows))
    return angles


def test_streams_may_have_other_numbers_as_labels_than_the_data(tmp_path: Path) -> None:
    write_angles(tmp_path / "data", "abc", "train", seed=1)
    angles = write_angles(tmp_path / "streams", "xy", "validation", seed=2)
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, activation="relu")(keras.layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Flatten()(x)))
    model.save(tmp_path / "model.keras")
    settings = {**FAST, "epochs": 0, "task": "regression", "streams": str(tmp_path / "streams")}
    report = refine(tmp_path / "model.keras", tmp_path / "data", tmp_path / "run", **settings)
    data = open_dataset(tmp_path / "streams")
    streams = {
        video.name: np.concatenate([f for f, _ in parts]) for video, parts in data.streams(None, size=(SIZE, SIZE))
    }
    errors = [
        model.predict(streams[f"{name}.avi"].astype("float32"), verbose=0)[:, 0] - values
        for name, values in angles.items()
    ]
    spread = np.std(np.concatenate(list(angles.values())))
    expected = np.sqrt(np.mean(np.concatenate(errors) ** 2)) / spread
    assert report.models["original"].streams.label_error == pytest.approx(expected, rel=1e-4)
    assert report.data.classes == []


@pytest.mark.parametrize(
    ("labels", "task", "message"),
    [
        (("0.5", "walk"), "regression", r"The labels of .*data are numbers, and those of .*streams are not \(walk\)"),
        (("walk", "run"), "classification", "There is no class 'walk'"),
    ],
)
def test_streams_with_labels_of_another_kind_are_refused(
    labels: tuple[str, str], task: str, message: str, tmp_path: Path
) -> None:
    for folder, label, first in zip(("data", "streams"), labels, (0, 9), strict=True):
        write_video(tmp_path / folder / "a.avi", 3, first=first)
        (tmp_path / folder / "labels.csv").write_text(f"video,frame,label\na.avi,0,{label}\n")
    with pytest.raises(DeltafineError, match=message):
        open_streams(tmp_path / "streams", open_dataset(tmp_path / "data"), task)  # type: ignore[arg-type]


def test_numbers_are_no_classes_to_tell_apart(tmp_path: Path) -> None:
    write_angles(tmp_path / "data", "abc", "train", seed=1)
    with pytest.raises(DeltafineError, match=r"are numbers .* and no names of classes: use --task regression"):
        refine(
            write_small_model(tmp_path / "model.keras"),
            tmp_path / "data",
            tmp_path / "run",
            task="classification",
            **FAST,
        )
