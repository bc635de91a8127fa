"""Models that can, or cannot, be rewritten: quantised ones, ones with state, and ones with layers of the user's own."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

from deltafine.errors import DeltafineError
from deltafine.exporting.forms import export_plain
from deltafine.model import DeltaSettings, find_activations, insert_deltas, load
from tests.model import small_models
from tests.model.comparing import assert_frames_identical, assert_identical_also_when_reloaded

SHAPE = (12, 10, 3)


@keras.saving.register_keras_serializable("deltafine_tests")
class Derived(layers.Layer):
    """Gives in its configuration a value that it makes from another, and does not take it back."""

    def __init__(self, factor: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.factor, self.squared = factor, factor**2
        self.dense = layers.Dense(4, name="dense")

    def build(self, shape: tuple[int, ...]) -> None:
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x) * self.squared

    def compute_output_shape(self, shape):
        return (*shape[:-1], 4)

    def get_config(self):
        return {**super().get_config(), "factor": self.factor, "squared": self.squared}


@keras.saving.register_keras_serializable("deltafine_tests")
class Speechless(Derived):
    """Cannot say its configuration once it is built."""

    def get_config(self):
        if self.built:
            raise AttributeError("no attribute 'key_dim'")
        return super().get_config()


@keras.saving.register_keras_serializable("deltafine_tests")
class WithEmptyBatch(layers.Layer):
    """What it was asked for, and scores that it was not asked for, of a batch of none."""

    def call(self, x):
        return 2 * x, ops.zeros((0, 3))


def around(layer: layers.Layer) -> keras.Model:
    """A per-frame model with this layer in the middle."""
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(3, 3, activation="relu", name="first")(inputs)
    x = layers.Conv2D(2, 3, name="last")(layer(x))
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x), name="around")


@keras.saving.register_keras_serializable("deltafine_tests")
class Backbone(keras.Model):
    """Says of itself what it was made with and not which layers it has, as the models of KerasHub do."""

    def __init__(self, factor: int, squared: int, **kwargs: object) -> None:
        layer = Derived(factor, name="odd")
        layer.squared = squared
        model = around(layer)
        super().__init__(model.inputs, model.outputs, **kwargs)
        self.factor, self.squared = factor, squared

    def get_config(self):
        return {"name": self.name, "factor": self.factor, "squared": self.squared}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config)


def quantised(mode: str = "int8") -> keras.Model:
    model = small_models.nested()
    model.quantize(mode)
    return model


def keeping_state(layer: layers.Layer) -> keras.Model:
    inputs = keras.Input(batch_shape=(1, 4, 6))
    return keras.Model(inputs, layers.Dense(2)(layer(inputs)))


def refused(model: keras.Model, match: str) -> None:
    """By the search for sites and by the insertion alike."""
    with pytest.raises(DeltafineError, match=match) as found:
        find_activations(model)
    with pytest.raises(DeltafineError) as inserted:
        insert_deltas(model, [])
    assert str(found.value) == str(inserted.value)


@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
def test_a_quantised_model_is_refused(mode):
    refused(quantised(mode), rf"Layer 'head'.*quantised \({mode}\).*before model\.quantize")


@pytest.mark.parametrize(
    "layer",
    [
        layers.LSTM(3, stateful=True, name="kept"),
        layers.GRU(3, stateful=True, name="kept"),
        layers.Bidirectional(layers.SimpleRNN(3, stateful=True), name="kept"),
        layers.RNN(layers.LSTMCell(3), stateful=True, name="kept"),
    ],
    ids=["LSTM", "GRU", "Bidirectional", "RNN"],
)
def test_a_recurrent_layer_that_keeps_its_state_is_refused(layer):
    refused(keeping_state(layer), r"Layer 'kept'.*keeps its state from one call to the next.*stateful=False")


def test_a_layer_that_keeps_its_state_is_found_inside_others():
    inner = keras.Sequential([keras.Input(batch_shape=(1, 4, 6)), layers.LSTM(3, stateful=True, name="kept")])
    refused(keeping_state(inner), r"Layer 'kept'.*keeps its state")


def test_a_layer_with_derived_values_in_its_configuration_is_copied(tmp_path):
    small_models.randomise(Backbone(3, 9)).save(tmp_path / "model.keras")
    model = load(tmp_path / "model.keras")
    clip_model = assert_identical_also_when_reloaded(model, small_models.clips(), tmp_path)
    plain = export_plain(clip_model)
    plain.save(tmp_path / "plain.keras")
    frames = small_models.clips()[0]
    for exported in (plain, export_plain(load(tmp_path / "clips.keras")), load(tmp_path / "plain.keras")):
        np.testing.assert_array_equal(exported(frames), model(frames))


def test_a_layer_that_does_not_make_a_value_of_its_configuration_again_is_refused():
    with pytest.raises(DeltafineError, match=r"'odd' of type Derived.*what get_config\(\) gives as squared"):
        insert_deltas(Backbone(3, 10), [])


def test_a_layer_that_cannot_say_its_configuration_is_refused():
    with pytest.raises(DeltafineError, match=r"'odd' of type Speechless.*get_config\(\) fails with AttributeError: no"):
        insert_deltas(around(Speechless(3, name="odd")), [])


def test_an_output_of_no_batch_that_nothing_reads_does_not_matter():
    inputs = keras.Input(SHAPE)
    x, _ = WithEmptyBatch()(layers.Conv2D(3, 3, activation="relu")(inputs))
    model = small_models.randomise(keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x))))
    clip_model = insert_deltas(
        model, find_activations(model), DeltaSettings(rule="identity"), clip_output="per-frame", frames=3
    )
    assert_frames_identical(model, clip_model, small_models.clips())


def test_an_output_of_no_batch_that_is_read_is_refused():
    inputs = keras.Input(SHAPE)
    _, scores = WithEmptyBatch(name="scores")(layers.Conv2D(3, 3, activation="relu")(inputs))
    with pytest.raises(DeltafineError, match=r"'scores'.*across the batch axis"):
        find_activations(keras.Model(inputs, layers.Dense(2)(scores)))
