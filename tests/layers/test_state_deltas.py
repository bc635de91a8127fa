"""Recurrent layers whose states are held before they are multiplied."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deltafine.layers.state_deltas import (
    GATED,
    STATE,
    StateDelta,
    recorded_states,
    with_state_deltas,
    without_state_deltas,
)
from tests.layers.recurrent_by_hand import Held, by_hand
from tests.model.small_models import randomise

VECTORS, PICTURES = (7, 5), (5, 6, 7, 2)
KINDS = {
    "SimpleRNN": (lambda **more: layers.SimpleRNN(4, **more), VECTORS),
    "LSTM": (lambda **more: layers.LSTM(4, **more), VECTORS),
    "GRU": (lambda **more: layers.GRU(4, **more), VECTORS),
    "GRU, reset before": (lambda **more: layers.GRU(4, reset_after=False, **more), VECTORS),
    "ConvLSTM1D": (lambda **more: layers.ConvLSTM1D(3, 2, **more), (*PICTURES[:-2], 2)),
    "ConvLSTM2D": (lambda **more: layers.ConvLSTM2D(3, 3, strides=2, padding="same", **more), PICTURES),
}


def both(kind, threshold=1e-9, steps=None, **options):
    """A layer of Keras and its form with states behind delta layers of this threshold, with the same weights."""
    make, shape = KINDS[kind]
    inputs = keras.Input(shape if steps is None else (steps, *shape[1:]))
    plain = make(**options)
    model = randomise(keras.Model(inputs, plain(inputs)))
    deltas = {STATE: StateDelta(initial_threshold=threshold, name="state_delta")}
    if not getattr(plain, "reset_after", True):
        deltas[GATED] = StateDelta(initial_threshold=threshold, name="gated_delta")
    held = with_state_deltas(plain, deltas)
    of_held = keras.Model(inputs, held(inputs))
    for source, target in zip(plain.weights, held.cell.weights, strict=True):
        target.assign(source)
    return model, of_held, plain, held


def clips(shape, seed=0):
    return np.random.default_rng(seed).uniform(-2, 2, (2, *shape)).astype("float32")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"return_sequences": True}, {"go_backwards": True}, {"return_state": True}])
def test_a_threshold_that_everything_reaches_changes_no_bit(kind, options):
    model, held, *_ = both(kind, **options)
    x = clips(KINDS[kind][1])
    for found, expected in zip(
        keras.tree.flatten(held.predict(x, verbose=0)), keras.tree.flatten(model.predict(x, verbose=0)), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "options", [{"implementation": 1}, {"use_bias": False}, {"implementation": 1, "use_bias": False}]
)
@pytest.mark.parametrize("kind", ["GRU", "GRU, reset before", "LSTM"])
def test_other_ways_to_compute_a_step_change_no_more_than_the_last_bits(kind, options):
    model, held, *_ = both(kind, **options)
    x = clips(VECTORS)
    np.testing.assert_allclose(held.predict(x, verbose=0), model.predict(x, verbose=0), rtol=0, atol=3e-7)


@pytest.mark.parametrize("steps", [None, 20])
@pytest.mark.parametrize("kind", KINDS)
def test_states_are_held_before_they_are_multiplied_as_a_loop_by_hand_does(kind, steps):
    _, model, _, layer = both(kind, threshold=0.2, steps=steps, return_sequences=True)
    x = clips(model.input_shape[1:])
    with recorded_states() as found:
        outputs = layer(x)
    state, gated = Held(0.2), Held(0.2)
    expected = by_hand(layer)(layer, x.astype("float64"), state, gated)
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-5)
    for recorded, held in zip(found, (state, gated), strict=False):
        np.testing.assert_allclose(recorded.sent, held.all(), rtol=0, atol=1e-5)
        changed = (recorded.sent[:, 1:] != recorded.sent[:, :-1]).numpy()
        assert 0 < changed.mean() < 0.9
    assert [recorded.delta.name for recorded in found] == [delta.name for delta in layer.state_deltas.values()]


@pytest.mark.parametrize("steps", [5, 20])
@pytest.mark.parametrize("kind", ["LSTM", "GRU, reset before", "ConvLSTM2D"])
def test_events_are_counted_and_charged_for_and_thresholds_have_gradients(kind, steps):
    _, _, _, layer = both(kind, threshold=0.2, steps=steps)
    x = tf.constant(clips((steps, *KINDS[kind][1][1:])))
    deltas = list(layer.state_deltas.values())
    for delta in deltas:
        delta.penalty.assign(2.0)
    with tf.GradientTape() as tape, recorded_states() as found:
        task = tf.reduce_sum(layer(x, training=True) ** 2)
        charged = tf.add_n(layer.losses)
    variables = [*layer.cell.trainable_variables, *(delta.log_threshold for delta in deltas)]
    gradients = tape.gradient([task, charged], [variable.value for variable in variables])
    assert all(float(tf.reduce_max(tf.abs(gradient))) > 0 for gradient in gradients)
    expected = 0.0
    for delta, recorded in zip(deltas, found, strict=True):
        changes = np.abs(np.diff(recorded.true, axis=1))
        expected += 2.0 * np.tanh(changes / 0.2).mean()
        sent = np.asarray(recorded.sent)
        assert float(delta.events.result()) == pytest.approx((sent[:, 1:] != sent[:, :-1]).mean())
    assert float(charged) == pytest.approx(expected, rel=0.02)  # smooth near 0


def test_dropout_takes_away_from_input_and_state_in_training_alone():
    for kind in ("LSTM", "GRU", "GRU, reset before", "SimpleRNN"):
        _, _, _, layer = both(kind, dropout=0.5, recurrent_dropout=0.5)
        x = tf.constant(clips(VECTORS))
        np.testing.assert_array_equal(layer(x), layer(x))
        assert np.abs(layer(x, training=True) - layer(x)).max() > 0.01
    for options in ({"dropout": 0.5}, {"recurrent_dropout": 0.5}):
        plain, held = (
            layer(tf.constant(clips(VECTORS)), training=True)
            for layer in both("GRU", seed=3, bias_initializer="ones", **options)[2:]
        )
        np.testing.assert_allclose(held, plain, rtol=0, atol=1e-6)  # the same seed drops the same


@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_saved_with_their_thresholds_and_go_back_to_plain_ones(kind, tmp_path):
    _, held, plain, layer = both(kind, threshold=0.2)
    layer.state_delta.set_threshold(0.3)
    held.save(tmp_path / "held.keras")
    again = keras.models.load_model(tmp_path / "held.keras")
    x = clips(KINDS[kind][1])
    np.testing.assert_array_equal(again.predict(x, verbose=0), held.predict(x, verbose=0))
    assert float(again.layers[-1].state_delta.threshold) == pytest.approx(0.3)
    stripped = without_state_deltas(again.layers[-1])
    assert type(stripped) is type(plain)
    assert stripped.get_config() == {**plain.get_config(), "name": stripped.name}


def test_masked_steps_are_refused():
    _, _, _, layer = both("LSTM")
    with pytest.raises(ValueError, match="knows no masked steps"):
        layer(clips(VECTORS), mask=np.ones((2, 7), bool))
