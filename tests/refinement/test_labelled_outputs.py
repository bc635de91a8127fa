"""Runs of a model like DroNet: steering and collision have labels, a third output has none and follows the original."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from deltafine import measure_model, refine
from deltafine.document.figures import OutputFigures
from deltafine.errors import DeltafineError
from deltafine.jobs.refine import Quiet
from deltafine.measurement.parts import PartLabels
from deltafine.refinement.run.preparation import prepare
from deltafine.refinement.training.validation import quality, quality_beside
from deltafine.settings import resolve
from deltafine.video import open_dataset
from tests.small_runs import FAST, SIZE, write_small_video

RUN: dict[str, Any] = {**FAST, "epochs": 2, "recalibrate": 0}
FRAMES = 24


def dronet() -> Any:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(8, 3, strides=2, activation="relu")(layers.Rescaling(1 / 255)(inputs))
    x = layers.Conv2D(8, 3, strides=2, activation="relu")(x)
    x = layers.Flatten()(x)
    steering = layers.Dense(1, name="steering")(x)
    collision = layers.Dense(1, activation="sigmoid", name="collision")(x)
    return keras.Model(inputs, [steering, collision, layers.Dense(2, name="other")(x)], name="dronet")


def steering_of(frame: int) -> float:
    """Where the square is in a frame of ``write_small_video``."""
    return 2 * frame % 24 / 12 - 1


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos in which every second frame has its steering, and all frames of a video its collision."""
    folder = tmp_path_factory.mktemp("videos")
    rows = ["video,frame,steering,collision,split,weather"]
    for number in range(8):
        name, split = f"{number}.avi", "train" if number < 4 else "validation"
        write_small_video(folder / name, number % 2 == 0, seed=number, frames=FRAMES)
        rows.append(f"{name},,,{1 - number % 2},{split},dry")
        rows += [f"{name},{frame},{steering_of(frame)},,{split}," for frame in range(0, FRAMES, 2)]
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def model(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained until it is better than a constant at both."""
    net = dronet()
    batches = list(open_dataset(videos).clips("train", size=(SIZE, SIZE), frames=FRAMES))
    frames = np.concatenate([clip for batch in batches for clip in batch.frames]).astype("float32")
    steering = np.tile([steering_of(frame) for frame in range(FRAMES)], 4)
    collision = np.concatenate([np.full(FRAMES, 1 - video % 2) for batch in batches for video in batch.videos])
    net.compile(keras.optimizers.Adam(3e-3), ["mse", "binary_crossentropy", "mse"], loss_weights=[1, 1, 0])
    net.fit(frames, [steering, collision, np.zeros((len(frames), 2))], epochs=60, batch_size=16, verbose=0)
    path = tmp_path_factory.mktemp("model") / "model.keras"
    net.save(path)
    return path


def outputs_of(figures: Any) -> dict[str, OutputFigures]:
    return {one.name: one for one in figures.outputs}


@pytest.fixture(scope="module")
def run(model: Path, videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    refine(model, videos, out, **RUN)
    return out


def test_labels_are_measured_of_the_outputs_that_have_them_and_the_original_of_all(
    run: Path, model: Path, videos: Path
) -> None:
    report, _ = measure_model(run / "refined.keras", videos, original=model)
    net = keras.models.load_model(model)
    data = open_dataset(videos)
    errors, right = [], []
    for video, pieces in data.streams("validation", size=(SIZE, SIZE)):
        frames = np.concatenate([frames for frames, _ in pieces]).astype("float32")
        steering, collision, _ = (np.asarray(one) for one in net(frames, training=False))
        errors += [steering[frame, 0] - steering_of(frame) for frame in range(0, FRAMES, 2)]
        right += ((collision[:, 0] > 0.5) == (int(video.name[0]) % 2 == 0)).tolist()
    spread = np.std([steering_of(frame) for frame in range(0, FRAMES, 2)])
    of_original = outputs_of(report.models["original"].streams)
    assert of_original["steering"].label_error == pytest.approx(np.sqrt(np.mean(np.square(errors))) / spread, rel=1e-3)
    assert of_original["collision"].accuracy == np.mean(right)
    assert (of_original["other"].label_error, of_original["other"].accuracy) == (None, None)
    assert (of_original["steering"].accuracy, of_original["other"].relative_error) == (None, 0)
    of_refined = outputs_of(report.models["refined"].streams)
    assert all(one.relative_error is not None and one.relative_error > 0 for one in of_refined.values())
    assert report.settings["task"] == "outputs"  # as in the run
    assert report.data.classes == []
    assert any("'other' has no labels" in one for one in report.warnings)
    assert any("labels.csv has the column 'weather', which is not used." in one for one in report.warnings)
    assert not any("trained on" in one for one in report.warnings)  # the videos are those of the run


def test_the_report_has_the_error_of_each_output_and_how_many_classes_are_right(run: Path) -> None:
    page = (run / "report.md").read_text()
    (heading,) = [line for line in page.splitlines() if line.startswith("| output")]
    assert "original: error to labels" in heading
    assert "refined: right class" in heading
    (line,) = [line for line in page.splitlines() if line.startswith("| other |")]
    assert line.count("—") + line.count("-") >= 4  # it has no labels
    headline = page.splitlines()[2]
    assert "of the labels' spread \\(steering" in headline
    assert ", collision" in headline


def test_training_lowers_the_error_to_the_labels(model: Path, videos: Path, tmp_path: Path) -> None:
    report = refine(
        model, videos, tmp_path / "run", **{**RUN, "epochs": 8, "learning_rate": 3e-3, "distill": 0.0, "penalty": 0.0}
    )
    before, after = (outputs_of(report.models[name].streams) for name in ("calibrated", "refined"))
    for name in ("steering", "collision"):
        assert (after[name].label_error or 0) < (before[name].label_error or 0)
    assert (after["other"].relative_error or 0) < 1  # without labels, it follows the original all the same


def test_the_output_that_loses_most_is_what_a_budget_is_about(run: Path, model: Path, videos: Path) -> None:
    report, _ = measure_model(run / "refined.keras", videos, original=model)
    original, refined = report.models["original"].streams, report.models["refined"].streams
    worse = refined.model_copy(
        update={
            "outputs": [
                one.model_copy(update={"label_error": None if one.label_error is None else one.label_error + change})
                for one, change in zip(original.outputs, (0.3, -0.5, 0.0), strict=True)
            ]
        }
    )
    assert quality(original) - quality_beside(original, worse) == pytest.approx(0.3)


def test_a_task_says_whether_labels_are_looked_at(model: Path, videos: Path, tmp_path: Path) -> None:
    def prepared(**settings: Any) -> Any:
        given = {**RUN, **settings}
        return prepare(resolve(model=str(model), data=str(videos), **given), Quiet())

    distilled = prepared(task="distill")
    assert distilled.output.truth is None
    assert not distilled.labelled
    assert any("which are not used" in note for note in distilled.warnings)
    numbers = prepared(task="regression")
    assert [part.labels for part in numbers.output.parts] == [PartLabels(), PartLabels(), None]
    found = prepared()
    assert (found.settings.task, found.teaching, found.judged_by) == ("outputs", 0.5, "numbers")
    with pytest.raises(DeltafineError, match="a column for each output that has labels"):
        prepared(task="classification")
    (tmp_path / "labels.csv").write_text("video,frame,label\n0.avi,0,1\n")
    write_small_video(tmp_path / "0.avi", True, seed=0)
    with pytest.raises(DeltafineError, match=r"No column .* is called as an output"):
        prepare(resolve(model=str(model), data=str(tmp_path), **RUN, task="outputs"), Quiet())


def test_streams_alone_may_have_labels_and_are_then_judged_by_them(model: Path, videos: Path, tmp_path: Path) -> None:
    for number in range(2):
        write_small_video(tmp_path / "videos" / f"{number}.avi", number == 0, seed=20 + number)
    (tmp_path / "videos" / "labels.csv").write_text(
        "video,frame,weather,split\n0.avi,,dry,train\n1.avi,,wet,validation\n"
    )
    report, _ = measure_model(model, tmp_path / "videos", streams=str(videos))
    measured = report.models["original"]
    assert {one.name: one.label_error is not None for one in measured.streams.outputs} == {
        "steering": True,
        "collision": True,
        "other": False,
    }
    assert all(one.label_error is None for one in measured.clips.outputs)


def test_a_score_is_given_the_labels_of_the_outputs_that_have_some(model: Path, videos: Path, tmp_path: Path) -> None:
    SEEN.clear()
    refine(model, videos, tmp_path / "run", **{**RUN, "epochs": 0, "score": f"{__name__}:seen"})
    for predictions, truth in SEEN:
        assert predictions.keys() == {"steering", "collision", "other"}
        assert {name: values.shape for name, values in truth.items()} == {
            "steering": (FRAMES, 1),
            "collision": (FRAMES, 1),
        }
        assert truth["steering"][::2, 0].tolist() == [steering_of(frame) for frame in range(0, FRAMES, 2)]
        assert np.isnan(truth["steering"][1::2]).all()


def of_windows() -> Any:
    """Of a network that takes clips: a number, and logits of two classes, for each window."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, SIZE, SIZE, 3))
    x = layers.TimeDistributed(layers.Conv2D(2, 3, strides=4, activation="relu"))(layers.Rescaling(1 / 255)(inputs))
    x = layers.LSTM(4)(layers.TimeDistributed(layers.Flatten())(x))
    return keras.Model(inputs, {"steering": layers.Dense(1)(x), "collision": layers.Dense(2)(x)})


def test_a_window_has_the_labels_of_its_middle_frame_and_logits_become_probabilities(tmp_path: Path) -> None:
    net = of_windows()
    net.save(tmp_path / "model.keras")
    rows = ["video,frame,steering,collision"]
    for number in range(2):
        write_small_video(tmp_path / "videos" / f"{number}.avi", number == 0, seed=number)
        rows += [f"{number}.avi,{frame},{steering_of(frame)},{frame // 6}" for frame in range(12)]
    (tmp_path / "videos" / "labels.csv").write_text("\n".join(rows) + "\n")
    report, _ = measure_model(tmp_path / "model.keras", tmp_path / "videos")
    found = outputs_of(report.models["original"].streams)
    errors, squares, right = [], [], []
    for _, pieces in open_dataset(tmp_path / "videos").streams("validation", size=(SIZE, SIZE), chunk=4):
        for number, (frames, _) in enumerate(pieces):
            answer = net(frames[None].astype("float32"), training=False)
            middle = 4 * number + 1
            errors.append(float(answer["steering"][0, 0]) - steering_of(middle))
            of_classes = keras.ops.convert_to_numpy(keras.ops.softmax(answer["collision"]))[0]
            squares.append(((of_classes - np.eye(2)[middle // 6]) ** 2).sum())
            right.append(of_classes.argmax() == middle // 6)
    spread = np.std([steering_of(middle) for middle in (1, 5, 9)])
    assert found["steering"].label_error == pytest.approx(np.sqrt(np.mean(np.square(errors))) / spread, rel=1e-4)
    variance = 2 * np.var([0, 0, 1])
    assert found["collision"].label_error == pytest.approx(np.sqrt(np.mean(squares) / variance), rel=1e-4)
    assert found["collision"].accuracy == np.mean(right)


SEEN: list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]] = []


def seen(predictions: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> float:
    SEEN.append((predictions, truth))
    return 1 - float(np.abs(predictions["collision"] - truth["collision"]).mean())
