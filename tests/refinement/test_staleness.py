"""How stale the states are that training starts from: noise that a deep network can bear."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from deltafine.layers import Stream
from deltafine.model import DeltaSettings, delta_layers, find_activations, insert_deltas
from deltafine.model.clip_model import with_time
from deltafine.refinement import staleness
from deltafine.refinement.losses import ClassificationLoss
from deltafine.refinement.staleness import NOISES, limit_start_noise

FRAMES = 4


def network(depth: int, *, random_start: bool = True, step: float = 0.5) -> tuple[Any, Any]:
    """A chain of normalised convolutions as a clip model with delta layers, and without."""
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((8, 8, 3))
    for _ in range(depth):
        x = layers.Conv2D(16, 1, kernel_initializer=keras.initializers.Orthogonal(1.4))(x)
        x = layers.ReLU()(x)
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D()(x)))
    settings = DeltaSettings(initial_step=step, random_start=random_start)
    return insert_deltas(model, find_activations(model), settings), insert_deltas(model, [])


def videos() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.normal(0, 0.02, (9, 8, 8, 3)).cumsum(axis=0).astype(np.float32) + 1 for _ in range(3)]


def limited(depth: int, least: float, **more: Any) -> tuple[float, Any, list[np.ndarray]]:
    student, original = network(depth, **more)
    found = videos()
    targets = [with_time(original).predict(video[None], verbose=0)[0] for video in found]
    loss = ClassificationLoss(True, 0.5)
    noise = limit_start_noise(student, found, targets, loss.divergence, frames=FRAMES, batch=2, least=least)
    return noise, student, targets


def divergence(student: Any, targets: list[np.ndarray], noise: float) -> float:
    """Of clips that start with this noise, from the original."""
    for layer in delta_layers(student).values():
        layer.start_noise.assign(noise)
    clips = np.stack([video[start : start + FRAMES] for video in videos() for start in (0, FRAMES)])
    wanted = np.concatenate([target[: 2 * FRAMES] for target in targets])
    with Stream(measuring=True, stale=True):
        got = np.asarray(with_time(student)([clips]))
    return ClassificationLoss(True, 0.5).divergence(wanted, got.reshape(wanted.shape))


def test_it_is_the_largest_noise_within_the_limit():
    noise, student, targets = limited(12, 1e-3)
    assert 1 / 32 < noise < 1
    assert all(float(layer.start_noise) == np.float32(noise) for layer in delta_layers(student).values())
    larger = NOISES[NOISES.index(noise) - 1]
    assert divergence(student, targets, 0.7 * noise) < divergence(student, targets, 1.4 * larger)


def test_a_deep_network_bears_less_than_a_shallow_one():
    assert limited(1, 1e-3)[0] > limited(12, 1e-3)[0]


def test_what_streams_do_counts_where_it_is_more(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(staleness, "_divergence_of_streams", lambda *given: 10.0)
    assert limited(12, 1e-3)[0] == 1.0


def test_the_training_draws_the_same_numbers_afterwards():
    fresh, _ = network(2)
    _, student, _ = limited(2, 1e-3)
    for one, other in zip(delta_layers(fresh).values(), delta_layers(student).values(), strict=True):
        np.testing.assert_array_equal(one.start_seed.state, other.start_seed.state)


def test_layers_that_start_from_the_first_frame_have_no_noise():
    noise, student, _ = limited(2, 1e-3, random_start=False)
    assert noise == 1.0
    assert all(layer.start_noise is None for layer in delta_layers(student).values())
