"""Overhead, break-even density, energy and bits."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

from deltafine.document.energy import EnergyTable
from deltafine.measurement import Probe
from deltafine.measurement.bits import bits
from deltafine.measurement.delta_layers import THRESHOLD_FLOOR
from deltafine.measurement.energy import delta_energy, dense_energy
from deltafine.measurement.overhead import break_even_density, overhead_operations
from deltafine.measurement.probe import Place
from deltafine.model import DeltaSettings, find_activations, insert_deltas, select_sites
from deltafine.refinement.thresholds.following import SMALLEST_THRESHOLD
from tests.measurement.by_hand import changes, collect, sparse_video

sizes = st.integers(1, 10**6)


@given(sizes, sizes, st.integers(1, 10**12))
def test_at_the_break_even_density_nothing_is_saved(elements, outputs, macs):
    place = Place("layer", "Conv2D", elements, elements, macs, outputs)
    density = break_even_density(place)
    assert 0 <= density < 1
    left = macs * density + overhead_operations(place, density * elements)
    assert left == pytest.approx(macs) if density else left >= macs


def test_the_overhead_of_a_model_is_that_of_its_layers():
    model = keras.Sequential([keras.Input((6, 5, 2)), layers.Conv2D(4, 3, activation="relu"), layers.Conv2D(3, 2)])
    clip = sparse_video((1, 6, 6, 5, 2))
    collector = collect(insert_deltas(model, []), [clip[:, :4], clip[:, 4:]])
    inside = np.asarray(model.layers[0](clip[0]))
    changed = [changes(x[None]).sum() / 5 for x in (clip[0], inside)]
    by_layer = [3 * 60 + changed[0] + 48, 3 * 48 + changed[1] + 18]
    assert [layer.overhead_operations for layer in collector.layers()] == pytest.approx(by_layer)
    found = collector.operations()
    assert found.overhead_operations == pytest.approx(sum(by_layer))
    assert found.overhead_operations_with_first == pytest.approx((5 * sum(by_layer) + 60 + 48) / 6)
    assert found.density_with_overhead == pytest.approx(
        (found.effective_macs_delta + found.overhead_operations) / found.dense_macs
    )


def test_energy_is_the_counts_times_the_table():
    table = EnergyTable(mac=5, add=1, byte=2, source="made up")
    assert dense_energy(100, 0, 10, table) == pytest.approx(580e-12)
    assert dense_energy(100, 100, 10, table) == pytest.approx(180e-12)
    assert delta_energy(10, 4, 10, 6, 3, table) == pytest.approx((30 + 4 + 80 + 12 + 24) * 1e-12)
    assert "5 pJ per MAC" in table.sentence
    assert "estimate, not a measurement" in table.sentence
    assert "made up" in table.sentence


@pytest.mark.parametrize(
    ("lowest", "highest", "expected"), [(0, 0, 0), (0, 1, 1), (-2, 1, 2), (0, 4, 3), (-128, 127, 8)]
)
def test_bits_hold_every_level(lowest, highest, expected):
    assert bits(lowest, highest) == expected
    assert 2 ** (expected - 1) < highest - lowest + 1 <= 2**expected or expected == 0


def test_bits_of_what_is_not_finite_are_absent():
    assert bits(0, float("nan")) is None


def test_only_rules_that_round_have_bits():
    model = keras.Sequential([keras.Input((4, 4, 1)), layers.Conv2D(1, 1)])
    clip = np.zeros((1, 4, 4, 4, 1), "float32")
    clip[0, 1, 0, 0], clip[0, 3, 2, 1] = 4.9, -2.0
    sites = select_sites(find_activations(model), at=["input"])
    for rule, expected in (("quantize", 4), ("paper", 4), ("send-on-delta", None)):  # levels -4 to 10 of step 0.5
        clip_model = insert_deltas(model, sites, DeltaSettings(rule=rule, initial_threshold=0.5))
        (delta,) = collect(Probe(clip_model), [clip[:, :2], clip[:, 2:]]).deltas()
        assert delta.bits == expected


def test_the_floor_is_the_smallest_step_that_calibration_sets():
    assert THRESHOLD_FLOOR == SMALLEST_THRESHOLD
    model = keras.Sequential([keras.Input((4, 4, 2)), layers.Conv2D(1, 1)])
    clip_model = insert_deltas(
        model, select_sites(find_activations(model), at=["input"]), DeltaSettings(threshold_per="channel")
    )
    clip_model.get_layer("input_delta").set_threshold([SMALLEST_THRESHOLD, 1.0])
    (delta,) = collect(clip_model, [sparse_video((1, 3, 4, 4, 2))]).deltas()
    assert delta.thresholds_at_floor == 0.5
