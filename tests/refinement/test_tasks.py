"""Whole runs of models that are no classifiers of single frames: numbers, maps, clips, a single video."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from deltafine import refine
from deltafine.errors import DeltafineError
from deltafine.model import delta_layers
from deltafine.report import Report
from tests.small_runs import FAST, SIZE, small_model, write_small_video, write_small_videos

WINDOW = 4
SETTINGS = {**FAST, "epochs": 1}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_videos(tmp_path_factory.mktemp("labelled"), per_class=3)


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unlabelled")
    for number in range(4):
        write_small_video(folder / f"{number}.avi", number % 2 == 0, seed=number)
    return folder


def features(inputs: Any) -> Any:
    x = layers.Rescaling(1 / 255)(inputs)
    return layers.Conv2D(4, 3, strides=2, activation="relu", name="conv1")(x)


def of_numbers(outputs: int = 1) -> Any:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(4, 3, activation="relu", name="conv2")(features(inputs))
    return keras.Model(inputs, layers.Dense(outputs, name="head")(layers.Flatten()(x)))


def of_maps(activation: str | None) -> Any:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIZE, SIZE, 3))
    return keras.Model(inputs, layers.Conv2D(3, 1, activation=activation, name="map")(features(inputs)))


def of_clips(kind: str, length: int | None = WINDOW) -> Any:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((length, SIZE, SIZE, 3), name="clip")
    if kind == "convolutional":
        x = layers.Rescaling(1 / 255)(inputs)
        x = layers.Conv3D(4, 3, strides=(1, 2, 2), activation="relu", name="conv")(x)
        x = layers.Conv3D(4, (1, 3, 3), activation="relu", name="conv2")(x)
        x = layers.GlobalAveragePooling3D()(x)
    elif kind == "convolutional and recurrent":
        x = layers.TimeDistributed(layers.Rescaling(1 / 255))(inputs)
        x = layers.TimeDistributed(layers.Conv2D(4, 3, strides=2, activation="relu"), name="conv")(x)
        x = layers.ConvLSTM2D(4, 3, name="recurrent")(x)
        x = layers.GlobalAveragePooling2D()(x)
    else:
        frame = keras.Input((SIZE, SIZE, 3))
        backbone = keras.Model(frame, layers.GlobalAveragePooling2D()(features(frame)), name="backbone")
        x = layers.TimeDistributed(backbone, name="frames")(inputs)
        cell = layers.GRU if kind == "gated" else layers.LSTM
        x = cell(4, return_sequences=kind == "along time", name="recurrent")(x)
    return keras.Model(inputs, layers.Dense(2, activation="softmax", name="head")(x), name="clips")


def run(model: Any, data: Path, folder: Path, **settings: Any) -> tuple[Report, Any]:
    model.save(folder / "model.keras")
    report = refine(folder / "model.keras", data, folder / "run", **{**SETTINGS, **settings})
    return report, keras.models.load_model(folder / "run" / "refined.keras")


def test_a_model_of_numbers_follows_the_original_and_is_judged_by_its_error(unlabelled: Path, tmp_path: Path) -> None:
    report, refined = run(of_numbers(2), unlabelled, tmp_path, clip_output="last", relative_threshold=0.02)
    assert report.settings["task"] == "distill"  # nothing is labelled
    for name in ("calibrated", "refined"):
        figures = report.models[name].streams
        assert figures.frame_accuracy is None
        assert figures.fidelity is None
        assert figures.relative_error is not None
        assert 0 < figures.relative_error < figures.frozen_error
    assert report.models["original"].streams.relative_error == 0
    (chosen,) = [point for point in report.front if point.chosen]
    assert chosen.accuracy == pytest.approx(1 - figures.relative_error)
    assert report.model.outputs is None
    assert refined.output_shape == (None, 2)
    clips = np.random.default_rng(0).integers(0, 256, (2, 5, SIZE, SIZE, 3)).astype("float32")
    frames = keras.Model(refined.input, refined.get_layer("frame_predictions").output)
    np.testing.assert_array_equal(refined(clips), frames(clips)[:, -1])


def test_labels_that_are_numbers_are_what_a_regression_learns(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    rows = ["video,frame,label,split"]
    for number in range(4):
        write_small_video(videos / f"{number}.avi", number % 2 == 0, seed=number)
        side = "train" if number < 2 else "validation"
        rows += [f"{number}.avi,{frame},{0.5 * frame - 1},{side}" for frame in range(12)]
    (videos / "labels.csv").write_text("\n".join(rows) + "\n")
    report, _ = run(of_numbers(), videos, tmp_path, epochs=3, learning_rate=0.01, distill=0.0)
    assert report.settings["task"] == "regression"
    original, refined = report.models["original"].streams, report.models["refined"].streams
    assert refined.label_error is not None
    assert refined.label_error < original.label_error
    assert report.history[-1].task_loss < report.history[0].task_loss


@pytest.mark.parametrize(
    ("activation", "judged_by"),
    [("softmax", "fidelity"), pytest.param(None, "relative_error", marks=pytest.mark.slow)],
)
def test_maps_are_distilled_as_classes_or_as_numbers(
    activation: str | None, judged_by: str, labelled: Path, tmp_path: Path
) -> None:
    model = of_maps(activation)
    report, refined = run(model, labelled, tmp_path, task="distill", clip_output="per-frame")
    assert refined.output_shape == (None, None, *model.output_shape[1:])
    figures = report.models["refined"].streams
    assert {name for name in ("fidelity", "relative_error") if getattr(figures, name) is not None} == {judged_by}
    # Labels are not looked at, so that nothing is said about them.
    assert report.data.classes == []
    assert figures.frame_accuracy is None


@pytest.mark.parametrize(
    "kind",
    [
        "convolutional",
        "recurrent",
        pytest.param("gated", marks=pytest.mark.slow),
        pytest.param("convolutional and recurrent", marks=pytest.mark.slow),
    ],
)
def test_a_model_that_takes_clips_is_refined_and_measured_window_by_window(
    kind: str, labelled: Path, tmp_path: Path
) -> None:
    settings = {name: value for name, value in SETTINGS.items() if name != "frames"}
    of_clips(kind).save(tmp_path / "model.keras")
    report = refine(tmp_path / "model.keras", labelled, tmp_path / "run", **settings)
    refined = keras.models.load_model(tmp_path / "run" / "refined.keras")
    assert refined.input_shape == (None, WINDOW, SIZE, SIZE, 3)
    assert report.model.window == WINDOW
    assert delta_layers(refined)
    streams = report.models["refined"].streams
    assert streams.frames == 2 * 12
    assert streams.frame_accuracy is None
    assert streams.window_accuracy is not None
    assert streams.accuracy_change is not None
    assert 0 < streams.operations.mac_density < 1
    before = keras.models.load_model(tmp_path / "model.keras")
    assert not np.array_equal(before.get_weights()[0], refined.get_weights()[0])


def test_answers_along_time_of_a_model_that_takes_clips_are_those_of_its_frames(labelled: Path, tmp_path: Path) -> None:
    report, refined = run(of_clips("along time", None), labelled, tmp_path, target_macs=0.3)
    assert refined.output_shape == (None, WINDOW, 2)
    assert report.models["refined"].streams.frame_accuracy is not None
    assert report.models["refined"].streams.window_accuracy is None


def test_a_single_video_is_split_in_time_and_the_report_says_so(tmp_path: Path) -> None:
    video = write_small_video(tmp_path / "one.avi", True, seed=0, frames=40)
    report, _ = run(small_model(), video, tmp_path, validation=0.25)
    assert (report.data.train_videos, report.data.validation_videos) == (1, 1)
    assert report.models["refined"].streams.frames == 10
    assert any("the first 1.2 seconds of a single video" in warning for warning in report.warnings)


def test_a_model_of_any_frame_size_needs_one(unlabelled: Path, tmp_path: Path) -> None:
    inputs = keras.Input((None, None, 3))
    pooled = layers.GlobalAveragePooling2D()(features(inputs))
    model = keras.Model(inputs, layers.Dense(2, activation="softmax")(pooled))
    with pytest.raises(DeltafineError, match="such as --size 224x224"):
        run(model, unlabelled, tmp_path)
    report, refined = run(model, unlabelled, tmp_path, size="16x20", epochs=0)
    assert report.model.input_shape == [16, 20, 3]
    assert refined.input_shape == (None, None, 16, 20, 3)


@pytest.mark.parametrize(
    ("model", "settings", "reason"),
    [
        (lambda: of_maps("softmax"), {}, "use --task distill"),
        (lambda: small_model(3), {}, "3 outputs but .* has 2 classes .* --classes, or use --task distill"),
        (lambda: of_clips("convolutional"), {"frames": 8}, "takes clips of 4 frames, not 8"),
        (
            lambda: of_clips("convolutional"),
            {"clip_output": "last"},
            "--clip-output is for models that take single frames",
        ),
        (lambda: small_model(), {"size": "20x20"}, "takes frames of 16x16"),
        (lambda: small_model(), {"task": "guess"}, "The setting 'task' is 'guess'"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(
    model: Any, settings: dict[str, Any], reason: str, labelled: Path, tmp_path: Path
) -> None:
    with pytest.raises(DeltafineError, match=reason):
        run(model(), labelled, tmp_path, **settings)
    assert not (tmp_path / "run").exists()


def test_numbers_that_never_change_are_refused(unlabelled: Path, tmp_path: Path) -> None:
    model = of_numbers()
    model.get_layer("head").set_weights([np.zeros((100, 1)), np.ones(1)])
    with pytest.raises(DeltafineError, match="the same numbers on every frame"):
        run(model, unlabelled, tmp_path, task="regression")
    assert math.isfinite(model.predict(np.zeros((1, SIZE, SIZE, 3)), verbose=0)[0, 0])
