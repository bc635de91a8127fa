"""Layers and operations with MACs that the fan-out rules do not cover, and their dense MACs where known.

They are named in every count instead of being left out: a share of a model's MACs is only worth
something when it says what it is a share of.
"""

from __future__ import annotations

import math
from typing import Any

import keras

from deltafine.model import fan_out
from deltafine.model.trace import Call

layers = keras.layers

# Weights of these are added, scaled with or looked up, one operation per element at most: no MACs to save.
_NO_MACS = (
    layers.BatchNormalization,
    layers.LayerNormalization,
    layers.GroupNormalization,
    layers.UnitNormalization,
    layers.RMSNormalization,
    layers.Normalization,
    layers.PReLU,
    layers.Embedding,
)
_RECURRENT = {layers.LSTM: 4, layers.GRU: 3, layers.SimpleRNN: 1}
_CONVOLUTIONAL_RECURRENT = (layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D)
_PRODUCTS = ("Matmul", "Dot", "Einsum", "Tensordot", "Inner", "Outer", "Vdot", "DotProductAttention")


def uncovered_macs(call: Call) -> tuple[int | None, str] | None:
    """MACs of one call on one sample and the reason it is not covered; None if it does no MACs.

    The MACs are None where no formula is known.
    """
    operation, shape = call.operation, call.inputs[0].sample_shape
    if isinstance(operation, layers.Layer):
        return _of_layer(operation, call, shape)
    if type(operation).__name__ in _PRODUCTS and ".ops." in type(operation).__module__:
        return _of_product(call), "a product of two tensors, no weights"
    return None


def _of_layer(layer: Any, call: Call, shape: tuple[int, ...]) -> tuple[int | None, str] | None:
    if isinstance(layer, layers.Bidirectional):
        both = [_of_layer(part, call, shape) for part in (layer.forward_layer, layer.backward_layer)]
        macs = [part[0] for part in both if part is not None]
        return None if not macs else (_sum_if_known(macs), "recurrent in two directions")
    for recurrent, gates in _RECURRENT.items():
        if isinstance(layer, recurrent):
            steps, features = shape
            return steps * gates * layer.units * (features + layer.units), "recurrent"
    if isinstance(layer, _CONVOLUTIONAL_RECURRENT):
        return _of_convolutional_recurrent(layer, shape), "recurrent"
    if isinstance(layer, layers.MultiHeadAttention):
        return _of_attention(layer, call), "attention"
    if isinstance(layer, layers.Dot):
        return _of_product(call), "a product of two tensors, no weights"
    if isinstance(layer, layers.Attention | layers.AdditiveAttention | layers.GroupQueryAttention):
        return None, "attention"
    if isinstance(layer, _NO_MACS) or not any(len(weight.shape) >= 2 for weight in layer.weights):
        return None
    return None, f"{type(layer).__name__} has weights, and no rule says how it uses them"


def _sum_if_known(parts: list[int | None]) -> int | None:
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def _of_convolutional_recurrent(layer: Any, shape: tuple[int, ...]) -> int:
    """Each step convolves the input and, at the output's size and with stride 1, the kept state."""
    steps, *frame = shape
    cell = layer.cell
    rank = len(frame) - 1
    classes = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}
    layout = {"data_format": cell.data_format}
    of_input = classes[rank](
        4 * cell.filters, cell.kernel_size, strides=cell.strides, padding=cell.padding,
        dilation_rate=cell.dilation_rate, **layout,
    )  # fmt: skip
    of_state = classes[rank](4 * cell.filters, cell.kernel_size, padding="same", **layout)
    state = of_input.compute_output_shape((None, *frame))[1:]
    channel = -1 if cell.data_format == "channels_last" else 0
    state = tuple(cell.filters if axis == channel % len(state) else size for axis, size in enumerate(state))
    return int(steps * (fan_out.dense_macs(of_input, frame) + fan_out.dense_macs(of_state, state)))


def _of_attention(layer: Any, call: Call) -> int:
    """Projections of query, key, value and output, and the two products between them."""
    query, value = call.inputs[0].sample_shape, call.inputs[1].sample_shape
    key = call.inputs[2].sample_shape if len(call.inputs) > 2 and call.inputs[2].shape[-1] else value
    rows_q, rows_v = math.prod(query[:-1]), math.prod(value[:-1])
    heads, key_size = layer.num_heads, layer.key_dim
    value_size = layer.value_dim or key_size
    output_size = call.outputs[0].shape[-1] or 0
    projections = (
        rows_q * query[-1] * heads * key_size
        + rows_v * key[-1] * heads * key_size
        + rows_v * value[-1] * heads * value_size
        + rows_q * heads * value_size * output_size
    )
    return projections + heads * rows_q * rows_v * (key_size + value_size)


def _of_product(call: Call) -> int | None:
    """Size of the result times the length of the summed axis, for a plain matrix product."""
    if type(call.operation).__name__ != "Matmul" or len(call.inputs) != 2:
        return None
    return math.prod(call.outputs[0].sample_shape) * call.inputs[0].sample_shape[-1]
