"""Layers that are made of other layers and operations: what is inside, as a graph of its own.

Attention, wrappers and blocks of the user's own call layers and operations of Keras one after the other. Called on
symbolic tensors, these leave a graph. It only serves to look at what is multiplied: the layer itself computes. So does
that of ``keras.ops.dot_product_attention``, one operation for what can be written as three.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from deltafine.model import graph, keras_private
from deltafine.model.layer_names import Names
from deltafine.model.trace import Call, Value

layers = keras.layers
_ATTENTION = (layers.MultiHeadAttention, layers.GroupQueryAttention)
_FUSED = "DotProductAttention"


@dataclass(frozen=True)
class Inside:
    """What is inside a layer.

    Attributes:
        function: ``keras.Function`` of the tensors that the layer is called with.
        places: where these are among the arguments, flat.
    """

    function: keras.Function
    places: tuple[int, ...]

    def inputs(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """What the function takes, of a call of the layer like that which was opened."""
        leaves = keras.tree.flatten((args, kwargs))
        return [leaves[place] for place in self.places]


def may_be_opened(operation: keras.Operation) -> bool:
    """Whether an operation that is no layer is made of others."""
    return type(operation).__name__ == _FUSED and keras_private.is_keras_operation(operation)


def has_other_values(operation: keras.Operation) -> bool:
    """Whether values of an attention have another size than keys: Keras' fused operation then tells a wrong shape.

    Asked for its weights, the layer does without that operation.
    """
    if not isinstance(operation, layers.MultiHeadAttention):
        return False
    config = operation.get_config()
    return bool(config["value_dim"] != config["key_dim"])


def opened(call: Call) -> Inside | None:
    """What is inside a layer, if that is a graph."""
    names = Names()
    inputs = [
        names.input(names.free(f"input_of_{call.operation.name}"), value.shape, value.dtype) for value in call.inputs
    ]
    try:
        # What a layer would assign to its variables is dropped with the scope.
        with keras.StatelessScope():
            args, kwargs = bound(call, inputs)
            fused = may_be_opened(call.operation)
            made = _attended(call.operation, *args, **kwargs) if fused else call.operation.call(*args, **kwargs)
            outputs = keras.tree.flatten(made)
            function = names.function(inputs, [leaf for leaf in outputs if isinstance(leaf, keras.KerasTensor)])
            function = _with_sizes(function, inputs)
    except Exception:  # a layer of the user's own may raise anything where it is not given numbers
        return None
    leaves = keras.tree.flatten((call.args, call.kwargs))
    return Inside(function, tuple(place for place, leaf in enumerate(leaves) if isinstance(leaf, Value)))


def _with_sizes(function: keras.Function, inputs: list[keras.KerasTensor]) -> keras.Function:
    """The function with the sizes of its reshapes that follow from those of the inputs.

    ``ops.reshape(x, (ops.shape(x)[0], -1, channels))`` is without a size for a batch that is not known yet. That is
    no shape to be called with, and leaves the other sizes open.
    """

    def on_call(name: str, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not _is_open(node.operation) or None in args[0].shape[1:]:
            return node.operation(*args, **kwargs)
        sizes = node.operation.newshape[1:]
        known = math.prod(size for size in sizes if size not in (None, -1))
        left = math.prod(args[0].shape[1:]) // max(known, 1)
        return keras.ops.reshape(args[0], (-1, *(left if size in (None, -1) else size for size in sizes)))

    if not any(map(_is_open, function.operations)):
        return function
    return Names().function(inputs, graph.walk(function, inputs, on_call))


def _is_open(operation: Any) -> bool:
    return type(operation).__name__ == "Reshape" and None in getattr(operation, "newshape", ())[:1]


def bound(call: Call, tensors: Sequence[Any]) -> tuple[Any, dict[str, Any]]:
    """The call's arguments with these tensors in place of its own."""
    given = iter(tensors)
    args, kwargs = keras.tree.map_structure(
        lambda leaf: next(given) if isinstance(leaf, Value) else leaf, (call.args, call.kwargs)
    )
    if keras_private.takes_training(call.operation):
        kwargs = {**kwargs, "training": False}
    if isinstance(call.operation, _ATTENTION) and kwargs.get("use_causal_mask"):
        kwargs = {**kwargs, "use_causal_mask": False, "attention_mask": _causal_mask(call, kwargs)}
    if has_other_values(call.operation):
        kwargs = {**kwargs, "return_attention_scores": True}
    return args, kwargs


def _attended(
    operation: Any, query: Any, key: Any, value: Any, bias: Any = None, mask: Any = None, scale: float | None = None
) -> keras.KerasTensor:
    """What the fused operation gives for (batch, positions, heads, size), by its two products and a softmax."""
    ops, groups = keras.ops, query.shape[2] // key.shape[2]
    if groups > 1:
        key, value = ops.repeat(key, groups, axis=2), ops.repeat(value, groups, axis=2)
    scores = ops.einsum("btnh,bsnh->bnts", query, key) * (query.shape[3] ** -0.5 if scale is None else scale)
    if bias is not None:
        scores = scores + bias
    if operation.is_causal:
        scores = ops.where(np.tri(query.shape[1], key.shape[1], dtype=bool), scores, -1e9)
    if mask is not None:
        scores = ops.where(mask, scores, -1e9)
    return ops.einsum("bnts,bsnh->btnh", ops.softmax(scores, axis=-1), value)


def _causal_mask(call: Call, kwargs: Mapping[str, Any]) -> Any:
    """The mask that Keras cannot make of symbols, whose projections leave the number of positions open."""
    named = dict(zip(("query", "value"), call.args, strict=False)) | dict(call.kwargs)
    queries, keys = (named[name].shape[1] for name in ("query", "value"))
    mask = np.tri(queries, keys, dtype=bool)[None]
    given = kwargs.get("attention_mask")
    return mask if given is None else keras.ops.logical_and(given, mask)
