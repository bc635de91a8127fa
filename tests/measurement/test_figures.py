"""Figures from counts: totals, densities, percentiles, staleness, state; and what they do not depend on."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from deltafine.measurement import Probe
from deltafine.measurement.effective_macs import EffectiveMacs
from deltafine.measurement.state import state_bytes
from deltafine.model import DeltaSettings, find_activations, insert_deltas, select_sites
from tests.measurement.by_hand import changes, collect, macs_that_meet, sparse_video, whole_numbers

VIDEOS = [
    np.random.default_rng(seed).normal(0, 0.3, (1, 12, 10, 8, 3)).cumsum(1).astype("float32") for seed in range(4)
]


def two_convolutions():
    model = keras.Sequential(
        [
            keras.Input((10, 8, 3)),
            layers.Conv2D(8, 3, padding="same", activation="relu", name="first"),
            layers.Conv2D(16, 3, strides=2, activation="relu", name="second"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5, name="head"),
        ]
    )
    keras.utils.set_random_seed(0)
    for weight in model.weights:
        weight.assign(np.random.default_rng(2).normal(0, 0.3, weight.shape))
    return model


@pytest.fixture(scope="module")
def clip_model():
    model = two_convolutions()
    return insert_deltas(
        model, select_sites(find_activations(model)), DeltaSettings(initial_threshold=0.3, threshold_per="channel")
    )


@pytest.fixture(scope="module")
def probe(clip_model):
    return Probe(clip_model)


def figures(collector):
    """Everything that was measured."""
    deltas = [delta.model_dump() for delta in collector.deltas()]
    return collector.operations().model_dump(), [layer.model_dump() for layer in collector.layers()], deltas


@pytest.fixture(scope="module")
def in_one_piece(probe):
    collector = collect(probe, *[[video] for video in VIDEOS])
    assert 0.05 < collector.operations().mac_density < 0.95
    return figures(collector)


def assert_same(found, expected):
    """Equal but for last bits, which some processors compute differently for other sizes of a batch."""
    for one, other in zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True):
        assert one == (pytest.approx(other, rel=1e-6) if isinstance(other, float) else other)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(cuts=st.lists(st.sets(st.integers(1, 11), max_size=6), min_size=4, max_size=4))
def test_figures_do_not_depend_on_how_streams_are_cut(probe, in_one_piece, cuts):
    collector = collect(
        probe,
        *[np.split(video, sorted(ends), axis=1) for video, ends in zip(VIDEOS, cuts, strict=True)],
    )
    assert_same(figures(collector), in_one_piece)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(order=st.permutations(range(4)), sizes=st.sampled_from([[4], [1, 3], [2, 2], [2, 1, 1]]))
def test_figures_do_not_depend_on_the_batch_size_or_the_order_of_clips(probe, in_one_piece, order, sizes):
    shuffled = np.concatenate([VIDEOS[index] for index in order])
    batches = np.split(shuffled, np.cumsum(sizes)[:-1])
    collector = collect(probe, *[[batch] for batch in batches])
    assert_same(figures(collector), in_one_piece)


def test_the_same_picture_over_and_over_costs_nothing(probe):
    still = np.repeat(VIDEOS[0][:, :1], 7, axis=1)
    for pieces in ([still], np.split(still, [1, 3, 4], axis=1)):
        operations = collect(probe, pieces).operations()
        assert operations.mac_density == operations.frame_macs_worst == operations.pixel_density == 0
        assert operations.delta_sparsity == 1
        assert operations.effective_macs_delta_with_first == operations.dense_macs / 7


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), lengths=st.lists(st.integers(1, 4), min_size=2, max_size=3), change=st.floats(0, 1))
def test_totals_equal_sums_by_hand(small_probe, seed, lengths, change):
    """Over streams of different lengths, of one frame too."""
    from deltafine.measurement.collector import Collector

    lengths = [*lengths, 2]
    model, probe = small_probe
    collector = Collector(probe)
    dense, delta, spatial, spatial_steady = np.zeros((4, 2), np.int64)
    nonzero, changed, positions, elements = np.zeros((4, 2), np.int64)
    per_frame = []
    for number, length in enumerate(lengths):
        clips = sparse_video((1, length, 5, 4, 2), seed + number, change)
        collector.update(probe.run(clips))
        inputs = [clips[0], np.asarray(model.layers[0](clips[0]))]
        of_frames = np.zeros(length, np.int64)
        for index, (layer, x) in enumerate(zip(model.layers[:2], inputs, strict=True)):
            mask = changes(x[None])[0]
            of_layer = macs_that_meet(layer, mask)
            of_frames += of_layer
            delta[index] += of_layer.sum()
            met = macs_that_meet(layer, x != 0)
            spatial[index] += met.sum()
            spatial_steady[index] += met[1:].sum()
            nonzero[index] += np.count_nonzero(x)
            changed[index] += mask.sum()
            positions[index] += mask.any(-1).sum()
            elements[index] = x[0].size
            dense[index] = macs_that_meet(layer, np.ones((1, *x.shape[1:])))[0]
        per_frame += of_frames[1:].tolist()
    frames, steady = sum(lengths), sum(lengths) - len(lengths)
    found = collector.operations()
    assert collector.metric(EffectiveMacs).frames == frames
    assert found.dense_macs == dense.sum()
    assert found.effective_macs_delta == delta.sum() / steady
    assert found.effective_macs_delta_with_first == (delta.sum() + len(lengths) * dense.sum()) / frames
    assert found.effective_macs_spatial == spatial_steady.sum() / steady
    assert found.effective_macs_spatial_with_first == spatial.sum() / frames
    assert found.mac_density == delta.sum() / steady / dense.sum()
    assert found.mac_density_with_first == (delta.sum() + len(lengths) * dense.sum()) / frames / dense.sum()
    assert found.activation_sparsity == 1 - nonzero.sum() / (elements.sum() * frames)
    assert found.delta_sparsity == 1 - changed.sum() / (elements.sum() * steady)
    pixel = positions / (np.array([20, 12]) * steady)
    assert found.pixel_density == pytest.approx((pixel * dense).sum() / dense.sum())
    ranked = sorted(per_frame)
    at = 0.95 * (len(ranked) - 1)
    low, high = ranked[int(at)], ranked[min(int(at) + 1, len(ranked) - 1)]
    assert found.frame_macs_p95 == pytest.approx(low + (at - int(at)) * (high - low))
    assert found.frame_macs_p50 == np.median(per_frame)
    assert found.frame_macs_worst == max(per_frame)
    for index, layer in enumerate(collector.layers()):
        assert layer.dense_macs == dense[index]
        assert layer.effective_macs_delta == delta[index] / steady
        assert layer.effective_macs_spatial == spatial[index] / frames
        assert layer.mac_density == delta[index] / steady / dense[index]
        assert layer.activation_density == nonzero[index] / (elements[index] * frames)
        assert layer.delta_density == changed[index] / (elements[index] * steady)
        assert layer.pixel_density == pixel[index]


@pytest.fixture(scope="module")
def small_probe():
    model = keras.Sequential(
        [keras.Input((5, 4, 2)), layers.Conv2D(3, (2, 2), name="a"), layers.Conv2D(2, 3, padding="same", name="b"),
         layers.Flatten()]
    )  # fmt: skip
    whole_numbers(model)
    return model, Probe(insert_deltas(model, []))


def test_staleness_channels_and_steps_of_a_delta_layer():
    model = keras.Sequential([keras.Input((1, 2, 3)), layers.Conv2D(1, 1)])
    sites = select_sites(find_activations(model), at=["input"])
    clip_model = insert_deltas(model, sites, DeltaSettings(threshold_per="channel"))
    clip_model.get_layer("input_delta").set_threshold([1.0, 2.0, 4.0])
    clip = np.zeros((1, 5, 1, 2, 3), "float32")
    clip[0, :, :, :, 0] = np.arange(5)[:, None, None]  # moves by its step each frame
    clip[0, :, :, :, 1] = 0.5 * np.arange(5)[:, None, None]  # by a quarter: once in four frames
    clip[0, :, :, :, 2] = 3 * (np.arange(5)[:, None, None] % 2)  # to and fro, by less than its step
    (delta,) = collect(clip_model, [clip[:, :2], clip[:, 2:]]).deltas()
    assert (delta.threshold_minimum, delta.threshold_median, delta.threshold_maximum) == pytest.approx((1, 2, 4))
    assert (delta.rule, delta.granularity, delta.elements, delta.state_bytes) == ("send-on-delta", "element", 6, 24)
    assert delta.silent_channels == delta.saturated_channels == 1 / 3
    assert delta.delta_density == (4 + 1) / (3 * 4)
    assert delta.pixel_density == 1
    assert delta.staleness == pytest.approx((0 + (0 + 0.25 + 0.5 + 0.75 + 0) + 2 * 0.75) / (3 * 5))


def test_state_is_what_deltas_sent_last_and_the_sums_of_layers(probe):
    sums = 10 * 8 * 8 + 4 * 3 * 16 + 5
    sent = 10 * 8 * 3 + 10 * 8 * 8 + 4 * 3 * 16
    assert state_bytes(probe) == 4 * (sums + sent)
    separable = keras.Sequential([keras.Input((10, 8, 3)), layers.SeparableConv2D(4, 3)])
    assert state_bytes(Probe(insert_deltas(separable, []))) == 4 * 8 * 6 * 4
