"""The gradients that training uses, against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from deltafine.layers import GRANULARITIES, RULES, DeltaActivation
from deltafine.layers.rules.changes import likely_events

STEPS = {"layer": 0.6, "channel": [0.4, 0.6, 1.1], "neuron": [[0.4, 0.6, 1.1], [0.5, 0.9, 0.7]]}


def walk(shape, seed=0, size=0.4):
    """Values that move by random amounts from frame to frame."""
    return np.random.default_rng(seed).normal(0, size, shape).cumsum(axis=1)


def finite_differences(function, at: np.ndarray, by: float = 1e-6) -> np.ndarray:
    """d function / d each element, from both sides."""
    gradient = np.empty_like(at)
    for index in np.ndindex(at.shape):
        above, below = at.copy(), at.copy()
        above[index] += by
        below[index] -= by
        gradient[index] = (float(function(above)) - float(function(below))) / (2 * by)
    return gradient


@pytest.mark.parametrize("rule", RULES)
def test_the_task_reaches_x_straight_through(rule):
    layer = DeltaActivation(rule=rule, initial_threshold=0.6)
    x = tf.constant(walk((2, 5, 4, 3)), tf.float32)
    upstream = tf.constant(np.random.default_rng(1).normal(size=x.shape), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(upstream * layer(x))
    np.testing.assert_array_equal(tape.gradient(loss, x), upstream)


@pytest.mark.parametrize("threshold_per", STEPS)
@pytest.mark.parametrize("rule", ["quantize", "send-on-delta"])
def test_the_task_gradient_of_a_step_is_that_of_lsq(rule, threshold_per):
    layer = DeltaActivation(rule=rule, threshold_per=threshold_per, initial_threshold=STEPS[threshold_per])
    x = walk((2, 5, 2, 3)).astype("float32")
    upstream = np.random.default_rng(1).normal(size=x.shape)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.constant(upstream, tf.float32) * layer(tf.constant(x)))
    found = tape.gradient(loss, layer.log_threshold).numpy()
    step = np.broadcast_to(STEPS[threshold_per], (2, 3))
    held = RULES[rule].send(tf.constant(x), tf.constant(step, tf.float32), "element").numpy()
    per_element = (upstream * (held - x) / step).sum(axis=(0, 1)) * step  # d step / d log step = step
    sharing = {"layer": (0, 1), "channel": 0, "neuron": ()}[threshold_per]
    np.testing.assert_allclose(found, per_element.sum(axis=sharing), rtol=1e-4)


@pytest.mark.parametrize("rule", ["quantize", "send-on-delta"])
def test_the_task_gradient_of_a_step_is_the_slope_of_the_error_over_all_phases(rule):
    """Of mean (y - x)^2, which grows smoothly with the step once values of every phase are averaged."""
    generator = np.random.default_rng(0)
    x = (generator.uniform(-8, 8, (20000, 1)) + walk((20000, 3), size=0.02)).astype("float32")[..., None]
    start = generator.uniform(-1, 1, (20000, 1))  # in steps: a state of any age

    def send(step):
        since = tf.constant(x[:, 0] + start * float(step), tf.float32)
        return RULES[rule].send(tf.constant(x), tf.constant(step), "element", since)

    def error(step):
        return np.mean(np.square(send(np.float32(step)).numpy() - x))

    step = tf.Variable(0.8)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(RULES[rule].output(tf.constant(x), send(step.numpy()), step) - x))
    slope = (error(0.88) - error(0.72)) / 0.16
    assert float(tape.gradient(loss, step)) == pytest.approx(slope, rel=0.03)
    # The error is uniform: over half a step to either side, or over a whole one.
    assert slope == pytest.approx(2 * 0.8 / (12 if rule == "quantize" else 3), rel=0.03)


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("rule", ["quantize", "send-on-delta"])
def test_the_penalty_has_the_gradients_of_its_smooth_surrogate(rule, granularity):
    x, step = walk((2, 3, 2, 3)), np.array(STEPS["neuron"])
    with tf.GradientTape() as tape:
        x_tensor, step_tensor = tf.Variable(x), tf.Variable(step)
        sent = RULES[rule].send(x_tensor, step_tensor, granularity)
        events = tf.reduce_sum(RULES[rule].expected_events(x_tensor, sent, step_tensor, granularity))
    of_x, of_threshold = tape.gradient(events, [x_tensor, step_tensor])

    def surrogate(x, step):
        u = np.abs(np.diff(x, axis=1)) / step
        if granularity == "pixel":
            u = np.sqrt(np.mean(u**2, axis=-1))
        return np.tanh(u).sum()

    assert float(events) == pytest.approx(surrogate(x, step))
    np.testing.assert_allclose(of_x, finite_differences(lambda moved: surrogate(moved, step), x), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(of_threshold, finite_differences(lambda moved: surrogate(x, moved), step), rtol=1e-4)
    assert (of_threshold.numpy() < 0).all()  # a larger step, fewer events


@pytest.mark.parametrize("threshold_per", STEPS)
def test_short_clips_and_clips_of_unknown_length_have_the_same_penalty_and_gradients(threshold_per):
    """Short ones are computed frame by frame, others as a whole; whatever comes from behind."""
    x, step = walk((2, 5, 2, 3)), np.array(STEPS[threshold_per])
    upstream = tf.constant(np.random.default_rng(2).normal(size=(2, 4, 2, 3)))

    def found(x, step):
        with tf.GradientTape() as tape:
            tape.watch([x, step])
            events = likely_events(x, step)
        return events, *tape.gradient(events, [x, step], output_gradients=upstream)

    whole = tf.function(
        found, input_signature=[tf.TensorSpec((2, None, 2, 3), tf.float64), tf.TensorSpec(step.shape, tf.float64)]
    )
    for short, long in zip(found(tf.constant(x), tf.constant(step)), whole(x, step), strict=True):
        np.testing.assert_allclose(short, long, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rule", ["quantize", "send-on-delta"])
def test_the_surrogate_follows_the_number_of_events_over_all_phases(rule):
    phases = np.random.default_rng(0).uniform(-8, 8, (20000, 1))
    for change in (0.05, 0.3, 3.0):
        x = tf.constant((phases + np.array([0, change]))[..., None], tf.float32)
        step, start = tf.constant(1.0), None
        if rule == "send-on-delta":  # a state of any age
            start = x[:, 0] + np.random.default_rng(1).uniform(-1, 1, (20000, 1)).astype("float32")
        sent = RULES[rule].send(x, step, "element", start)
        counted = np.mean(sent[:, 1] != sent[:, 0])
        expected = float(tf.reduce_mean(RULES[rule].expected_events(x, sent, step, "element")))
        assert counted == pytest.approx(min(1, change if rule == "quantize" else change / 2), abs=0.02)
        assert 0.75 * counted <= expected <= 2.1 * counted


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("rule", ["quantize", "send-on-delta", "paper"])
def test_values_that_do_not_move_have_finite_gradients(rule, granularity):
    layer = DeltaActivation(rule=rule, granularity=granularity, penalty=1.0)
    x = tf.ones((2, 4, 2, 3))
    with tf.GradientTape() as tape:
        tape.watch(x)
        layer(x, training=True)
        (loss,) = layer.losses
    assert float(loss) == pytest.approx(0, abs=1e-5)
    of_x, of_threshold = tape.gradient(loss, [x, layer.log_threshold])
    np.testing.assert_allclose(of_x, np.zeros(x.shape), atol=1e-5)
    assert float(of_threshold) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("rule", ["quantize", "send-on-delta"])
def test_the_layer_adds_penalty_times_the_mean_surrogate(rule, granularity):
    layer = DeltaActivation(rule=rule, granularity=granularity, penalty=2.5, initial_threshold=0.6, random_start=False)
    x = walk((2, 5, 2, 3)).astype("float32")
    with tf.GradientTape() as tape:
        layer(tf.constant(x), training=True)
        (loss,) = layer.losses
    u = np.abs(np.diff(x, axis=1)) / 0.6
    u = np.sqrt(np.mean(u**2, axis=-1)) if granularity == "pixel" else u
    assert float(loss) == pytest.approx(2.5 * np.tanh(u).mean(), rel=1e-5)
    slope = -2.5 * (u / np.cosh(u) ** 2).mean()
    assert float(tape.gradient(loss, layer.log_threshold)) == pytest.approx(slope, rel=1e-4)
    layer.penalty.assign(0.5)
    layer(tf.constant(x), training=True)
    assert float(layer.losses[0]) == pytest.approx(0.5 * np.tanh(u).mean(), rel=1e-5)


def test_the_penalty_of_a_random_start_is_that_of_the_true_values():
    x = tf.constant(walk((2, 5, 2, 3)), tf.float32)
    losses = []
    for random_start in (True, False):
        layer = DeltaActivation(initial_threshold=0.6, penalty=1.0, random_start=random_start)
        layer(x, training=True)
        losses.append(float(layer.losses[0]))
    assert losses[0] == losses[1]


def test_the_papers_layer_gives_its_step_one_gradient_the_negated_levels():
    layer = DeltaActivation(rule="paper", initial_threshold=0.5)
    x = walk((2, 5, 2, 3)).astype("float32")
    upstream = np.random.default_rng(1).normal(size=x.shape).astype("float32")
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(upstream * layer(tf.constant(x)))
    expected = -(upstream * np.round(x / 0.5)).sum() * 0.5  # d step / d log step = step
    assert float(tape.gradient(loss, layer.log_threshold)) == pytest.approx(expected, rel=1e-4)


def test_the_papers_penalty_is_the_mean_size_of_the_deltas_through_the_same_gradient():
    layer = DeltaActivation(rule="paper", initial_threshold=0.5, penalty=3.0)
    x = tf.constant(walk((2, 5, 2, 3)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        layer(x, training=True)
        (loss,) = layer.losses
    levels = np.round(x.numpy() / 0.5)
    deltas = np.diff(levels, axis=1)
    assert float(loss) == pytest.approx(3 * 0.5 * np.abs(deltas).mean(), rel=1e-5)
    of_x, of_threshold = tape.gradient(loss, [x, layer.log_threshold])
    assert float(of_threshold) == pytest.approx(-3 * np.abs(deltas).mean() * 0.5, rel=1e-4)
    through = np.zeros(x.shape)
    through[:, 1:] += np.sign(deltas)
    through[:, :-1] -= np.sign(deltas)
    np.testing.assert_allclose(of_x, 3 * through / deltas.size, rtol=1e-5)


def test_the_spatial_penalty_is_the_mean_absolute_activation():
    layer = DeltaActivation(rule="l1", penalty=3.0)
    x = walk((2, 5, 2, 3)).astype("float32")
    with tf.GradientTape() as tape:
        tensor = tf.Variable(x)
        layer(tensor, training=True)
        (loss,) = layer.losses
    assert float(loss) == pytest.approx(3 * np.abs(x).mean(), rel=1e-5)
    np.testing.assert_allclose(tape.gradient(loss, tensor), 3 * np.sign(x) / x.size, rtol=1e-5)
