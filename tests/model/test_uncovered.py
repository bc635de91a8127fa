"""Dense MACs of attention, recurrent and composite layers, against TensorFlow's profiler where it can count."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout

import keras
import numpy as np
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
    entries = mac_layers(model)
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
    assert [entry.covered for entry in mac_layers(model)] == [True]


class Block(layers.Layer):
    """As libraries write them: layers inside a layer, called one after the other, weights of its own beside them."""

    def __init__(self, **options):
        super().__init__(**options)
        self.attention = layers.MultiHeadAttention(2, 4, dropout=0.5)
        self.norm = layers.LayerNormalization()
        self.first, self.second = layers.Dense(12, activation="gelu"), layers.Dense(8)

    def build(self, shape):
        self.attention.build(shape, shape)
        self.norm.build(shape)
        self.first.build(shape)
        self.second.build((*shape[:-1], 12))
        self.mixing = self.add_weight(shape=(8, 8), name="mixing")

    def call(self, x):
        x = x + self.attention(x, x)
        x = x + self.second(self.first(self.norm(x)))
        return ops.matmul(x, self.mixing)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.GroupQueryAttention(4, 4, 2, dropout=0.5),
        lambda: layers.MultiHeadAttention(2, 4, use_bias=False, dropout=0.5),
        lambda: layers.Attention(),
        lambda: layers.Attention(score_mode="concat"),
        lambda: layers.AdditiveAttention(),
    ],
)
def test_attention_of_every_kind_equals_the_profiler(layer):
    one, two = keras.Input((7, 8)), keras.Input((5, 8))
    made = layer()
    outputs = made(one, two) if "Head" in type(made).__name__ or "Query" in type(made).__name__ else made([one, two])
    model = keras.Model([one, two], outputs)
    assert counted(model) == profiled_macs(model)


@pytest.mark.parametrize(
    "layer",
    [
        Block,
        lambda: layers.SpectralNormalization(layers.Dense(5)),
        lambda: layers.EinsumDense("abc,cde->abde", (None, 3, 4)),
        lambda: layers.Lambda(lambda x: ops.matmul(x, ops.transpose(x, (0, 2, 1)))),
        lambda: layers.TimeDistributed(layers.Dense(5)),
    ],
)
def test_layers_made_of_others_equal_the_profiler(layer):
    inputs = keras.Input((7, 8))
    model = keras.Model(inputs, layer()(inputs))
    assert counted(model) == profiled_macs(model)


@pytest.mark.parametrize("shape", [(9, 9, 4)])
def test_a_wrapped_convolution_counts_as_the_convolution(shape):
    inputs = keras.Input(shape)
    plain, wrapped = (
        layers.Conv2D(3, 3, padding="same"),
        layers.SpectralNormalization(layers.Conv2D(3, 3, padding="same")),
    )
    assert counted(keras.Model(inputs, wrapped(inputs))) == counted(keras.Model(inputs, plain(inputs)))


@pytest.mark.parametrize(
    ("operation", "layer"),
    [
        (lambda x: ops.conv(x, np.ones((3, 3, 4, 6), "float32"), 2, "same"), layers.Conv2D(6, 3, 2, "same")),
        (
            lambda x: ops.depthwise_conv(x, np.ones((3, 2, 4, 2), "float32")),
            layers.DepthwiseConv2D((3, 2), depth_multiplier=2),
        ),
        (lambda x: ops.matmul(x, np.ones((4, 5), "float32")), layers.Dense(5)),
        (lambda x: ops.dot(x, np.ones((4, 5), "float32")), layers.Dense(5)),
        (lambda x: ops.einsum("abcd,de->abce", x, np.ones((4, 5), "float32")), layers.Dense(5)),
    ],
)
def test_operations_count_as_the_layers_that_do_the_same(operation, layer):
    inputs = keras.Input((9, 8, 4))
    (entry,) = mac_layers(keras.Model(inputs, operation(inputs)))
    assert (entry.covered, entry.dense_macs) == (True, counted(keras.Model(inputs, layer(inputs))))


@pytest.mark.parametrize(("layer", "gates"), [(layers.LSTM, 4), (layers.GRU, 3), (layers.SimpleRNN, 1)])
def test_recurrent_layers(layer, gates):
    inputs = keras.Input((6, 5))
    assert counted(keras.Model(inputs, layer(8)(inputs))) == 6 * gates * 8 * (5 + 8)
    assert counted(keras.Model(inputs, layers.Bidirectional(layer(8))(inputs))) == 2 * 6 * gates * 8 * (5 + 8)


@pytest.mark.parametrize(
    ("cells", "macs"),
    [
        (lambda: layers.LSTMCell(8), 4 * 8 * (5 + 8)),
        (lambda: [layers.GRUCell(8), layers.SimpleRNNCell(3)], 3 * 8 * (5 + 8) + 3 * (8 + 3)),
    ],
)
def test_recurrent_cells_are_counted_as_a_whole(cells, macs):
    inputs = keras.Input((6, 5))
    (entry,) = mac_layers(keras.Model(inputs, layers.RNN(cells())(inputs)))
    assert (entry.dense_macs, entry.covered, entry.whole, entry.reason) == (6 * macs, True, True, "recurrent")


def test_a_cell_of_the_users_own_is_listed_as_unknown():
    class Cell(layers.Layer):
        state_size = 3

        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], 3))

        def call(self, x, states):
            return ops.matmul(x, self.kernel) + states[0], [ops.matmul(x, self.kernel)]

    inputs = keras.Input((6, 5))
    (entry,) = mac_layers(keras.Model(inputs, layers.RNN(Cell())(inputs)))
    assert (entry.dense_macs, entry.covered) == (None, False)


@pytest.mark.parametrize(
    ("rank", "options"),
    [(1, {}), (2, {"strides": 2}), (2, {"padding": "same"}), (2, {"dilation_rate": 2}), (3, {"padding": "same"})],
)
def test_convolutional_recurrent_layers_equal_their_convolutions(rank, options):
    """One step by hand: TensorFlow's profiler does not look into loops."""
    inputs = keras.Input((3, *(7, 6, 5)[:rank], 2))
    recurrent = getattr(layers, f"ConvLSTM{rank}D")(4, 3, **options)
    model = keras.Model(inputs, recurrent(inputs))
    kind = getattr(layers, f"Conv{rank}D")
    step = keras.Input(inputs.shape[2:])
    of_input = keras.Model(step, kind(16, 3, **options)(step))
    state = keras.Input((*of_input.output_shape[1:-1], 4))
    of_state = keras.Model(state, kind(16, 3, padding="same")(state))
    assert counted(model) == 3 * (counted(of_input) + counted(of_state))


def test_products_of_two_tensors():
    one, two = keras.Input((4, 6)), keras.Input((6, 5))
    model = keras.Model([one, two], ops.matmul(one, two))
    assert counted(model) == 4 * 6 * 5 == profiled_macs(model)


def test_a_product_over_other_axes_equals_brute_force():
    one, two = keras.Input((4, 6)), keras.Input((5, 6))
    assert counted(keras.Model([one, two], layers.Dot(axes=2)([one, two]))) == 4 * 5 * 6
    assert counted(keras.Model([one, two], ops.einsum("bij,bkj->bik", one, two))) == 4 * 5 * 6


class Projection(layers.Layer):
    """Multiplies by an operation of TensorFlow's own."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 3), name="kernel")

    def call(self, x):
        return tf.matmul(tf.convert_to_tensor(x), tf.convert_to_tensor(self.kernel))


class Filter(layers.Layer):
    """Convolves by an operation of TensorFlow's own."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(3, shape[-1], 3), name="kernel")

    def call(self, x):
        return tf.nn.conv1d(tf.convert_to_tensor(x), tf.convert_to_tensor(self.kernel), 1, "SAME")


class Positions(layers.Layer):
    """Adds a table of weights, by an operation of TensorFlow's own."""

    def build(self, shape):
        self.table = self.add_weight(shape=shape[1:], name="table")

    def call(self, x):
        return tf.add(x, self.table.value)


def test_layers_that_are_no_graph_of_keras_are_listed_with_what_can_be_told():
    inputs = keras.Input((6, 4))
    model = keras.Model(inputs, Projection(name="own")(Filter(name="filter")(inputs)))
    unknown, known = mac_layers(model)
    assert (known.path, known.covered, known.whole, known.dense_macs) == ("own", True, True, 6 * 3 * 3)
    assert (unknown.path, unknown.covered, unknown.dense_macs) == ("filter", False, None)
    assert "no graph of Keras' layers" in known.reason


def test_layers_that_multiply_nothing_are_not_listed_whatever_weights_they_have():
    inputs = keras.Input((6, 4))
    x = Positions()(
        layers.Lambda(lambda x: tf.nn.relu(tf.convert_to_tensor(x)) if tf.is_tensor(x) else ops.relu(x))(inputs)
    )
    assert mac_layers(keras.Model(inputs, x)) == []


def test_looking_into_a_layer_changes_nothing_in_it():
    class Counting(layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], 3), name="kernel")
            self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, x):
            self.calls.assign(self.calls + 1)
            return ops.matmul(x, self.kernel)

    inputs = keras.Input((6,))
    layer = Counting()
    model = keras.Model(inputs, layer(inputs))
    (entry,) = mac_layers(model)
    assert entry.dense_macs == 18
    assert float(layer.calls) == 0.0


def test_attention_over_masked_positions_is_counted_as_a_whole():
    inputs = keras.Input((6, 5))
    x = layers.Masking()(inputs)
    (entry,) = mac_layers(keras.Model(inputs, layers.MultiHeadAttention(2, 4)(x, x)))
    assert (entry.covered, entry.whole, entry.reason) == (True, True, "MultiHeadAttention over masked values")
    assert entry.dense_macs == 4 * 6 * 5 * 8 + 2 * 2 * 6 * 6 * 4


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


@pytest.mark.parametrize("layer", [layers.MultiHeadAttention(2, 4), layers.GroupQueryAttention(4, 4, 2)])
@pytest.mark.parametrize("masks", [{}, {"attention_mask": np.tri(6, k=1, dtype=bool)[None]}])
def test_attention_to_earlier_positions_is_counted_inside_as_all_attention_is(layer, masks):
    inputs = keras.Input((6, 5))
    (entry,) = mac_layers(keras.Model(inputs, layer(inputs, inputs, use_causal_mask=True, **masks)))
    (whole,) = mac_layers(keras.Model(inputs, layer(inputs, inputs)))
    assert (entry.covered, entry.whole, entry.dense_macs) == (True, False, whole.dense_macs)
