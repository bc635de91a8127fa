"""Operations of two or more values at the same position: sums, products and their like, with constants on either side.

What the engines do not broadcast by themselves is first laid out in the shape of the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from deltafine.model.trace import Call, Value
from deltafine.runtime.lowering.draft import Lowering, add_call, as_image
from deltafine.runtime.lowering.moving import MOST_VALUES, add_constant, add_gather
from deltafine.runtime.plan import Finish

Rule = Callable[[Lowering, Call], int | None]
_POWERS = {0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal", 2.0: "square"}


def elementwise(kind: str) -> Rule:
    """The rule of ``add``, ``subtract``, ``multiply``, ``divide``, ``power``, ``average``, ``maximum``, ``minimum``."""

    def rule(lowering: Lowering, call: Call) -> int | None:
        leaves = keras.tree.flatten((call.args, call.kwargs))
        # Positions that an embedding was asked for while the model was built are a tensor of numbers.
        leaves = [np.asarray(leaf) if keras.ops.is_tensor(leaf) else leaf for leaf in leaves]
        if kind == "add" and len(leaves) == 2 and _taken_for_a_bias(call, leaves[1]):
            return None  # Keras itself gives what it gives
        if len(call.inputs) == 1 and len(leaves) == 2:
            index = _with_constant(lowering, call, kind, leaves)
            if index is not None:
                return index
        if len(leaves) < 2 or len({len(value.shape) for value in (*call.inputs, *call.outputs)}) > 1:
            return None
        parts = []
        for number, leaf in enumerate(leaves):
            part = _laid_out(lowering, call, f"{call.path}/{number}", leaf)
            if part is None:
                return None
            parts.append(part)
        layer = type(call.operation).__name__
        return lowering.add(kind, call.path, tuple(parts), call.outputs[0].sample_shape, layer=layer)

    return rule


def _laid_out(lowering: Lowering, call: Call, name: str, leaf: Any) -> int | None:
    """The tensor of a value or a constant, in a shape that the engines combine with the result's."""
    sample, layer = call.outputs[0].sample_shape, type(call.operation).__name__
    if isinstance(leaf, Value):
        output, shape = as_image(sample), as_image(leaf.sample_shape)
        # One position stands for all, and one channel for all of its position.
        if shape[2] in (1, output[2]) and shape[:2] in ((1, 1), output[:2]):
            return lowering.known[leaf]
        if math.prod(sample) > MOST_VALUES:
            return None
        places = np.arange(math.prod(leaf.sample_shape)).reshape(leaf.sample_shape)
        return add_gather(lowering, name, [lowering.known[leaf]], np.broadcast_to(places, sample), layer)
    if not isinstance(leaf, int | float | np.ndarray | np.number):
        return None
    return constant(lowering, name, np.asarray(leaf, np.float64), sample, layer)


def constant(lowering: Lowering, name: str, values: np.ndarray, sample: tuple[int, ...], layer: str) -> int | None:
    """The tensor of a constant that is combined with values of a shape; None where it does not fit every frame."""
    if values.ndim == len(sample) + 1 and values.shape[0] == 1:
        values = values[0]
    if values.ndim > len(sample):
        return None
    values = values.reshape((1,) * (len(sample) - values.ndim) + values.shape)
    if max(values.shape[:-1], default=1) == 1:
        return add_constant(lowering, name, values.reshape(-1), layer)
    return add_constant(lowering, name, np.broadcast_to(values, sample), layer)


def _taken_for_a_bias(call: Call, leaf: Any) -> bool:
    """Whether Keras takes numbers that are added for a bias of another axis than theirs.

    It does so with any that have one axis longer than 1, as long as the channels or else as the first axis of a sample.
    """
    if not isinstance(leaf, np.ndarray):
        return False
    long = [axis - leaf.ndim for axis, size in enumerate(leaf.shape) if size > 1]
    sample = call.inputs[0].sample_shape
    if len(long) != 1 or leaf.size not in (sample[0], sample[-1]):
        return False
    return long[0] != (-1 if leaf.size == sample[-1] else -len(sample))


def prelu(lowering: Lowering, call: Call) -> int | None:
    """The values, and those below zero times the slopes that were learnt."""
    sample, layer = call.outputs[0].sample_shape, type(call.operation).__name__
    slopes = constant(lowering, f"{call.path}/slopes", np.asarray(call.operation.alpha), sample, layer)
    if slopes is None:
        return None
    return lowering.add("prelu", call.path, (lowering.known[call.inputs[0]], slopes), sample, layer=layer)


def negative(lowering: Lowering, call: Call) -> int | None:
    return affine(lowering, call, -1.0, 0.0)


def layer_scale(lowering: Lowering, call: Call) -> int | None:
    return affine(lowering, call, np.asarray(call.operation.gamma), 0.0)


def _with_constant(lowering: Lowering, call: Call, kind: str, leaves: list[Any]) -> int | None:
    first = isinstance(leaves[0], Value)
    number = leaves[1] if first else leaves[0]
    if not isinstance(number, int | float | np.ndarray):
        return None
    if kind == "multiply":
        return affine(lowering, call, number, 0.0)
    if kind == "divide" and first:
        finite = np.all(np.isfinite(np.float64(1) / np.asarray(number))) if np.all(number) else False
        return affine(lowering, call, 1.0 / np.asarray(number, np.float64), 0.0) if finite else None
    if kind == "add":
        return affine(lowering, call, 1.0, number)
    if kind == "subtract":
        return affine(lowering, call, 1.0, -np.asarray(number)) if first else affine(lowering, call, -1.0, number)
    if kind == "power" and first and np.ndim(number) == 0:
        activation = _POWERS.get(float(number), "power")
        finish = Finish(activation=activation, parameters=(float(number),) if activation == "power" else ())
        return add_call(lowering, call, "identity", finish=finish)
    return None


def spread(lowering: Lowering, call: Call, scale: np.ndarray, shift: np.ndarray) -> int | None:
    """``scale * x + shift``, each of a shape that broadcasts to that of ``x``."""
    sample, layer = call.outputs[0].sample_shape, type(call.operation).__name__
    factors = constant(lowering, f"{call.path}/factors", scale, sample, layer)
    summands = constant(lowering, f"{call.path}/summands", shift, sample, layer)
    if factors is None or summands is None or call.inputs[0].sample_shape != sample:
        return None
    product = lowering.add(
        "multiply", f"{call.path}/product", (lowering.known[call.inputs[0]], factors), sample, layer=layer
    )
    return lowering.add("add", call.path, (product, summands), sample, layer=layer)


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
