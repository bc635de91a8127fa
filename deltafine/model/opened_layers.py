"""Layers that delta layers can stand in: attention, and blocks of the user's own that only call other layers.

Such a layer is a graph of layers and operations. Where a delta layer is to stand in it, a nested model of that graph
takes its place, with copies of the layers inside. It stays whole where the graph would not say all of it: a weight is
read outside of the layers inside, something depends on a mask, or the graph computes something else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from deltafine.errors import DeltafineError
from deltafine.model import composite_layers, fan_out_counts, recurrent
from deltafine.model.cloning import clone
from deltafine.model.composite_layers import Inside
from deltafine.model.trace import Call, Trace, Value, trace
from deltafine.model.uncovered import may_do_macs

layers = keras.layers
_OF_KERAS = (layers.MultiHeadAttention, layers.GroupQueryAttention, layers.Attention)
_NEVER = (layers.Lambda, layers.Wrapper, layers.Dot, *fan_out_counts.COVERED)
_TOLERANCE = 1e-4


def opened_trace(model: keras.Model, frame_shape: Sequence[int | None] | None = None) -> Trace:
    """The trace of a model, with the calls inside such layers in place of theirs; arguments and errors of ``trace``."""
    openings = _Openings()
    while True:
        traced = trace(model, frame_shape, opener=openings)
        if not openings.found_other_calls:
            return traced
        openings.found_other_calls = False


class _Openings:
    """Says of a call what is inside its layer; of all calls of a layer the same, or of none."""

    def __init__(self) -> None:
        self.found_other_calls = False
        self._known: dict[int, tuple[keras.layers.Layer, object, Inside | None]] = {}

    def __call__(self, call: Call) -> Inside | None:
        layer, given = call.operation, _form(call)
        if id(layer) not in self._known:
            self._known[id(layer)] = layer, given, self._inside(call)
        _, known, inside = self._known[id(layer)]
        if inside is not None and given != known:
            self._known[id(layer)] = layer, known, None
            self.found_other_calls = True
        return self._known[id(layer)][2]

    def _inside(self, call: Call) -> Inside | None:
        layer = call.operation
        if not _may_be_opened(layer) or call.masked or not call.inputs or call.inputs[0].shape[0] is not None:
            return None
        inside = composite_layers.opened(call)
        if inside is None or len(inside.function.outputs) != len(call.outputs):
            return None
        held = {id(one) for operation in inside.function.operations for one in getattr(operation, "weights", ())}
        if any(id(weight) not in held for weight in layer.weights):
            return None
        calls = trace(inside.function, opener=self).calls
        if not all(_can_be_copied(one.operation) for one in calls):
            return None
        return inside if type(layer) in _OF_KERAS or _computes_the_same(call, inside) else None


def _form(call: Call) -> object:
    """What two calls have in common of which the insides are the same."""
    leaves = keras.tree.flatten((call.args, call.kwargs))
    return (
        call.masked,
        sorted(call.kwargs),
        [(leaf.sample_shape, leaf.dtype) if isinstance(leaf, Value) else repr(leaf) for leaf in leaves],
    )


def _may_be_opened(layer: Any) -> bool:
    if not isinstance(layer, layers.Layer) or isinstance(layer, _NEVER) or recurrent.is_recurrent(layer):
        return False
    if type(layer).__module__.startswith("keras."):
        return type(layer) in _OF_KERAS and not composite_layers.has_other_values(layer)
    return layer.built and may_do_macs(layer)


def _can_be_copied(operation: keras.Operation) -> bool:
    if not isinstance(operation, layers.Layer):
        return True
    try:
        clone(operation)
    except DeltafineError:
        return False
    return True


def _computes_the_same(call: Call, inside: Inside) -> bool:
    """Whether the graph gives what the layer gives, on two samples of noise."""
    random = np.random.default_rng(0)
    tensors = [
        keras.ops.convert_to_tensor(random.normal(size=(2, *value.sample_shape)).astype(value.dtype))
        for value in call.inputs
    ]
    args, kwargs = composite_layers.bound(call, tensors)
    try:
        expected = keras.tree.flatten(call.operation(*args, **kwargs))
        found = keras.tree.flatten(inside.function(tensors))
        pairs = [
            (np.asarray(one, "float32"), np.asarray(other, "float32"))
            for one, other in zip(found, expected, strict=True)
        ]
    except Exception:  # a layer of the user's own may raise anything, and so may its graph
        return False
    same = [one.shape == other.shape and np.abs(one - other).max() <= _TOLERANCE * np.abs(other).max()
            for one, other in pairs]  # fmt: skip
    return all(same)
