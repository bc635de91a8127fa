"""The training step: what it may change, and what it is told to change."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from deltafine.model import DeltaSettings, Site, choose, delta_layers, find_activations, insert_deltas
from deltafine.refinement import resolve
from deltafine.refinement.losses import ClassificationLoss
from deltafine.refinement.training import Trainer
from tests.small_runs import SIZE, small_model


@pytest.fixture(scope="module")
def model() -> Any:
    return small_model()


def batch() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels = np.array([0, 1, 0, 1])
    frames = random.integers(0, 120, (4, 5, SIZE, SIZE, 3)) + 100 * labels[:, None, None, None, None]
    return frames.astype(np.uint8), labels


def trainer_of(model: Any, steps: int = 30, **settings: Any) -> tuple[Trainer, Any, list[Site]]:
    resolved = resolve(model="m", data="d", warmup=0, **settings)
    sites = choose(find_activations(model))
    deltas = DeltaSettings(initial_step=0.2, train_step=resolved.rate_of_steps > 0)
    student = insert_deltas(model, sites, deltas)
    shares = {site.delta_name: site.mac_share for site in sites if site.selected}
    loss = ClassificationLoss(True, resolved.teaching)
    teacher = insert_deltas(model, []) if resolved.teaching else None
    return Trainer(student, teacher, loss, shares, resolved, steps), student, sites


def steps_of(student: Any) -> list[float]:
    return [float(layer.step) for layer in delta_layers(student).values()]


def test_the_task_is_learnt_and_steps_with_no_rate_stay(model: Any) -> None:
    trainer, student, _ = trainer_of(model, learning_rate=0.01, step_learning_rate=0.0, distill=0.0, penalty=0.0)
    before = steps_of(student)
    losses = [trainer.train_on_batch(*batch(), 0.0)[0] for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]
    assert steps_of(student) == before
    assert trainer.step == 30


def test_the_penalty_alone_lowers_the_expected_events_and_steps_with_a_rate_grow(model: Any) -> None:
    trainer, student, sites = trainer_of(model, learning_rate=1e-9, step_learning_rate=0.1, distill=0.0, penalty=100.0)
    before = steps_of(student)
    penalties = [trainer.train_on_batch(*batch(), 100.0)[1] for _ in range(15)]
    assert penalties[-1] < penalties[0]
    assert sum(np.log(steps_of(student))) > sum(np.log(before))
    layers = delta_layers(student)
    for site in sites:
        if site.selected:
            assert float(layers[site.delta_name].penalty) == pytest.approx(100.0 * site.mac_share, rel=1e-6)


def test_in_mixed_precision_layers_compute_in_half_and_stay_as_they_were(model: Any) -> None:
    seen: list[str] = []

    class Watched(keras.layers.Conv2D):
        def call(self, inputs: Any) -> Any:
            outputs = super().call(inputs)
            seen.append(outputs.dtype.name)
            return outputs

    frames = keras.Input((SIZE, SIZE, 3))
    x = Watched(4, 3, strides=2, name="conv1")(keras.layers.Rescaling(1 / 255)(frames))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU(name="relu1")(x))
    trainer, student, _ = trainer_of(
        keras.Model(frames, keras.layers.Dense(2, activation="softmax", name="head")(x)),
        learning_rate=0.01,
        distill=0.0,
        penalty=0.0,
        mixed_precision=True,
    )
    clips = tf.cast(batch()[0], tf.float32)
    before = student(clips)
    seen.clear()
    losses = [trainer.train_on_batch(*batch(), 0.0)[0] for _ in range(20)]
    assert set(seen) == {"bfloat16"}
    assert losses[-1] < losses[0]
    after = student(clips)
    assert set(seen) == {"bfloat16", "float32"}
    assert after.dtype == before.dtype == tf.float32
    assert all(variable.dtype == "float32" for variable in student.trainable_variables)
    assert {layer.dtype_policy.name for layer in student.layers} == {"float32"}
