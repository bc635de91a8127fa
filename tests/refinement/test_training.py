"""The training step: what it may change, and what it is told to change."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from deltafine.model import DeltaSettings, Site, delta_layers, find_activations, insert_deltas, select_sites
from deltafine.refinement.training.losses import ClassificationLoss
from deltafine.refinement.training.step import Trainer
from deltafine.settings import resolve
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
    sites = select_sites(find_activations(model))
    deltas = DeltaSettings(initial_threshold=0.2, train_threshold=resolved.rate_of_thresholds > 0)
    student = insert_deltas(model, sites, deltas)
    shares = {site.delta_name: site.mac_share for site in sites if site.selected}
    loss = ClassificationLoss(True, resolved.teaching)
    teacher = insert_deltas(model, []) if resolved.teaching else None
    return Trainer(student, teacher, loss, shares, resolved, steps), student, sites


def steps_of(student: Any) -> list[float]:
    return [float(layer.threshold) for layer in delta_layers(student).values()]


def test_the_task_is_learnt_and_steps_with_no_rate_stay(model: Any) -> None:
    trainer, student, _ = trainer_of(model, learning_rate=0.01, threshold_learning_rate=0.0, distill=0.0, penalty=0.0)
    before = steps_of(student)
    losses = [trainer.train_on_batch(*batch(), 0.0)[0] for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]
    assert steps_of(student) == before
    assert trainer.step == 30


def test_the_penalty_alone_lowers_the_expected_events_and_steps_with_a_rate_grow(model: Any) -> None:
    trainer, student, sites = trainer_of(
        model, learning_rate=1e-9, threshold_learning_rate=0.1, distill=0.0, penalty=100.0
    )
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
        start="noise",
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


def test_what_is_kept_are_the_mean_weights_of_the_latest_steps(model: Any) -> None:
    trainer, student, _ = trainer_of(model, learning_rate=0.01, distill=0.0, average=0.25, steps=20)
    expected = [value.copy() for value in student.get_weights()]
    for step in range(1, 13):
        trainer.train_on_batch(*batch(), 1.0)
        momentum = min(1 - 1 / 5, step / (step + 9))
        now = zip(expected, student.get_weights(), strict=True)
        expected = [momentum * mean + (1 - momentum) * value for mean, value in now]
    own, own_kernel = student.get_weights(), student.get_layer("conv1").get_weights()[0]
    means, penalties = [], {id(layer.penalty) for layer in delta_layers(student).values()}
    with trainer.averaged():
        for variable, mean in zip(student.weights, expected, strict=True):
            if id(variable) not in penalties and variable.dtype == "float32":
                np.testing.assert_allclose(variable.numpy(), mean, rtol=1e-5, atol=1e-6)
                means.append(variable)
        assert len(means) > 6
        assert not np.array_equal(student.get_layer("conv1").get_weights()[0], own_kernel)
    for before, after in zip(own, student.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_no_average_leaves_the_weights_as_they_are(model: Any) -> None:
    trainer, student, _ = trainer_of(model, method="paper")
    trainer.train_on_batch(*batch(), 1.0)
    own = student.get_weights()[0].copy()
    with trainer.averaged():
        np.testing.assert_array_equal(student.get_weights()[0], own)
