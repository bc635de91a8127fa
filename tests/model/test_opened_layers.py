"""Delta layers inside attention, and inside blocks of the user's own that only call other layers."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from deltafine import DeltaRuntime
from deltafine.exporting.forms import export_plain
from deltafine.model import (
    DeltaSettings,
    coverage,
    delta_layers,
    find_activations,
    insert_deltas,
    select_sites,
)  # fmt: skip
from tests.model.small_models import randomise

FRAME = (8, 8, 3)


@keras.saving.register_keras_serializable("opened")
class Perceptron(layers.Layer):
    """As in KerasHub: what it is made with is not in its configuration."""

    def __init__(self, wide, narrow):
        super().__init__(name="perceptron")
        self.into, self.out = layers.Dense(wide, activation="gelu", name="into"), layers.Dense(narrow, name="out")

    def call(self, x):
        batch, _, channels = ops.shape(x)
        x = ops.reshape(ops.reshape(x, (batch, 4, -1, channels)), (batch, -1, channels))
        return self.out(self.into(x))


@keras.saving.register_keras_serializable("opened")
class Block(layers.Layer):
    def __init__(self, dropout=0.0, kind="plain", **options):
        super().__init__(**options)
        self.dropout, self.kind = dropout, kind
        self.first, self.second = layers.LayerNormalization(name="first"), layers.LayerNormalization(name="second")
        self.attention = layers.MultiHeadAttention(2, 3, dropout=dropout, name="attention")
        self.perceptron = Perceptron(12, 6)

    def build(self, shape):
        self.attention.build(shape, shape)
        self.scale = self.add_weight(shape=(6,), initializer="ones") if self.kind == "own weight" else None
        super().build(shape)

    def call(self, x):
        y = self.first(x)
        x = x + self.attention(y, y)
        if self.kind == "own weight":
            x = x * self.scale
        if self.kind == "asks for numbers" and not isinstance(x, keras.KerasTensor):
            x = x * 2
        return x + self.perceptron(self.second(x))

    def get_config(self):
        return {**super().get_config(), "dropout": self.dropout, "kind": self.kind}


def transformer(dropout=0.0, kind="plain"):
    inputs = keras.Input(FRAME)
    x = layers.Reshape((16, 6))(layers.Conv2D(6, 2, 2, name="patches")(inputs))
    x = Block(dropout, kind, name="block")(x)
    y = layers.LayerNormalization(name="norm")(x)
    x = layers.Add(name="sum")([x, layers.MultiHeadAttention(2, 3, dropout=dropout, name="attention")(y, y)])
    return randomise(keras.Model(inputs, layers.Dense(2, name="head")(layers.GlobalAveragePooling1D()(x))))


def video(frames=6):
    random = np.random.default_rng(0)
    pictures = np.repeat(random.uniform(0, 1, (1, *FRAME)), frames, axis=0)
    pictures[:, :2] = random.uniform(0, 1, (frames, 2, *FRAME[1:]))
    return pictures.astype("float32")


def refined(model, threshold, **choice):
    sites = select_sites(find_activations(model), **choice)
    settings = DeltaSettings(initial_threshold=threshold)
    return insert_deltas(model, sites, settings, clip_output="per-frame")


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_threshold_that_everything_reaches_changes_no_bit(dropout, tmp_path):
    model = transformer(dropout)
    sites = find_activations(model)
    assert coverage(sites) > 0.95
    chosen = {site.name for site in sites if site.selected}
    assert {"attention/key", "attention/value", "block/attention/key", "block/first",
            "block/perceptron/reshape_1", "block/perceptron/into", "norm"} <= chosen  # fmt: skip
    held = refined(model, 1e-9)
    frames = video()
    np.testing.assert_array_equal(held.predict(frames[None], verbose=0)[0], model.predict(frames, verbose=0))
    held = refined(model, 0.1)
    held.save(tmp_path / "held.keras")
    expected = held.predict(frames[None], verbose=0)
    again = keras.models.load_model(tmp_path / "held.keras")
    np.testing.assert_array_equal(again.predict(frames[None], verbose=0), expected)
    assert np.abs(expected[0] - model.predict(frames, verbose=0)).max() > 1e-3


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_inside_thresholds_may_be_of_neurons_and_held_values_are_exported(dropout):
    model, frames = transformer(dropout), video()
    settings = DeltaSettings(initial_threshold=0.1, threshold_per="neuron")
    held = insert_deltas(model, find_activations(model), settings, clip_output="per-frame")
    assert delta_layers(held)["attention/key_delta"].threshold.shape == (16, 2, 3)
    quantized = export_plain(held, "quantized", frames=len(frames))
    np.testing.assert_array_equal(quantized.predict(frames[None], verbose=0), held.predict(frames[None], verbose=0))


def test_stripped_it_is_plain_layers_with_the_same_answers():
    model, frames = transformer(), video()
    plain = export_plain(refined(model, 0.1))
    np.testing.assert_array_equal(plain.predict(frames, verbose=0), model.predict(frames, verbose=0))
    inside = [*plain.get_layer("attention").layers, *plain.get_layer("block").get_layer("perceptron").layers]
    assert {type(layer).__module__.split(".")[0] for layer in inside} == {"keras"}


@pytest.mark.parametrize("engine", ["numpy", "numba"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_the_runtime_computes_all_of_it_with_the_same_answers(dropout, engine):
    model, frames = refined(transformer(dropout), 0.1), video()
    runtime = DeltaRuntime(model, engine=engine)
    assert not runtime.plan.notes()
    answers = [runtime.step(frame) for frame in frames]
    np.testing.assert_allclose(answers, model.predict(frames[None], verbose=0)[0], rtol=0, atol=1e-5)


def test_weights_inside_are_trained_and_thresholds_have_gradients():
    model = refined(transformer(0.5), 0.1)
    for delta in delta_layers(model).values():
        delta.penalty.assign(1.0)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(video()[None], training=True) ** 2) + tf.add_n(model.losses)
    gradients = tape.gradient(loss, model.trainable_variables)
    assert len(gradients) == len(transformer().trainable_variables) + len(delta_layers(model))
    assert all(gradient is not None and np.isfinite(gradient).all() for gradient in gradients)
    assert sum(float(np.abs(gradient).max()) > 0 for gradient in gradients) >= len(gradients) - 2  # biases of keys
    again = [model(video()[None], training=True) for _ in range(2)]
    assert np.abs(again[0] - again[1]).max() > 1e-3  # the weights of attention are dropped out in training


def test_a_layer_stays_whole_where_no_delta_layer_stands_in_it():
    model = transformer()
    held = refined(model, 0.1, skip=["attention/*"])
    assert type(held.get_layer("attention")) is layers.MultiHeadAttention
    assert not any(name.startswith("attention/") for name in delta_layers(held))


@pytest.mark.parametrize("kind", ["own weight", "asks for numbers"])
def test_a_block_whose_graph_does_not_say_all_stays_whole(kind):
    model = transformer(kind=kind)
    sites = find_activations(model)
    assert not any(site.name.startswith("block/") for site in sites)
    frames, held = video(), refined(model, 1e-9)
    np.testing.assert_array_equal(held.predict(frames[None], verbose=0)[0], model.predict(frames, verbose=0))


def test_a_layer_that_is_called_twice_has_one_set_of_delta_layers_or_none():
    for others in (False, True):
        inputs = keras.Input((6, 4))
        attention = layers.MultiHeadAttention(2, 2, name="attention")
        x = attention(inputs, inputs)
        y = attention(x, layers.Cropping1D(2)(x) if others else x)
        model = randomise(keras.Model(inputs, y))
        inside = {site.name for site in find_activations(model) if site.selected and "/" in site.name}
        assert inside == (set() if others else {f"attention/{name}" for name in PARTS})
        frames = np.random.default_rng(0).normal(size=(3, 6, 4)).astype("float32")
        held = refined(model, 1e-9)
        np.testing.assert_array_equal(held.predict(frames[None], verbose=0)[0], model.predict(frames, verbose=0))


PARTS = ("query", "key", "value", "dotproductattention")


def test_the_place_behind_a_layer_keeps_its_name_and_earlier_choices_choose_what_they_did():
    model = transformer()
    sites = find_activations(model)
    for at in ("attention", "block"):
        assert [site.name for site in select_sites(sites, at=[at]) if site.selected] == [at]
    chosen = {site.name for site in select_sites(sites, at=["activations-only", "uncovered"]) if site.selected}
    assert not any("/" in name for name in chosen)


def test_attention_over_masked_values_and_of_values_of_another_size_stays_whole():
    inputs = keras.Input((6, 4))
    masked = layers.Masking()(inputs)
    for y in (layers.MultiHeadAttention(2, 3)(masked, masked), layers.MultiHeadAttention(2, 3, 5)(inputs, inputs)):
        model = randomise(keras.Model(inputs, layers.Dense(2)(y)))
        assert not any("/" in site.name for site in find_activations(model))
