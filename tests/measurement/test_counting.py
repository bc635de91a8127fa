"""Counting with NumPy and in the graph: the same integers, which are those of brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from deltafine.layers import DeltaActivation
from deltafine.measurement import counting, graph_counting
from deltafine.measurement.counting import IntoDelta, Questions
from tests.measurement.by_hand import changes

SPACES = [(), (7,), (5, 4), (3, 2, 3)]
CHANNELS = [1, 2, 3, 4, 6, 8, 12, 16, 17, 24, 64, 128, 255, 256, 300, 512, 2048]


def values(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Whole numbers, of which some change from frame to frame; whole frames of -1, 0 and 1 among them."""
    random = np.random.default_rng(seed)
    found = random.integers(-3, 4, shape).astype("float32")
    for time in range(1, shape[1]):
        still = random.random(found[:, time].shape) < random.random()
        found[:, time] = np.where(still, found[:, time - 1], found[:, time])
    quiet = random.random(shape[:2]) < 0.3
    found[quiet] = np.sign(found[quiet])
    return found


def fans_of(time: int, space: tuple[int, ...], channels: int, kinds: list[str], seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    shapes = {
        "same": (1,) * (len(space) + 1),
        "positions": (*space, 1),
        "rows": (*space[:1], *(1 for _ in space[1:]), 1),
        "channels": (*space, channels),
        "steps": (time, *space, 1),
    }
    return [16 * random.integers(1, 50, shapes[kind]) for kind in kinds]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    batch=st.integers(1, 3),
    time=st.integers(1, 4),
    space=st.sampled_from(SPACES),
    channels=st.sampled_from(CHANNELS),
    kinds=st.lists(st.sampled_from(["same", "positions", "rows", "channels", "steps"]), max_size=3),
    goes_on=st.booleans(),
    block=st.sampled_from([1, 40, 1000, 1 << 18]),
    seed=st.integers(0, 99),
)
def test_all_ways_count_what_brute_force_counts(batch, time, space, channels, kinds, goes_on, block, seed):
    value = values((batch, time + 1, *space, channels), seed)
    before, value = value[:, 0], value[:, 1:]
    fans = fans_of(time, space, channels, kinds, seed)
    whole = np.concatenate([before[:, None], value], axis=1)
    changed = changes(whole)[:, 1:] if goes_on else changes(value)
    ternary = np.isin(whole, (-1, 0, 1)).all(axis=tuple(range(2, value.ndim)))
    ternary_before = (
        ternary[:, :-1] if goes_on else np.concatenate([np.zeros((batch, 1), bool), ternary[:, 1:-1]], axis=1)
    )
    over = tuple(range(2, value.ndim))
    expected = [(value != 0).sum(over), changed.sum(over), changed.any(-1).sum(over[:-1])]
    expected += [ternary[:, 1:], ternary[:, 1:] & ternary_before]
    for fan in fans:
        expected += [((value != 0) * fan).sum(over), (changed * fan).sum(over)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "BLOCK", block)
        (found,) = counting.count(Questions(fans), value, before=before if goes_on else None)
        patch.setattr(counting, "why_no_numba", lambda: "it is not wanted here")
        (without_numba,) = counting.count(Questions(fans), value, before=before if goes_on else None)
    start = tf.constant(before) if goes_on else None
    (in_graph,) = graph_counting.count(Questions(fans), tf.constant(value), before=start)
    assert found.dtype == without_numba.dtype == in_graph.dtype == np.int64
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(without_numba, expected)
    np.testing.assert_array_equal(in_graph, expected)


@pytest.mark.parametrize("threshold_per", ["layer", "channel", "neuron"])
@pytest.mark.parametrize("rule", ["send-on-delta", "quantize"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_both_ways_see_the_same_of_a_delta_layer(threshold_per, rule, dtype):
    random = np.random.default_rng(1)
    shape = (2, 300, 9, 16)  # more positions than a byte counts
    step = {"layer": 0.25, "channel": random.uniform(0.1, 1, 16), "neuron": random.uniform(0.1, 1, shape[1:])}[
        threshold_per
    ]
    layer = DeltaActivation(rule, threshold_per=threshold_per, initial_threshold=step)
    layer.build((None, None, *shape[1:]))
    true = random.normal(0, 1, (shape[0], 4, *shape[1:])).astype("float32")
    sent = np.round(true / layer.threshold.numpy()) * layer.threshold.numpy()
    value, into = tf.cast(sent, dtype), IntoDelta(tf.cast(true, dtype), layer.threshold)
    questions = Questions([np.full((1, 1, 1), 3)], layer)
    found = counting.count(questions, value.numpy(), into_delta=IntoDelta(into.true.numpy(), into.threshold.numpy()))
    in_graph = [part.numpy() for part in graph_counting.count(questions, value, into_delta=into)]
    assert len(found) == len(in_graph) == (4 if rule == "quantize" else 3)
    for ours, theirs in zip(found[:2], in_graph[:2], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(found[1], changes(value.numpy()).sum((2, 3)))
    np.testing.assert_allclose(found[2], in_graph[2], rtol=1e-5)
    np.testing.assert_array_equal(found[3:], in_graph[3:])
    if rule == "quantize" and dtype == "float32":
        levels = np.round(true / layer.threshold.numpy())
        assert found[3].tolist() == [levels.min(), levels.max()]


def test_the_sum_of_a_frame_does_not_depend_on_the_frames_beside_it():
    random = np.random.default_rng(2)
    layer = DeltaActivation(initial_threshold=0.3)
    layer.build((None, None, 40, 50, 7))
    sent, true = random.normal(0, 1, (2, 3, 8, 40, 50, 7)).astype("float32")
    questions: Any = Questions([], layer)
    step = layer.threshold.numpy()
    together = counting.count(questions, sent, into_delta=IntoDelta(true, step))[2]
    for clip in range(3):
        for start, end in ((0, 3), (3, 8)):
            part = slice(clip, clip + 1), slice(start, end)
            into = IntoDelta(true[part], step)
            np.testing.assert_array_equal(counting.count(questions, sent[part], into_delta=into)[2], together[part])
