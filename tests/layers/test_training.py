"""Delta layers in a model of the user's own: compile, fit, history."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from deltafine.layers import GRANULARITIES, DeltaActivation, EventDensity
from deltafine.layers.time import FoldTime, TimeMean, UnfoldTime
from tests.layers.one_by_one import events_one_by_one


def moving_bars(clips=48, frames=6, seed=0):
    """Noisy clips of a bright bar that moves left or right: (clips, frames, 8, 8, 1) and labels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, clips)
    x = 0.05 * generator.normal(size=(clips, frames, 8, 8, 1))
    for clip in range(clips):
        for frame in range(frames):
            x[clip, frame, :, 1 if labels[clip] else 6] += 1
            x[clip, frame, frame % 8, :] += 0.5
    return x.astype("float32"), labels


def network(**settings):
    keras.utils.set_random_seed(0)
    clips = keras.Input((None, 8, 8, 1))
    x, clock = FoldTime()(clips)
    x = keras.layers.Conv2D(4, 3, activation="relu")(x)
    x = DeltaActivation(initial_threshold=0.2, name="first", **settings)(x, clock)
    x = keras.layers.Conv2D(4, 3, activation="relu")(x)
    x = DeltaActivation(initial_threshold=0.2, name="second", **settings)(x, clock)
    x = keras.layers.Dense(2)(keras.layers.GlobalMaxPooling2D()(x))
    return keras.Model(clips, TimeMean()(UnfoldTime()(x, clock)))


def fit(model, epochs, validate=False, **compile_options):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.02), loss, metrics=["accuracy"], **compile_options)
    x, labels = moving_bars()
    validation = (x, labels) if validate else None
    return model.fit(x, labels, epochs=epochs, batch_size=16, verbose=0, validation_data=validation).history


def test_training_from_scratch_learns_the_task_and_to_be_silent():
    history = fit(network(penalty=0.3), epochs=10, validate=True)
    free = fit(network(penalty=0.0), epochs=10, validate=True)
    assert history["val_accuracy"][-1] > 0.9
    for name in ("first_density", "second_density"):
        # The task alone makes the steps small; the penalty keeps the layers silent but for what the task needs.
        assert free[name][-1] > free[name][0]
        assert 0 < history[name][-1] < 0.1 * free[name][-1]
        assert 0 < history[f"val_{name}"][-1] < 0.1 * free[f"val_{name}"][-1]


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["quantize", "paper"])
def test_training_from_scratch_by_the_other_rules(rule):
    found = {}
    for penalty in (0.0, 0.1):
        history = fit(network(rule=rule, penalty=penalty), epochs=10, validate=True)
        assert history["val_accuracy"][-1] > 0.9
        found[penalty] = history["val_first_density"][-1]
    assert 0 < found[0.1] < 0.9 * found[0.0]


@pytest.mark.slow
def test_the_spatial_penalty_makes_activations_small_whatever_they_do_over_time():
    x, _ = moving_bars()
    sizes = {}
    for penalty in (0.0, 0.3):
        model = network(rule="l1", penalty=penalty)
        history = fit(model, epochs=10, validate=True)
        assert history["val_accuracy"][-1] > 0.9
        first = keras.Model(model.inputs[0], model.get_layer("first").output)
        sizes[penalty] = float(np.abs(first(x)).mean())
    assert sizes[0.3] < 0.7 * sizes[0.0]


def test_training_compiled_by_xla():
    history = fit(network(penalty=0.1), epochs=2, jit_compile=True)
    assert history["loss"][-1] < history["loss"][0]
    assert 0 < history["first_density"][0] < 1


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_training_in_mixed_precision(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = network(penalty=0.1)
        history = fit(model, epochs=2)
    finally:
        keras.config.set_dtype_policy(before)
    assert history["loss"][-1] < history["loss"][0]
    delta = model.get_layer("first")
    assert delta.compute_dtype in policy
    assert delta.log_threshold.dtype == "float32"
    assert abs(float(delta.threshold) - 0.2) > 1e-4


def test_the_penalty_is_paid_in_training_only():
    x, labels = moving_bars()
    model = network(penalty=1.0, random_start=False)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    task = float(keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, model(x)))
    evaluated = model.evaluate(x, labels, batch_size=48, verbose=0, return_dict=True)
    assert evaluated["loss"] == pytest.approx(task, rel=1e-4)
    assert 0 < evaluated["first_density"] < 1
    model(x, training=True)
    penalty = sum(float(loss) for loss in model.losses)
    assert 0 < penalty < 2
    fitted = model.fit(x, labels, batch_size=48, verbose=0).history["loss"][0]
    assert fitted == pytest.approx(task + penalty, rel=1e-3)


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("rule", ["send-on-delta", "quantize", "identity"])
def test_the_metric_counts_every_event_once(rule, granularity):
    layer = DeltaActivation(rule=rule, granularity=granularity, initial_threshold=0.5)
    events = elements = 0
    for seed in range(3):
        x = np.random.default_rng(seed).normal(0, 0.4, (2, 5, 3, 4)).cumsum(axis=1).astype("float32")
        held = layer(x).numpy()
        counted = events_one_by_one(held, granularity)
        events, elements = events + counted[0], elements + counted[1]
    assert (int(layer.events.events), int(layer.events.elements)) == (events, elements)
    assert events > 0
    assert float(layer.events.result()) == pytest.approx(events / elements, rel=1e-6)


def test_a_random_start_counts_as_a_first_frame_not_as_an_event():
    layer = DeltaActivation(initial_threshold=0.5)
    x = np.random.default_rng(0).normal(0, 0.4, (2, 5, 3, 4)).cumsum(axis=1).astype("float32")
    held = layer(x, training=True).numpy()
    assert (int(layer.events.events), int(layer.events.elements)) == events_one_by_one(held, "element")


def test_counts_beyond_32_bits_are_exact():
    density = EventDensity()
    for _ in range(3):
        density.update_state(tf.constant(2**31 + 1, tf.int64), tf.constant(2**32, tf.int64))
    assert int(density.events) == 3 * (2**31 + 1)
    assert int(density.elements) == 3 * 2**32
    density.reset_state()
    assert float(density.result()) == 0
