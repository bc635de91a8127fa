"""Normalisations by what a frame holds, softmax on any axes, and sums, means and extremes over axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from deltafine.model.trace import Call
from deltafine.runtime.lowering.draft import Lowering, as_image
from deltafine.runtime.lowering.moving import arranged, arranged_back
from deltafine.runtime.plan import Finish

Rule = Callable[[Lowering, Call], int | None]
WIDEST = 1 << 14
"""Values of a row, beyond which arranging them so would take more memory than it is worth."""


def _axes(axis: Any, rank: int) -> tuple[int, ...] | None:
    """Axes of a frame, in order; None for all, or if the batch is among them. ``rank`` counts the batch."""
    if axis is None:
        return None
    given = (axis,) if isinstance(axis, int) else tuple(axis)
    axes = sorted(int(one) % rank - 1 for one in given)
    return tuple(axes) if axes and axes[0] >= 0 else None


def _by_rows(
    lowering: Lowering, call: Call, axis: Any, activation: str, numbers: tuple[float, ...] = (),
    scale: Any = None, shift: Any = None,
) -> int | None:  # fmt: skip
    """A function of all values along some axes; then a factor and a summand for each place on these axes."""
    shape, layer = call.inputs[0].sample_shape, type(call.operation).__name__
    axes = _axes(axis, len(shape) + 1)
    if axes is None or call.outputs[0].sample_shape != shape:
        return None
    width = math.prod(shape[one] for one in axes)
    if axes == (len(shape) - 1,):
        order, rows, source = None, shape, lowering.known[call.inputs[0]]
    elif width > WIDEST:
        return None
    else:
        order = [*(one for one in range(len(shape)) if one not in axes), *axes]
        source = arranged(lowering, call.inputs[0], f"{call.path}/rows", order, len(axes), layer)
        rows = lowering.plan.tensors[source].sample_shape
    end = call.path if order is None else f"{call.path}/of_rows"
    affine = scale is not None or shift is not None
    name = f"{call.path}/normalized" if affine else end
    finish = Finish(activation=activation, parameters=numbers)
    made = lowering.add("identity", name, (source,), rows, finish=finish, layer=layer)
    if affine:
        roles = (("scale", scale, 1.0), ("shift", shift, 0.0))
        arrays = {
            role: lowering.array(
                f"{call.path}:{role}",
                np.broadcast_to(np.asarray(default if values is None else values, np.float64).ravel(), (width,)),
            )
            for role, values, default in roles
        }
        made = lowering.add(
            "identity", end, (made,), rows, finish=Finish(arrays["scale"], arrays["shift"]), layer=layer
        )
    return made if order is None else arranged_back(lowering, made, call.path, order, shape)


def layer_normalization(lowering: Lowering, call: Call) -> int | None:
    layer = call.operation
    axis = layer.axis if isinstance(layer.axis, int) else list(layer.axis)
    axes = _axes(axis, len(call.inputs[0].shape))
    given = [axis] if isinstance(axis, int) else axis
    if axes is None or [one % len(call.inputs[0].shape) - 1 for one in given] != list(axes):
        return None
    kind = "rms" if getattr(layer, "rms_scaling", False) else "normalize"
    beta = None if kind == "rms" else layer.beta
    return _by_rows(lowering, call, axis, kind, (float(layer.epsilon),), _array(layer.gamma), _array(beta))


def rms_normalization(lowering: Lowering, call: Call) -> int | None:
    layer = call.operation
    return _by_rows(lowering, call, layer.axis, "rms", (float(layer.epsilon),), _array(layer.scale))


def unit_normalization(lowering: Lowering, call: Call) -> int | None:
    return _by_rows(lowering, call, call.operation.axis, "unit", (1e-12,))


def softmax(activation: str) -> Rule:
    return lambda lowering, call: _by_rows(lowering, call, call.operation.axis, activation)


def group_normalization(lowering: Lowering, call: Call) -> int | None:
    """By mean and square of the channels, and of these the means of each group; all of it operations of its own."""
    layer, path, shape = call.operation, call.path, call.inputs[0].sample_shape
    if layer.axis not in (-1, len(shape)) or len(shape) < 2:
        return None
    kind, channels = type(layer).__name__, shape[-1]
    groups = channels if layer.groups == -1 else layer.groups
    each = channels // groups
    of_group = np.kron(np.eye(groups), np.full((each, each), 1 / each))[None, None]
    weights = lowering.array(f"{path}:groups", of_group)

    def mean_of_groups(name: str, source: int, finish: Finish) -> int:
        mean = lowering.add("global_average", f"{path}/{name}_of_channels", (source,), (channels,), layer=kind)
        return lowering.add("conv", f"{path}/{name}", (mean,), (channels,), weights=weights, finish=finish, layer=kind)

    source = lowering.known[call.inputs[0]]
    mean = mean_of_groups("mean", source, Finish())
    apart = lowering.add("subtract", f"{path}/apart", (source, mean), shape, layer=kind)
    square = lowering.add("identity", f"{path}/square", (apart,), shape, finish=Finish(activation="square"), layer=kind)
    epsilon = lowering.array(f"{path}:epsilon", np.full(channels, float(layer.epsilon)))
    factor = mean_of_groups("factor", square, Finish(shift=epsilon, activation="rsqrt"))
    finish = Finish(
        scale="" if layer.gamma is None else lowering.array(f"{path}:scale", layer.gamma),
        shift="" if layer.beta is None else lowering.array(f"{path}:shift", layer.beta),
    )
    return lowering.add("multiply", path, (apart, factor), shape, finish=finish, layer=kind)


def reduction(kind: str) -> Rule:
    """The rule of ``mean``, ``sum``, ``max`` or ``min`` over some axes of a frame."""

    def rule(lowering: Lowering, call: Call) -> int | None:
        shape, path, layer = call.inputs[0].sample_shape, call.path, type(call.operation).__name__
        axes = _axes(call.operation.axis, len(shape) + 1)
        if axes is None or len(call.inputs) != 1:
            return None
        rest = [one for one in range(len(shape)) if one not in axes]
        width, count = math.prod(shape[one] for one in rest), math.prod(shape[one] for one in axes)
        if rest == [len(shape) - 1]:  # as the positions of a picture stand anyway
            source = lowering.known[call.inputs[0]]
        elif width > WIDEST:
            return None
        else:
            source = arranged(lowering, call.inputs[0], f"{path}/rows", [*axes, *rest], len(rest), layer)
        negative = lowering.array(f"{path}:negative", np.full(width, -1.0)) if kind == "min" else ""
        if negative:
            given = lowering.plan.tensors[source].sample_shape
            source = lowering.add(
                "identity", f"{path}/negative", (source,), given, finish=Finish(scale=negative), layer=layer
            )
        scale = lowering.array(f"{path}:count", np.full(width, float(count))) if kind == "sum" else negative
        whole = "global_average" if kind in ("mean", "sum") else "global_max"
        made = lowering.add(whole, f"{path}/all", (source,), (width,), finish=Finish(scale=scale), layer=layer)
        return _shaped(lowering, made, path, call.outputs[0].sample_shape, layer)

    return rule


def _shaped(lowering: Lowering, source: int, name: str, shape: Sequence[int], layer: str) -> int:
    same = lowering.plan.tensors[source].shape == as_image(tuple(shape))
    return lowering.add("identity" if same else "reshape", name, (source,), tuple(shape), layer=layer)


def _array(weight: Any) -> np.ndarray | None:
    return None if weight is None else np.asarray(weight)
