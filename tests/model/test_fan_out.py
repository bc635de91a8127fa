"""Fan-out against brute force: the gradient of a copy of the layer with all weights one."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from deltafine.errors import DeltafineError
from deltafine.model import dense_macs, fan_out
from deltafine.model.fan_out_counts import intermediate_shape


def brute_force(layer, input_shape) -> np.ndarray:
    for weight in layer.weights:
        weight.assign(tf.zeros(weight.shape) if "bias" in weight.path else tf.ones(weight.shape))
    x = tf.Variable(np.ones((1, *input_shape), "float64"))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(x))
    return np.rint(tape.gradient(total, x).numpy()[0]).astype("int64")


def check(layer, input_shape) -> None:
    layer.build((None, *input_shape))
    expected = brute_force(layer, input_shape)
    np.testing.assert_array_equal(np.broadcast_to(fan_out(layer, input_shape), input_shape), expected)
    assert dense_macs(layer, input_shape) == expected.sum()


def sizes(rank: int, low: int, high: int):
    return st.tuples(*[st.integers(low, high)] * rank)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_convolution_equals_brute_force(rank, data):
    kernel = data.draw(sizes(rank, 1, 4))
    strides = data.draw(sizes(rank, 1, 3))
    # TensorFlow allows either strides or dilation.
    dilation = data.draw(sizes(rank, 1, 3)) if max(strides) == 1 else (1,) * rank
    padding = data.draw(st.sampled_from(["valid", "same", *(["causal"] if rank == 1 else [])]))
    # The gradient of a grouped 3D convolution has no CPU kernel.
    groups = data.draw(st.sampled_from([1, 2])) if rank < 3 and max(dilation) == 1 else 1
    shape = (*data.draw(sizes(rank, 10, 13)), 4) if rank < 3 else (*data.draw(sizes(rank, 10, 11)), 2)
    layer = getattr(layers, f"Conv{rank}D")(
        6, kernel, strides=strides, padding=padding, dilation_rate=dilation, groups=groups, dtype="float64"
    )
    check(layer, shape)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(data=st.data())
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_transposed_convolution_equals_brute_force(rank, data):
    kernel = data.draw(sizes(rank, 1, 4))
    strides = data.draw(sizes(rank, 1, 3))
    dilation = data.draw(st.integers(1, 2)) if max(strides) == 1 and rank == 2 else 1
    padding = data.draw(st.sampled_from(["valid", "same"]))
    shape = (*data.draw(sizes(rank, 4, 7)), 2)
    layer = getattr(layers, f"Conv{rank}DTranspose")(
        3, kernel, strides=strides, padding=padding, dilation_rate=dilation, dtype="float64"
    )
    check(layer, shape)


@pytest.mark.parametrize(
    ("padding", "kernel", "strides", "extra"),
    [
        *[("valid", *case) for case in [(3, 2, 1), (4, 2, 0), (3, 3, 2), (5, 2, 1), (2, 3, 1)]],
        *[("same", *case) for case in [(3, 2, 1), (3, 3, 2), (5, 2, 1), (2, 3, 1)]],
    ],
)
def test_transposed_convolution_with_output_padding_equals_brute_force(padding, kernel, strides, extra):
    layer = layers.Conv2DTranspose(3, kernel, strides=strides, padding=padding, output_padding=extra, dtype="float64")
    check(layer, (5, 6, 2))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    kernel=st.integers(1, 4), stride=st.integers(1, 3), dilation=st.integers(1, 2),
    padding=st.sampled_from(["valid", "same"]), multiplier=st.integers(1, 3),
)  # fmt: skip
@pytest.mark.parametrize("rank", [1, 2])
def test_depthwise_convolution_equals_brute_force(rank, kernel, stride, dilation, padding, multiplier):
    layer = getattr(layers, f"DepthwiseConv{rank}D")(
        kernel, strides=stride, padding=padding, depth_multiplier=multiplier,
        dilation_rate=dilation if stride == 1 else 1, dtype="float64",
    )  # fmt: skip
    check(layer, (9, 11, 3) if rank == 2 else (11, 3))


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("rank", [1, 2])
def test_the_stages_of_a_separable_convolution_are_its_two_convolutions(rank, stride, padding):
    shape = (9, 11, 3) if rank == 2 else (11, 3)
    separable = getattr(layers, f"SeparableConv{rank}D")(
        5, 3, strides=stride, padding=padding, depth_multiplier=2, dtype="float64"
    )
    separable.build((None, *shape))
    depthwise = getattr(layers, f"DepthwiseConv{rank}D")(
        3, strides=stride, padding=padding, depth_multiplier=2, dtype="float64"
    )
    pointwise = getattr(layers, f"Conv{rank}D")(5, 1, dtype="float64")
    between = depthwise.compute_output_shape((None, *shape))[1:]
    depthwise.build((None, *shape))
    pointwise.build((None, *between))
    assert intermediate_shape(separable, shape) == between
    of_depthwise, of_pointwise = brute_force(depthwise, shape), brute_force(pointwise, between)
    np.testing.assert_array_equal(np.broadcast_to(fan_out(separable, shape, stage="depthwise"), shape), of_depthwise)
    np.testing.assert_array_equal(np.broadcast_to(fan_out(separable, shape, stage="pointwise"), between), of_pointwise)
    assert dense_macs(separable, shape) == of_depthwise.sum() + of_pointwise.sum()


@pytest.mark.parametrize("shape", [(7,), (4, 7), (3, 4, 7)])
def test_dense_equals_brute_force(shape):
    check(layers.Dense(5, dtype="float64"), shape)


@pytest.mark.parametrize(
    ("equation", "output_shape", "shape"),
    [
        ("ab,bc->ac", 6, (5,)),
        ("abc,cd->abd", (None, 6), (4, 5)),
        ("abc,cde->abde", (None, 2, 3), (4, 5)),
        ("abcd,cde->abe", (None, 6), (4, 2, 3)),
        ("...x,xy->...y", 6, (4, 5)),
    ],
)
def test_einsum_dense_equals_brute_force(equation, output_shape, shape):
    check(layers.EinsumDense(equation, output_shape, dtype="float64"), shape)


def test_channels_first_counts_along_the_last_axes():
    last = layers.Conv2D(6, 3, strides=2, padding="same")
    first = layers.Conv2D(6, 3, strides=2, padding="same", data_format="channels_first")
    last.build((None, 9, 8, 4))
    first.build((None, 4, 9, 8))
    np.testing.assert_array_equal(np.moveaxis(fan_out(first, (4, 9, 8)), 0, -1), fan_out(last, (9, 8, 4)))


def test_a_separable_convolution_must_be_asked_for_a_stage():
    layer = layers.SeparableConv2D(5, 3)
    layer.build((None, 8, 8, 3))
    with pytest.raises(ValueError, match="depthwise"):
        fan_out(layer, (8, 8, 3))


def test_an_unknown_size_and_an_unknown_layer_are_refused():
    layer = layers.Conv2D(5, 3, name="convolution")
    with pytest.raises(DeltafineError, match=r"convolution.*frame size"):
        fan_out(layer, (None, 8, 3))
    with pytest.raises(DeltafineError, match="no fan-out rule"):
        fan_out(keras.layers.ReLU(), (8, 8, 3))
