"""Measuring any model afresh: of frames or clips, of classes or anything else, refined, exported or neither."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest
from keras import layers

from deltafine import model as models
from deltafine.errors import DeltafineError
from deltafine.exporting.forms import export_plain
from deltafine.jobs.measure import measure_model
from deltafine.model import DeltaSettings
from tests.small_runs import SIZE, small_model, write_small_video, write_small_videos

FRAMES = 4


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_videos(tmp_path_factory.mktemp("measured"))


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos whose labels are numbers."""
    root = tmp_path_factory.mktemp("numbers")
    for light, name in enumerate(("0.5", "2")):
        for number in range(5):
            write_small_video(root / name / f"v{light}{number}.avi", bool(light), seed=10 * light + number)
    return root


def ended(end: Callable[[Any], Any]) -> Any:
    """A convolution on 16x16 frames, then the given end."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(4, 3, strides=2, activation="relu", padding="same", name="conv")(inputs / 255.0)
    return keras.Model(inputs, end(x))


def of_clips(kind: str, frames: int | None = FRAMES) -> Any:
    """A network that takes clips."""
    keras.utils.set_random_seed(2)
    inputs = keras.Input((frames, SIZE, SIZE, 3))
    if kind == "Conv3D":
        x = layers.Conv3D(4, 3, strides=(1, 2, 2), activation="relu", name="conv")(inputs / 255.0)
        x = layers.GlobalAveragePooling3D()(x)
    else:
        x = layers.TimeDistributed(layers.Conv2D(4, 3, strides=2, activation="relu"), name="conv")(inputs / 255.0)
        x = layers.GlobalAveragePooling1D()(layers.TimeDistributed(layers.GlobalAveragePooling2D())(x))
    return keras.Model(inputs, layers.Dense(2, activation="softmax", name="head")(x))


def refined(model: Any, rule: str = "send-on-delta") -> Any:
    sites = models.select_sites(models.find_activations(model))
    return models.insert_deltas(model, sites, DeltaSettings(rule=rule, initial_threshold=0.1))


def measured(model: Any, folder: Path, data: Path, **settings: Any) -> Any:
    model.save(folder / "model.keras")
    report, pictures = measure_model(folder / "model.keras", data, **{"frames": FRAMES, **settings})
    of_events = [picture for picture, _ in pictures if picture.kind == "events"]
    assert len(of_events) == (2 if report.model.window is None else 0)
    return report


def test_the_input_of_a_refined_model_is_shown_as_that_of_its_original(tmp_path: Path, videos: Path) -> None:
    model = small_model()
    plain, with_deltas = (measured(one, tmp_path, videos) for one in (model, refined(model)))
    assert [list(plain.models), list(with_deltas.models)] == [["original"], ["refined"]]
    for report in (plain, with_deltas):
        assert report.model.input_shape == [SIZE, SIZE, 3]
        assert (report.model.outputs, report.model.window, report.model.coverage) == (2, None, 1)
    dense = [report.models[name].streams.operations.dense_macs
             for report, name in ((plain, "original"), (with_deltas, "refined"))]  # fmt: skip
    assert dense[0] == dense[1]


@pytest.mark.parametrize("kind", ["Conv3D", "TimeDistributed"])
@pytest.mark.parametrize("with_deltas", [False, True])
def test_networks_that_take_clips_are_measured_window_by_window(
    kind: str, with_deltas: bool, tmp_path: Path, videos: Path
) -> None:
    model = of_clips(kind)
    report = measured(refined(model) if with_deltas else model, tmp_path, videos, frames=None)
    (figures,) = report.models.values()
    assert (report.model.window, report.model.input_shape) == (FRAMES, [FRAMES, SIZE, SIZE, 3])
    assert report.settings["frames"] == FRAMES
    assert figures.streams.clip_accuracy is not None
    assert figures.streams.operations.dense_macs > 0
    assert len(figures.streams.deltas) == (2 if with_deltas else 0)


def test_a_clip_length_that_is_not_the_models_is_refused(tmp_path: Path, videos: Path) -> None:
    with pytest.raises(DeltafineError, match="clips of 4 frames, not 5"):
        measured(of_clips("Conv3D"), tmp_path, videos, frames=5)


def test_a_model_of_clips_of_any_length_takes_the_one_that_is_given(tmp_path: Path, videos: Path) -> None:
    assert measured(of_clips("Conv3D", None), tmp_path, videos, frames=6).model.window == 6


def test_a_model_of_frames_of_any_size_needs_one(tmp_path: Path, videos: Path) -> None:
    inputs = keras.Input((None, None, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(inputs))
    model = keras.Model(inputs, layers.Dense(2, activation="softmax")(x))
    with pytest.raises(DeltafineError, match="--size"):
        measured(model, tmp_path, videos)
    report = measured(model, tmp_path, videos, size="20x24")
    assert report.model.input_shape == [20, 24, 3]
    assert report.model.outputs == 2


def test_a_dense_map_is_compared_with_that_of_the_original(tmp_path: Path, videos: Path) -> None:
    model = ended(layers.Conv2D(3, 1, name="flow"))
    model.save(tmp_path / "original.keras")
    with pytest.raises(DeltafineError, match=r"\(8, 8, 3\) per answer.*--task distill"):
        measured(refined(model), tmp_path, videos)
    report = measured(refined(model), tmp_path, videos, task="distill", original=tmp_path / "original.keras")
    figures = report.models["refined"].streams
    assert report.model.outputs is None
    assert figures.frame_accuracy is figures.fidelity is None
    assert 0 < figures.relative_error < 1
    assert report.models["original"].streams.relative_error == 0


def test_numbers_are_compared_with_labels_that_are_numbers(tmp_path: Path, numbers: Path) -> None:
    model = ended(lambda x: layers.Dense(1, name="angle")(layers.GlobalAveragePooling2D()(x)))
    report = measured(model, tmp_path, numbers)
    figures = report.models["original"].streams
    assert report.model.outputs is None
    assert figures.frame_accuracy is None
    assert figures.label_error > 0


def test_labels_are_left_aside_on_request(tmp_path: Path, videos: Path) -> None:
    report = measured(small_model(classes=7), tmp_path, videos, task="distill")
    assert report.data.classes == []
    assert report.models["original"].streams.frame_accuracy is None


@pytest.mark.parametrize("rule", ["quantize", "send-on-delta"])
def test_exported_models_are_measured(rule: str, tmp_path: Path, videos: Path) -> None:
    model = small_model()
    student = refined(model, rule=rule)
    whole = measured(student, tmp_path, videos).models["refined"].streams
    plain = measured(model, tmp_path, videos).models["original"].streams
    stripped = measured(export_plain(student), tmp_path, videos).models["original"].streams
    assert stripped.operations == plain.operations
    quantized = export_plain(student, "quantized", frames=FRAMES)
    if rule == "quantize":
        figures = measured(quantized, tmp_path, videos).models["original"].streams
        assert figures.operations.effective_macs_delta == whole.operations.effective_macs_delta
        assert figures.frame_accuracy == whole.frame_accuracy
    else:  # it holds values with plain operations, frames being unfolded and folded again
        with pytest.raises(DeltafineError, match="measure the refined model itself"):
            measured(quantized, tmp_path, videos)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"task": "guess"}, "'task' is 'guess'.*'auto', 'classification', 'regression', 'distill' or 'outputs'"),
        ({"clip_output": "last"}, "clip output of this refined model is 'mean', not 'last'"),
        ({"rescale": "0..1"}, "leave --rescale out"),
        ({"size": "20x20"}, "frames of 16x16"),
    ],
)
def test_settings_that_do_not_fit_a_refined_model_are_refused(
    settings: dict[str, Any], reason: str, tmp_path: Path, videos: Path
) -> None:
    with pytest.raises(DeltafineError, match=reason):
        measured(refined(small_model()), tmp_path, videos, **settings)


def test_other_streams_are_measured_as_a_whole(tmp_path: Path, videos: Path) -> None:
    streams = write_small_videos(tmp_path / "streams", per_class=3)
    for number, file in enumerate(sorted(streams.rglob("*.avi"))):
        write_small_video(file, bool(number % 2), seed=1000 + number)
    report = measured(small_model(), tmp_path, videos, streams=streams)
    assert (report.models["original"].clips.videos, report.models["original"].streams.videos) == (2, 6)
