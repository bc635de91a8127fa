"""A training clip starts from the state that the frames before it leave."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from deltafine.layers import Stream
from deltafine.model import DeltaSettings, choose, delta_layers, find_activations, insert_deltas
from deltafine.model.clip_model import with_time
from deltafine.refinement import resolve
from deltafine.refinement.lead_in import state_after
from deltafine.refinement.losses import ClassificationLoss
from deltafine.refinement.training import Trainer
from tests.small_runs import SIZE, small_model


def student_of(unit: str, rule: str = "send-on-delta") -> Any:
    model = small_model()
    return insert_deltas(model, choose(find_activations(model)), DeltaSettings(rule=rule, unit=unit, initial_step=0.5))


def walk(frames: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (128 + random.normal(0, 8, (2, frames, SIZE, SIZE, 3)).cumsum(axis=1)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("unit", ["element", "pixel"])
@pytest.mark.parametrize("lead", [1, 6, 8])
def test_a_clip_goes_on_where_its_lead_in_ended(unit: str, lead: int) -> None:
    student = with_time(student_of(unit))
    frames = walk(lead + 4)
    whole = student(tf.cast(frames, tf.float32), training=False)
    state = state_after(student, tf.convert_to_tensor(frames[:, :lead]), 4)
    with Stream(state):
        continued = student(tf.cast(frames[:, lead:], tf.float32), training=False)
    alone = student(tf.cast(frames[:, lead:], tf.float32), training=False)
    np.testing.assert_allclose(continued, whole[:, lead:], rtol=1e-6)
    assert not np.allclose(alone, whole[:, lead:], rtol=1e-4)
    assert state_after(student, tf.convert_to_tensor(frames[:, :0]), 4) is None


def test_training_sees_the_state_and_is_not_driven_through_it() -> None:
    """Without noise, a lead-in of frames as they are at the start is no lead-in; any other changes the loss."""
    frames, labels = walk(5), np.array([0, 1])
    still = np.repeat(frames[:, :1], 8, axis=1)
    losses = {}
    for name, lead_in in (("none", None), ("still", still), ("moving", walk(8, seed=1))):
        keras.utils.set_random_seed(0)
        settings = resolve(model="m", data="d", warmup=0, distill=0.0, freeze_batchnorm=True)
        model = small_model()
        sites = choose(find_activations(model))
        student = insert_deltas(model, sites, DeltaSettings(initial_step=0.5, random_start=False))
        for layer in student.layers:
            layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
        shares = {site.delta_name: site.mac_share for site in sites if site.selected}
        trainer = Trainer(student, None, ClassificationLoss(True, 0.0), shares, settings, 10)
        losses[name] = trainer.train_on_batch(frames, labels, 1.0, lead_in=lead_in)
        assert all(layer.events.result() >= 0 for layer in delta_layers(student).values())
    np.testing.assert_allclose(losses["still"], losses["none"], rtol=1e-5)
    assert abs(losses["moving"][0] - losses["none"][0]) > 1e-5 * losses["none"][0]


def test_rules_without_memory_and_training_from_exact_frames_need_no_lead_in() -> None:
    def led(**values: Any) -> int:
        return resolve(model="m", data="d", **values).led

    assert led() == 24
    assert led(lead_in=5) == 5
    assert led(rule="quantize") == led(method="paper") == led(method="l1") == led(random_start=False) == 0
