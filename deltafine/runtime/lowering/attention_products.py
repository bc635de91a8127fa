"""The two products of attention, as they stand among layers: as one operation, or as three."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from deltafine.model import keras_private
from deltafine.model.trace import Call, Value
from deltafine.runtime.lowering.draft import Lowering

layers = keras.layers
_SCORES = ("aecd,abcd->acbe", "acbe,aecd->abcd")
"""How ``MultiHeadAttention`` multiplies keys with queries, and weights with values."""


def attention_products(lowering: Lowering, call: Call) -> int | None:
    """``keras.ops.dot_product_attention`` of (positions, heads, size), without masks."""
    names = ("query", "key", "value", "bias", "mask", "scale")
    given = dict(zip(names, call.args, strict=False)) | dict(call.kwargs)
    query, key, value = (given[name] for name in names[:3])
    scale = given.get("scale")
    flags = ("is_causal", "attn_logits_soft_cap")
    if given.get("bias") is not None or given.get("mask") is not None or isinstance(scale, Value):
        return None
    if any(getattr(call.operation, name, None) for name in flags):
        return None
    if not all(isinstance(one, Value) and len(one.shape) == 4 for one in (query, key, value)):
        return None
    return _products(lowering, call, query, key, value, query.shape[-1] ** -0.5 if scale is None else float(scale))


def combined(lowering: Lowering, call: Call) -> int | None:
    """The product of attention weights with values, if these weights are a softmax of queries and keys alone."""
    if getattr(call.operation, "subscripts", None) != _SCORES[1] or len(call.args) != 2:
        return None
    weights, value = call.args
    maker = _maker(lowering, weights)
    if maker is not None and isinstance(maker.operation, layers.Dropout) and _is_of_keras(maker):
        maker = _maker(lowering, maker.inputs[0])
    softmax = maker is not None and isinstance(maker.operation, layers.Softmax) and _is_of_keras(maker)
    if maker is None or not softmax or len(maker.inputs) != 1:
        return None
    axes = maker.operation.axis if isinstance(maker.operation.axis, list | tuple) else [maker.operation.axis]
    scores = _maker(lowering, maker.inputs[0])
    if [axis % 4 for axis in axes] != [3] or scores is None:
        return None
    if getattr(scores.operation, "subscripts", None) != _SCORES[0] or not keras_private.is_keras_operation(
        scores.operation
    ):
        return None
    key, query = scores.args
    if not all(isinstance(one, Value) for one in (query, key, value)):
        return None
    return _products(lowering, call, query, key, value, 1.0)


def _maker(lowering: Lowering, value: Any) -> Call | None:
    return lowering.maker.get(value) if isinstance(value, Value) else None


def _is_of_keras(call: Call) -> bool:
    return type(call.operation).__module__.startswith("keras.")


def _products(lowering: Lowering, call: Call, query: Value, key: Value, value: Value, scale: float) -> int:
    """(positions, heads, size) of queries, keys and values, of which a position is one row in the plan."""
    rows = []
    for name, one in (("query", query), ("key", key), ("value", value)):
        positions, heads, size = one.sample_shape
        rows.append(lowering.reshaped(one, f"{call.path}/{name}_rows", (positions, heads * size)))
    positions, heads, size = query.sample_shape
    keys, of_value = key.sample_shape[0], value.sample_shape[-1]
    made = lowering.add(
        "attention", call.path, tuple(rows), (positions, heads * of_value), groups=heads,
        layer=type(call.operation).__name__, weights=lowering.array(f"{call.path}:scale", np.asarray(scale)),
        dense_macs=math.prod((positions, keys, heads, size + of_value)),
    )  # fmt: skip
    return lowering.add("reshape", f"{call.path}/heads", (made,), call.outputs[0].sample_shape, layer="Reshape")
