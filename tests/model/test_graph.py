from __future__ import annotations

import keras
import numpy as np
from keras import layers

from deltafine.model import graph
from tests.model import small_models


def names_of(model) -> list[str]:
    names: list[str] = []

    def on_call(name, node, args, kwargs):
        names.append(name)
        return node.operation(*args, **kwargs)

    inputs = [keras.Input(batch_shape=tensor.shape) for tensor in graph.input_tensors(model)]
    graph.walk(model, inputs, on_call)
    return names


def test_walk_visits_every_call_in_the_order_of_computation():
    assert names_of(small_models.plain()) == ["scale", "conv1", "norm1", "relu1", "pool", "conv2", "gap", "head"]


def test_a_layer_called_again_gets_a_number():
    names = names_of(small_models.shared_layer())
    assert [name for name in names if name.startswith(("relu", "conv"))] == [
        "relu", "conv", "relu#1", "conv#1", "relu#2",
    ]  # fmt: skip


def test_call_names_survive_saving_and_loading(tmp_path):
    model = small_models.shared_layer()
    model.save(tmp_path / "model.keras")
    assert names_of(keras.models.load_model(tmp_path / "model.keras")) == names_of(model)


def test_a_nested_model_is_one_call_and_sequential_models_are_walked():
    model = small_models.nested()
    assert "backbone" in names_of(model)
    assert names_of(model.get_layer("backbone")) == ["stem", "conv"]
    assert names_of(small_models.sequential())[0] == "conv1"


def test_calls_of_the_same_layers_in_another_model_do_not_count():
    inputs = keras.Input((4,))
    dense = layers.Dense(4, name="dense")
    hidden = dense(inputs)
    keras.Model(inputs, dense(hidden))
    assert names_of(keras.Model(inputs, layers.ReLU(name="relu")(hidden))) == ["dense", "relu"]


def test_run_computes_what_the_model_computes_and_shows_nested_calls():
    model, frames = small_models.nested(), small_models.clips((2, 12, 10, 3))
    seen = {}
    outputs = graph.run(model, [frames], lambda path, operation, args, kwargs, outputs: seen.update({path: outputs}))
    np.testing.assert_array_equal(outputs[0], model(frames))
    assert {"backbone/stem/conv", "backbone/stem/relu", "backbone/conv", "head"} <= set(seen)
    np.testing.assert_array_equal(seen["head"], outputs[0])


def test_run_computes_operations_and_unused_inputs():
    first, second = keras.Input((4,), name="first"), keras.Input((4,), name="second")
    model = keras.Model([first, second], keras.ops.relu(first * 2.0))
    values = np.array([[-1.0, 0, 1, 2]], "float32")
    outputs = graph.run(model, [values, values], lambda *_: None)
    np.testing.assert_array_equal(outputs[0], [[0, 0, 2, 4]])
