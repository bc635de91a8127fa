"""The original's features beside its answers: their distance against NumPy, and what runs follow them."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from deltafine.jobs.refine import refine
from deltafine.layers import Stream
from deltafine.model import DeltaSettings, find_activations, insert_deltas, select_sites
from deltafine.model.clip_model import with_time
from deltafine.refinement.training.losses import ClassificationLoss
from deltafine.refinement.training.teaching import Features, Teaching
from deltafine.refinement.training.trainable import prepare_batchnorm
from tests.small_runs import FAST, SIZE, small_model, write_small_model, write_small_videos

LABELS = np.array([0, 1])


def clips() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 255, (2, 4, SIZE, SIZE, 3)).astype(np.float32)


def pair(model: Any, threshold: float = 0.3) -> tuple[Any, Any]:
    """The original and a student with delta layers, as clip models, which normalise alike in training."""
    sites = select_sites(find_activations(model))
    student = insert_deltas(model, sites, DeltaSettings(initial_threshold=threshold, random_start=False))
    prepare_batchnorm(student, freeze=True)
    return insert_deltas(model, []), student


def loss_of(student: Any, original: Any, features: Features | None) -> float:
    teaching = Teaching(with_time(student), with_time(original), ClassificationLoss(True, 0.5), features)
    frames = tf.constant(clips())
    with Stream():
        return float(teaching.loss(frames, teaching.original(frames), tf.constant(LABELS))[1])


def into(clip_model: Any, layer: str) -> np.ndarray:
    """What a layer of the network sees of the clips, frame by frame, through a model of Keras' own."""
    within = with_time(clip_model)
    tensor = next(one for one in within.layers if one.name == layer).input
    with Stream():
        return np.asarray(keras.Model(within.inputs, tensor)(clips(), training=False))


def test_the_distance_is_that_of_what_the_last_two_layers_see() -> None:
    model = small_model()
    original, student = pair(model)
    videos = [np.random.default_rng(5).integers(0, 255, (6, SIZE, SIZE, 3)).astype(np.float32) for _ in range(3)]
    features = Features.measured(0.7, original, student, videos)
    assert features.places == ("conv2", "head")
    expected = []
    for layer, variance in zip(features.places, features.variances, strict=True):
        here, there = into(student, layer), into(original, layer)
        expected.append(np.square(here.astype(np.float64) - there).mean() / variance / 2)
    plain = loss_of(student, original, None)
    assert loss_of(student, original, features) == pytest.approx(plain + 0.7 * np.mean(expected), rel=1e-4)
    assert min(expected) > 0


def test_variances_are_those_of_all_frames() -> None:
    model = small_model()
    original, student = pair(model)
    random = np.random.default_rng(0)
    videos = [random.integers(0, most, (5, SIZE, SIZE, 3)).astype(np.float32) for most in (20, 120, 255)]
    inner = keras.Model(model.inputs, [model.get_layer(name).input for name in ("conv2", "head")])
    seen = inner.predict(np.concatenate(videos), verbose=0)
    expected = [float(values.astype(np.float64).var(axis=0).mean()) for values in seen]
    assert Features.measured(1.0, original, student, videos).variances == pytest.approx(expected, rel=1e-3)


def test_a_student_that_sees_what_the_original_sees_pays_nothing() -> None:
    original, student = pair(small_model(), threshold=1e-9)
    features = Features.measured(100.0, original, student, [clips()[0]])
    assert loss_of(student, original, features) == pytest.approx(loss_of(student, original, None), abs=1e-4)


def test_a_layer_that_sees_the_same_in_every_frame_is_measured_by_its_size() -> None:
    original, student = pair(small_model())
    still = np.repeat(clips()[:1, :1], 4, axis=1)[0]
    features = Features.measured(1.0, original, student, [still])
    assert min(features.variances) > 0


def test_layers_within_nested_models_are_found() -> None:
    inputs = keras.Input((SIZE, SIZE, 3))
    model = keras.Model(inputs, small_model()(inputs))
    original, student = pair(model)
    features = Features.measured(1.0, original, student, [clips()[0]])
    assert [path.rpartition("/")[2] for path in features.places] == ["conv2", "head"]
    assert loss_of(student, original, features) > loss_of(student, original, None)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("material")
    return write_small_model(folder / "m.keras"), write_small_videos(folder / "videos", per_class=3)


def test_features_change_the_training(material: tuple[Path, Path], tmp_path: Path) -> None:
    histories = []
    for weight in (0.0, 5.0):
        out = tmp_path / str(weight)
        refine(*material, out, epochs=1, distill_features=weight, **FAST)
        assert tomllib.loads((out / "settings.toml").read_text())["distill_features"] == weight
        histories.append((out / "history.csv").read_text())
    assert histories[0] != histories[1]
