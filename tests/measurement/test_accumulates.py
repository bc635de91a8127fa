"""MACs and ACs: operations that need no multiplication, against brute force."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from deltafine.measurement import Probe
from deltafine.model import insert_deltas
from tests.measurement.by_hand import changes, collect, macs_that_meet, whole_numbers


@pytest.fixture(scope="module")
def network():
    model = whole_numbers(
        keras.Sequential([keras.Input((9, 7, 2)), layers.Conv2D(3, 3, padding="same"), layers.DepthwiseConv2D(2)])
    )
    return model, Probe(insert_deltas(model, []))


def frames_of(kinds: list[int], seed: int) -> np.ndarray:
    """One clip; a frame of kind 0 holds -1, 0 and 1, one of kind 1 a single 2 as well, one of kind 2 is black."""
    generator = np.random.default_rng(seed)
    clip = generator.integers(-1, 2, (1, len(kinds), 9, 7, 2)).astype("float32")
    for frame, kind in enumerate(kinds):
        if kind == 1:
            clip[0, frame, generator.integers(9), generator.integers(7), generator.integers(2)] = 2
        elif kind == 2:
            clip[0, frame] = 0
    return clip


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=2, max_size=6), st.integers(0, 5), st.integers(0, 5))
def test_accumulates_equal_brute_force_in_one_piece_and_in_two(network, kinds, seed, cut):
    model, probe = network
    clip = frames_of(kinds, seed)
    delta, first, spatial, spatial_steady = 0, 0, 0, 0
    for layer, x in zip(model.layers, [clip[0], np.asarray(model.layers[0](clip[0]))], strict=True):
        ternary = np.isin(x, (-1, 0, 1)).all(axis=(1, 2, 3))
        met = macs_that_meet(layer, x != 0) * ternary
        spatial, spatial_steady = spatial + met.sum(), spatial_steady + met[1:].sum()
        delta += (macs_that_meet(layer, changes(x[None])[0])[1:] * (ternary[1:] & ternary[:-1])).sum()
        first += ternary[0] * macs_that_meet(layer, np.ones((1, *x.shape[1:])))[0]
    cut = min(cut, len(kinds) - 1)
    for pieces in ([clip], [clip[:, :cut], clip[:, cut:]] if cut else [clip]):
        found = collect(probe, pieces).operations()
        assert found.accumulates_delta == delta / (len(kinds) - 1)
        assert found.accumulates_delta_with_first == (delta + first) / len(kinds)
        assert found.accumulates_spatial == spatial_steady / (len(kinds) - 1)
        assert found.accumulates_spatial_with_first == spatial / len(kinds)


def test_infinite_values_are_not_ternary(network):
    clip = np.zeros((1, 3, 9, 7, 2), "float32")
    clip[0, 1, 4, 4] = np.inf
    counts = network[1].run(clip).counts[0]
    assert counts.ternary.tolist() == [[True, False, True]]
    assert counts.ternary_twice.tolist() == [[False, False, False]]
