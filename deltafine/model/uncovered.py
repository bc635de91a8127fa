"""Layers and operations with MACs that the measurement does not cover, and their dense MACs where known.

They are named in every count instead of being left out: a share of a model's MACs is only worth
something when it says what it is a share of.
"""

from __future__ import annotations

import math

import keras

from deltafine.model import recurrent
from deltafine.model import tensor_products as products
from deltafine.model.tensorflow_macs import tensorflow_macs
from deltafine.model.trace import Call

layers = keras.layers

# Weights of these are added, scaled with or looked up, one operation per element at most: no MACs to save.
NO_MACS = (
    layers.BatchNormalization,
    layers.LayerNormalization,
    layers.GroupNormalization,
    layers.UnitNormalization,
    layers.RMSNormalization,
    layers.Normalization,
    layers.PReLU,
    layers.Embedding,
    layers.InputLayer,
)
_CONVOLUTIONS = ("Conv", "DepthwiseConv", "SeparableConv", "ConvTranspose")


def uncovered_macs(call: Call) -> tuple[int | None, str] | None:
    """MACs of one call on one sample and the reason it is not covered; None if it does no MACs.

    The MACs are None where no formula is known.
    """
    operation, kind = call.operation, type(call.operation).__name__
    if recurrent.is_recurrent(operation):
        return recurrent.dense_macs(operation, call.inputs[0].sample_shape), "recurrent"
    if isinstance(operation, layers.Dot):
        return None, "a product of two tensors, no weights"
    if isinstance(operation, layers.Layer):
        return _of_layer(operation, call)
    if ".ops." not in type(operation).__module__:
        return None
    if kind == "DotProductAttention":
        return _of_attention(call), "a product of two tensors, no weights"
    if kind in products.NAMES:
        return None, "a product of tensors of a form that is not known"
    return (None, "a convolution of a form that is not known") if kind in _CONVOLUTIONS else None


def may_do_macs(layer: keras.layers.Layer) -> bool:
    """Whether it is worth looking into a layer that is none of those whose MACs are known."""
    if isinstance(layer, NO_MACS) or type(layer).__module__.startswith("deltafine."):
        return False
    own = not type(layer).__module__.startswith("keras.") or isinstance(layer, layers.Lambda)
    attention = isinstance(layer, layers.Attention | layers.AdditiveAttention)
    return own or attention or any(len(weight.shape) >= 2 for weight in layer.weights)


def _of_layer(layer: keras.layers.Layer, call: Call) -> tuple[int | None, str] | None:
    macs = tensorflow_macs(call) if may_do_macs(layer) else 0
    return None if macs == 0 else (macs, f"{type(layer).__name__} is no graph of Keras' layers and operations")


def _of_attention(call: Call) -> int | None:
    """Queries with keys, and the result with values; (batch, positions, heads, size) each."""
    (queries, heads, size), (keys, _, _) = (value.sample_shape for value in call.inputs[:2])
    return int(math.prod((queries, keys, heads)) * (size + call.outputs[0].sample_shape[-1]))
