"""Every event rule against loops over single numbers."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from keras import ops

from deltafine.layers import GRANULARITIES, RULES
from deltafine.layers.rules.changes import UNROLL_LIMIT
from deltafine.layers.rules.sequence import held_backwards
from tests.layers.one_by_one import held_frame_by_frame

SHAPES = {"layer": (), "channel": (3,), "neuron": (2, 3)}
# Eighths are exact in every float and hit a step exactly, where >= and > differ.
EIGHTHS = st.integers(-24, 24).map(lambda number: number / 8)
STEPS = st.sampled_from([0.25, 0.5, 1.0, 2.0])


def clips(values=EIGHTHS):
    return st.integers(1, 6).flatmap(lambda length: arrays.arrays(np.float32, (2, length, 2, 3), elements=values))


def noise(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32").cumsum(axis=1)


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_rule_equals_a_loop_over_frames(rule, granularity, data):
    x = data.draw(clips())
    shape = data.draw(st.sampled_from(list(SHAPES.values())))
    step = data.draw(arrays.arrays(np.float32, shape, elements=STEPS))
    start = data.draw(st.none() | arrays.arrays(np.float32, (2, 2, 3), elements=EIGHTHS))
    found = RULES[rule].send(
        tf.constant(x), tf.constant(step), granularity, None if start is None else tf.constant(start)
    )
    np.testing.assert_array_equal(found, held_frame_by_frame(x, step, rule, granularity, start))


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_one_frame_is_the_same_in_numpy_and_in_keras(rule, granularity, data):
    values = st.floats(-100, 100, width=32) | EIGHTHS
    x, sent = (data.draw(arrays.arrays(np.float32, (2, 4, 3), elements=values)) for _ in range(2))
    step = np.float32(data.draw(st.floats(0.0078125, 64, width=32)))
    in_numpy = RULES[rule].advance(sent, x, step, granularity, np)
    in_keras = RULES[rule].advance(tf.constant(sent), tf.constant(x), tf.constant(step), granularity, ops)
    np.testing.assert_array_equal(in_keras, in_numpy)
    assert in_numpy.dtype == np.float32


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("rule", RULES)
def test_sending_a_clip_is_sending_its_frames_one_after_the_other(rule, granularity):
    x, step = noise((2, 9, 4, 3)), np.float32(0.7)
    held, sent = [], None
    for frame in range(9):
        fresh = RULES[rule].send(tf.constant(x[:, :1]), tf.constant(step), granularity)[:, 0].numpy()
        sent = fresh if sent is None else RULES[rule].advance(sent, x[:, frame], step, granularity, np)
        held.append(sent)
    np.testing.assert_array_equal(RULES[rule].send(tf.constant(x), tf.constant(step), granularity), np.stack(held, 1))


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("rule", RULES)
def test_long_clips_and_clips_of_unknown_length_give_what_unrolled_ones_give(rule, granularity):
    x, step = noise((2, UNROLL_LIMIT + 5, 4, 3)), 0.7
    start = x[:, 0] + 0.25
    looped = RULES[rule].send(tf.constant(x), step, granularity, tf.constant(start))
    unrolled = RULES[rule].send(tf.constant(x[:, :UNROLL_LIMIT]), step, granularity, tf.constant(start))
    np.testing.assert_array_equal(looped[:, :UNROLL_LIMIT], unrolled)

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3)), tf.TensorSpec((None, None, 3))])
    def of_any_length(x, start):
        return RULES[rule].send(x, step, granularity, start), RULES[rule].send(x, step, granularity)

    started, fresh = of_any_length(x, start)
    np.testing.assert_array_equal(started, looped)
    np.testing.assert_array_equal(started, held_frame_by_frame(x, step, rule, granularity, start))
    np.testing.assert_array_equal(fresh, held_frame_by_frame(x, step, rule, granularity, None))
    one_frame, _ = of_any_length(x[:, :1], start)
    np.testing.assert_array_equal(one_frame, looped[:, :1])


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("rule", RULES)
def test_what_is_held_after_clips_seen_backwards(rule, granularity):
    x, start, step = noise((2, 6, 4, 3)), noise((2, 4, 3)), 0.7
    expected = RULES[rule].send(tf.constant(x[:, ::-1]), step, granularity, tf.constant(start))[:, -1]
    found = held_backwards(RULES[rule], tf.constant(x), step, granularity, tf.constant(start))
    np.testing.assert_array_equal(found, expected)
    unknown = tf.function(
        lambda x: held_backwards(RULES[rule], x, step, granularity, tf.constant(start)),
        input_signature=[tf.TensorSpec((2, None, 4, 3), tf.float32)],
    )
    np.testing.assert_array_equal(unknown(x), expected)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(x=clips(st.floats(-100, 100, width=32)), step=st.floats(0.0078125, 64, width=32))
def test_what_send_on_delta_holds_is_never_a_step_away_from_the_truth(x, step):
    step = np.float32(step)
    held = RULES["send-on-delta"].send(tf.constant(x), tf.constant(step), "element").numpy()
    assert (np.abs(held - x) < step).all()
    by_pixel = RULES["send-on-delta"].send(tf.constant(x), tf.constant(step), "pixel").numpy()
    assert (np.sqrt(np.mean(((by_pixel - x) / step) ** 2, axis=-1)) < 1.000001).all()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(x=clips(st.floats(-100, 100, width=32)), step=st.floats(0.0078125, 64, width=32))
def test_what_quantize_holds_is_at_most_half_a_step_away_from_the_truth(x, step):
    held = RULES["quantize"].send(tf.constant(x), tf.constant(step, tf.float32), "element").numpy()
    assert (np.abs(held.astype("float64") - x) <= step * 0.5 + 1e-4).all()


def test_a_pixel_sends_all_its_channels_or_none():
    x = np.zeros((1, 3, 1, 2, 2), "float32")
    x[0, 1, 0, 0] = [1.5, 0.1]  # root mean square 1.06
    x[0, 1, 0, 1] = [1.3, 0.1]  # 0.92
    held = RULES["send-on-delta"].send(tf.constant(x), 1.0, "pixel").numpy()
    np.testing.assert_array_equal(held[0, 1], [[x[0, 1, 0, 0], [0, 0]]])


def test_quantize_fires_at_a_rounding_boundary_and_send_on_delta_does_not():
    hovering = np.array([0.49, 0.51] * 4, "float32").reshape(1, 8, 1)
    changes = {
        rule: np.count_nonzero(np.diff(RULES[rule].send(tf.constant(hovering), 1.0, "element"), axis=1))
        for rule in ("quantize", "send-on-delta")
    }
    assert changes == {"quantize": 7, "send-on-delta": 0}


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_broken_value_shows_at_once_and_is_gone_when_it_is_gone(rule, granularity, broken):
    x = noise((1, 5, 2, 3))
    x[0, 2, 1, 0] = broken
    held = RULES[rule].send(tf.constant(x), 0.5, granularity).numpy()
    np.testing.assert_array_equal(np.isfinite(held), np.isfinite(x))
