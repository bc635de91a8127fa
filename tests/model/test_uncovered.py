"""Dense MACs of layers that the fan-out rules do not cover, against TensorFlow's profiler where it can count."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout

import keras
import pytest
import tensorflow as tf
from keras import layers, ops

from deltafine.model import mac_layers


def profiled_macs(model) -> int:
    """Half the floating-point operations of matrix products in one call on one sample."""
    specs = [tf.TensorSpec((1, *tensor.shape[1:]), tensor.dtype) for tensor in model.inputs]
    function = tf.function(lambda *inputs: model(list(inputs) if len(inputs) > 1 else inputs[0], training=False))
    graph = function.get_concrete_function(*specs).graph
    options = tf.compat.v1.profiler.ProfileOptionBuilder(tf.compat.v1.profiler.ProfileOptionBuilder.float_operation())
    options = options.with_empty_output().build()
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        profile = tf.compat.v1.profiler.profile(graph, options=options)
    found, waiting = 0, [profile]
    while waiting:
        node = waiting.pop()
        waiting.extend(node.children)
        if any(word in node.name.lower() for word in ("einsum", "matmul", "dot")):
            found += node.float_ops
    return found // 2


def counted(model) -> int:
    entries = [entry for entry in mac_layers(model) if not entry.covered]
    assert entries
    return sum(entry.dense_macs for entry in entries)


@pytest.mark.parametrize("value_size", [None, 6])
def test_attention(value_size):
    inputs, memory = keras.Input((7, 10)), keras.Input((5, 12))
    attention = layers.MultiHeadAttention(3, 4, value_dim=value_size, flash_attention=False)
    model = keras.Model([inputs, memory], attention(inputs, memory))
    queries, keys, size = 7 * 10 * 12, 5 * 12 * 12, value_size or 4
    products = 3 * 7 * 5 * (4 + size)
    assert counted(model) == queries + keys + 5 * 12 * 3 * size + 7 * 3 * size * 10 + products
    assert [entry.reason for entry in mac_layers(model)] == ["attention"]


@pytest.mark.parametrize(("layer", "gates"), [(layers.LSTM, 4), (layers.GRU, 3), (layers.SimpleRNN, 1)])
def test_recurrent_layers(layer, gates):
    inputs = keras.Input((6, 5))
    assert counted(keras.Model(inputs, layer(8)(inputs))) == 6 * gates * 8 * (5 + 8)
    assert counted(keras.Model(inputs, layers.Bidirectional(layer(8))(inputs))) == 2 * 6 * gates * 8 * (5 + 8)


def test_products_of_two_tensors():
    one, two = keras.Input((4, 6)), keras.Input((6, 5))
    model = keras.Model([one, two], ops.matmul(one, two))
    assert counted(model) == 4 * 6 * 5 == profiled_macs(model)


def test_layers_of_the_users_own_with_weights_are_listed_as_unknown():
    class Projection(layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], 3), name="kernel")

        def call(self, x):
            return ops.matmul(x, self.kernel)

    inputs = keras.Input((6,))
    (entry,) = mac_layers(keras.Model(inputs, Projection(name="own")(inputs)))
    assert (entry.path, entry.covered, entry.dense_macs) == ("own", False, None)
    assert "no rule says how" in entry.reason


def test_normalisation_and_lookups_do_no_macs():
    tokens = keras.Input((6,), dtype="int32")
    x = layers.LayerNormalization()(layers.Embedding(10, 4)(tokens))
    assert mac_layers(keras.Model(tokens, layers.PReLU()(layers.BatchNormalization()(x)))) == []


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv1D(4, 3, strides=2, padding="same"),
        layers.SeparableConv1D(4, 3),
        layers.EinsumDense("abc,cd->abd", (None, 5)),
    ],
)
def test_covered_layers_are_not_listed_as_uncovered(layer):
    inputs = keras.Input((9, 4))
    assert all(entry.covered for entry in mac_layers(keras.Model(inputs, layer(inputs))))
