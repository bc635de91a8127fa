"""Operations of two or more values at the same position: sums, products and their like, with constants on either side.

What the engines do not broadcast as Keras does is left to Keras.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from deltafine.model.trace import Call, Value
from deltafine.runtime.lowering.draft import Lowering, add_call, as_image
from deltafine.runtime.plan import Finish

Rule = Callable[[Lowering, Call], int | None]
_WITH_CONSTANT = ("add", "subtract", "multiply", "divide")


def elementwise(kind: str) -> Rule:
    """The rule of ``add``, ``subtract``, ``multiply``, ``average``, ``maximum`` or ``minimum``."""

    def rule(lowering: Lowering, call: Call) -> int | None:
        leaves = keras.tree.flatten((call.args, call.kwargs))
        if len(call.inputs) == 1 and len(leaves) == 2 and kind in _WITH_CONSTANT:
            return _with_constant(lowering, call, kind, leaves)
        output = as_image(call.outputs[0].sample_shape)
        shapes = [as_image(value.sample_shape) for value in call.inputs]
        same_rank = len({len(value.shape) for value in (*call.inputs, *call.outputs)}) == 1
        # One position stands for all, and one channel for all of its position.
        fits = all(shape[2] in (1, output[2]) and shape[:2] in ((1, 1), output[:2]) for shape in shapes)
        return add_call(lowering, call, kind) if len(shapes) == len(leaves) > 1 and same_rank and fits else None

    return rule


def divide(lowering: Lowering, call: Call) -> int | None:
    """A division by a constant; Keras does the others."""
    leaves = keras.tree.flatten((call.args, call.kwargs))
    if len(call.inputs) != 1 or len(leaves) != 2 or not isinstance(leaves[0], Value):
        return None
    return _with_constant(lowering, call, "divide", leaves)


def _with_constant(lowering: Lowering, call: Call, kind: str, leaves: list[Any]) -> int | None:
    first = isinstance(leaves[0], Value)
    constant = leaves[1] if first else leaves[0]
    if not isinstance(constant, int | float | np.ndarray):
        return None
    if kind == "multiply":
        return affine(lowering, call, constant, 0.0)
    if kind == "divide":
        finite = np.all(np.isfinite(np.float64(1) / np.asarray(constant))) if np.all(constant) else False
        return affine(lowering, call, 1.0 / np.asarray(constant, np.float64), 0.0) if finite else None
    if kind == "add":
        return affine(lowering, call, 1.0, constant)
    return affine(lowering, call, 1.0, -np.asarray(constant)) if first else affine(lowering, call, -1.0, constant)


def affine(lowering: Lowering, call: Call, scale: Any, shift: Any) -> int | None:
    """``scale * x + shift``, each a number or one per channel; None where they are more, or make more of ``x``."""
    channels = as_image(call.inputs[0].sample_shape)[2]
    if call.inputs[0].sample_shape != call.outputs[0].sample_shape:
        return None
    pieces = []
    for role, values in (("scale", scale), ("shift", shift)):
        values = np.asarray(values, np.float64)
        if values.size not in (1, channels) or (values.size > 1 and values.shape[-1] != channels):
            return None
        pieces.append(lowering.array(f"{call.path}:{role}", np.broadcast_to(values.ravel(), (channels,))))
    return add_call(lowering, call, "identity", finish=Finish(scale=pieces[0], shift=pieces[1]))
