from __future__ import annotations

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from deltafine.errors import DeltafineError
from deltafine.model import load
from tests.model import small_models


class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(2)

    def call(self, x):
        return self.dense(x)


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".hdf5"])
@pytest.mark.parametrize("name", ["plain", "sequential", "nested"])
def test_a_saved_model_loads_and_predicts_identically(name, suffix, tmp_path):
    model, frames = getattr(small_models, name)(), small_models.clips((2, 12, 10, 3))
    model.save(tmp_path / f"model{suffix}")
    loaded = load(tmp_path / f"model{suffix}")
    np.testing.assert_array_equal(loaded.predict(frames, verbose=0), model.predict(frames, verbose=0))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", ["plain", "nested"])
def test_a_model_that_was_compiled_and_trained_loads_without_its_optimiser(name, suffix, tmp_path):
    model, frames = getattr(small_models, name)(), small_models.clips((2, 12, 10, 3))
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(frames, np.zeros(model.predict(frames, verbose=0).shape), verbose=0)
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            layer.compile("sgd", "mse")
    model.save(tmp_path / f"model{suffix}")
    loaded = load(tmp_path / f"model{suffix}")
    np.testing.assert_array_equal(loaded.predict(frames, verbose=0), model.predict(frames, verbose=0))


def refused(path, match: str, **options) -> None:
    with pytest.raises(DeltafineError, match=match) as caught:
        load(path, **options)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    refused(tmp_path / "none.keras", "There is no model file")


def test_files_that_are_no_keras_model_are_refused(tmp_path):
    (tmp_path / "text.keras").write_text("not a model")
    refused(tmp_path / "text.keras", r"not a readable \.keras file")
    (tmp_path / "text.h5").write_text("not a model")
    refused(tmp_path / "text.h5", "not a readable HDF5 file")
    (tmp_path / "model.pt").write_text("another format")
    refused(tmp_path / "model.pt", r"neither what Keras saves as \.keras, nor as \.h5")
    (tmp_path / "empty.keras").write_bytes(b"")
    refused(tmp_path / "empty.keras", r"not a readable \.keras file")
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["numbers"] = [1, 2, 3]
    refused(tmp_path / "data.h5", "holds no Keras model")


def test_a_cut_file_is_refused(tmp_path):
    small_models.plain().save(tmp_path / "model.keras")
    content = (tmp_path / "model.keras").read_bytes()
    (tmp_path / "model.keras").write_bytes(content[: len(content) // 2])
    refused(tmp_path / "model.keras", r"not a readable \.keras file")


NAMES = [(".h5", "mask.model"), (".h5", "mask.keras"), (".h5", "MASK.H5"), (".keras", "mask.model"), (".keras", "mask")]


@pytest.mark.parametrize(("saved", "called"), [*NAMES, (".keras", "mask.h5")])
def test_a_model_is_known_by_its_contents_whatever_it_is_called(saved, called, tmp_path):
    model, frames = small_models.plain(), small_models.clips((2, 12, 10, 3))
    model.save(tmp_path / f"model{saved}")
    path = (tmp_path / f"model{saved}").rename(tmp_path / called)
    np.testing.assert_array_equal(load(path).predict(frames, verbose=0), model.predict(frames, verbose=0))


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "mask.model"])
def test_a_pointer_of_git_lfs_is_named_as_such(name, tmp_path):
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n")
    refused(tmp_path / name, "Git LFS pointer.*git lfs pull")


def test_weights_alone_are_refused(tmp_path):
    small_models.plain().save_weights(tmp_path / "model.weights.h5")
    refused(tmp_path / "model.weights.h5", r"weights only.*load_weights")
    (tmp_path / "model.weights.h5").rename(tmp_path / "model.h5")
    refused(tmp_path / "model.h5", "weights only")


def test_a_saved_model_directory_is_refused(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path / "saved"))
    refused(tmp_path / "saved", r"SavedModel directory.*model\.save\('model\.keras'\)")


def test_a_subclassed_model_is_refused(tmp_path):
    model = Subclassed()
    model(np.zeros((1, 3)))
    model.save(tmp_path / "model.keras")
    refused(tmp_path / "model.keras", "subclassed.*functional API", custom_objects={"Subclassed": Subclassed})


def test_an_unbuilt_sequential_model_is_refused(tmp_path):
    model = keras.Sequential([keras.layers.Dense(2)])
    model.save(tmp_path / "model.keras")
    refused(tmp_path / "model.keras", "not built.*model.build")


def with_lambda(nested: bool = False):
    """A model with code in it, which says nothing of its shape; the Lambda in a nested model if asked for."""
    inputs = keras.Input((4,))
    outputs = keras.layers.Lambda(lambda x: x * 2, output_shape=lambda shape: shape, name="lambda_1")(inputs)
    if not nested:
        return keras.Model(inputs, outputs)
    inner, outer = keras.Model(inputs, outputs, name="inner"), keras.Input((4,))
    return keras.Model(outer, inner(outer))


def threefold(x):
    return 3 * x


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_lambda_layer_is_refused_unless_allowed(suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    with_lambda().save(path)
    refused(
        path, "'lambda_1'.*Python code stored in the file.*--custom-objects lambda_1=module:function.*--unsafe-lambda"
    )
    np.testing.assert_array_equal(load(path, unsafe_lambda=True)(np.ones((1, 4))), 2 * np.ones((1, 4)))


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_function_given_for_a_lambda_layer_takes_the_place_of_the_code(suffix, nested, tmp_path):
    path = tmp_path / f"model{suffix}"
    with_lambda(nested).save(path)
    loaded = load(path, custom_objects={"lambda_1": threefold})
    np.testing.assert_array_equal(loaded(np.ones((1, 4))), 3 * np.ones((1, 4)))
    loaded.save(tmp_path / "again.keras")
    again = load(tmp_path / "again.keras", custom_objects={"lambda_1": threefold})
    np.testing.assert_array_equal(again(np.ones((1, 4))), 3 * np.ones((1, 4)))


def test_weights_of_a_model_with_a_given_function_are_its_own(tmp_path):
    inputs = keras.Input((4,))
    x = keras.layers.Lambda(lambda x: x * 3, name="lambda_1")(keras.layers.Dense(3)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    model.save(tmp_path / "model.keras")
    loaded = load(tmp_path / "model.keras", custom_objects={"lambda_1": threefold})
    np.testing.assert_array_equal(loaded(np.ones((1, 4))), model(np.ones((1, 4))))


def test_a_custom_layer_is_refused_unless_named(tmp_path):
    class Doubling(keras.layers.Layer):
        def call(self, x):
            return 2 * x

    inputs = keras.Input((4,))
    model = keras.Model(inputs, Doubling()(inputs))
    model.save(tmp_path / "model.keras")
    refused(tmp_path / "model.keras", "--custom-objects")
    assert load(tmp_path / "model.keras", custom_objects={"Doubling": Doubling}).output_shape == (None, 4)


@keras.saving.register_keras_serializable("deltafine_tests")
class Shapeless(keras.layers.Layer):
    """Says of no input what shape it gives."""

    def compute_output_spec(self, *_: object, **__: object) -> None:
        raise NotImplementedError

    def call(self, x):
        return x


def test_a_sequential_model_without_a_graph_is_refused(tmp_path):
    model = keras.Sequential([keras.layers.Conv2D(2, 3), Shapeless(), keras.layers.Flatten()])
    model.build((None, 8, 8, 3))
    model(np.zeros((1, 8, 8, 3)))
    model.save(tmp_path / "model.keras")
    refused(tmp_path / "model.keras", "no layer graph.*compute_output_shape")


FREEZING = {"last thawed": [False, False, True], "middle thawed": [False, True, False], "last two": [False, True, True]}


@pytest.mark.parametrize("norms", [False, True])
@pytest.mark.parametrize("freezing", FREEZING)
def test_a_frozen_and_partly_thawed_sequential_part_keeps_its_weights_in_hdf5(freezing, norms, tmp_path):
    convolutions = [keras.layers.Conv2D(3, 1, activation="relu") for _ in range(3)]
    inside = [layer for one in convolutions for layer in ([one, keras.layers.BatchNormalization()] if norms else [one])]
    base = keras.Sequential([keras.Input((4, 4, 3)), *inside], name="base")
    model = small_models.randomise(keras.Sequential([keras.Input((4, 4, 3)), base, keras.layers.Flatten()]))
    base.trainable = False
    for layer, trainable in zip(convolutions, FREEZING[freezing], strict=True):
        layer.trainable = trainable
    model.save(tmp_path / "model.h5")
    frames = small_models.clips((2, 4, 4, 3), high=1.0)
    np.testing.assert_array_equal(load(tmp_path / "model.h5")(frames), model(frames))


@keras.saving.register_keras_serializable("deltafine_tests")
class MadeByItself(keras.Model):
    """A functional model of which the file says nothing but how many layers it has."""

    def __init__(self, depth: int, **kwargs: object) -> None:
        value = inputs = keras.Input((4, 4, 3))
        for number in range(depth):
            value = keras.layers.Conv2D(3, 1, activation="relu", name=f"conv{number}")(value)
        super().__init__(inputs, value, **kwargs)
        self.depth = depth

    def get_config(self):
        return {"name": self.name, "depth": self.depth}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config)


def test_a_part_that_makes_its_own_layers_keeps_its_weights_in_hdf5(tmp_path):
    base, inputs = MadeByItself(3, name="base"), keras.Input((4, 4, 3))
    model = small_models.randomise(keras.Model(inputs, keras.layers.Flatten()(base(inputs))))
    base.get_layer("conv0").trainable = False
    model.save(tmp_path / "model.h5")
    frames = small_models.clips((2, 4, 4, 3), high=1.0)
    np.testing.assert_array_equal(load(tmp_path / "model.h5")(frames), model(frames))
