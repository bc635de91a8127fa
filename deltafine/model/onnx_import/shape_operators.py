"""Operators that move values: their shape is known when the model is made."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import keras
import numpy as np

from deltafine.model.onnx_import.conv_operators import padded
from deltafine.model.onnx_import.onnx_step import Step
from deltafine.model.onnx_import.placed import Placed, channels_last, flattened, moved, reshaped, unflattened

layers = keras.layers
_BATCH = "moves the batch, which holds the frames of a clip, or joins it with another axis."


def flatten(step: Step) -> Placed:
    x = step.tensor()
    axis = step.attribute("axis", 1) % (len(x.order) + 1)
    sizes = _sizes(step, x)
    if axis == 0 or math.prod(sizes[: axis - 1]) != 1:
        raise step.refused(_BATCH)
    return x if len(sizes) == 1 else flattened(x, step.name())


def reshape(step: Step) -> Placed:
    x, target = step.tensor(), step.whole_numbers(1)
    sizes = _sizes(step, x)
    if not target or target.count(-1) > 1 or (0 in target and step.attribute("allowzero", 0)):
        raise step.refused("makes a shape that is not known or empty.")
    given = [step.batch, *sizes]
    if any(size == 0 and place >= len(given) for place, size in enumerate(target)):
        raise step.refused("keeps an axis that is not there.")
    shape = [given[place] if size == 0 else size for place, size in enumerate(target)]
    rest = math.prod(size for size in shape if size != -1)
    shape = [math.prod(given) // max(rest, 1) if size == -1 else size for size in shape]
    if math.prod(shape) != math.prod(given) or min(shape) < 1:
        raise step.refused(f"makes {'x'.join(map(str, target))} of {'x'.join(map(str, given))}, which it cannot.")
    if shape[0] != step.batch or len(shape) == 1:
        raise step.refused(_BATCH)
    if len(shape) == 2 and len(sizes) > 1:
        return flattened(x, step.name())
    return reshaped(x, shape[1:], step.name)


def transpose(step: Step) -> Placed:
    """Nothing is moved: only what the axes are changes."""
    x = unflattened(step.tensor(), step.name)
    axes = [int(axis) for axis in step.attribute("perm") or reversed(range(len(x.order)))]
    if axes[0] != 0:
        raise step.refused(_BATCH)
    return replace(x, order=tuple(axes.index(axis) for axis in x.order))


def squeeze(step: Step) -> Placed:
    x = unflattened(step.tensor(), step.name)
    rank, given = len(x.order), step.whole_numbers(1, "axes")
    axes = [axis % rank for axis in given] if given else [axis for axis in range(1, rank) if x.shape[axis] == 1]
    if 0 in axes or any(x.shape[axis] != 1 for axis in axes):
        raise step.refused(_BATCH)
    kept = [axis for axis in x.order if axis not in axes]
    order = tuple(sorted(kept).index(axis) for axis in kept)
    return replace(x, value=_reshaped(step, x, [x.shape[axis] for axis in kept[1:]]), order=order)


def unsqueeze(step: Step) -> Placed:
    """New axes lie before the others, so that channels stay last."""
    x = unflattened(step.tensor(), step.name)
    given = step.whole_numbers(1, "axes") or []
    rank = len(x.order) + len(given)
    new = sorted(axis % rank for axis in given)
    if 0 in new:
        raise step.refused(_BATCH)
    old = [axis for axis in range(rank) if axis not in new]
    order = (0, *new, *(old[axis] for axis in x.order[1:]))
    return replace(x, value=_reshaped(step, x, [1] * len(new) + list(x.value.shape[1:])), order=order)


def concat(step: Step) -> Placed:
    tensors = [unflattened(step.tensor(place), step.name) for place in range(len(step.node.input))]
    rank = len(tensors[0].order)
    axis = step.attribute("axis") % rank
    if axis == 0:
        raise step.refused(_BATCH)
    order = channels_last(rank) if any(one.order == channels_last(rank) for one in tensors) else tensors[0].order
    tensors = [moved(one, order, step.name) for one in tensors]
    if len(tensors) == 1:
        return tensors[0]
    place = order.index(axis)
    joined = layers.Concatenate(axis=-1 if place == rank - 1 else place, name=step.name())
    return Placed(joined([one.value for one in tensors]), order, positive=all(one.positive for one in tensors))


def pad(step: Step) -> Placed:
    x, pads, fill = step.picture(), step.whole_numbers(1), step.constant(2)
    rank, mode = len(x.order), step.attribute("mode", "constant")
    axes = step.whole_numbers(3) or list(range(rank))
    if pads is None or len(pads) != 2 * len(axes) or min(pads) < 0:
        raise step.refused("cuts rows off, or does not say how many it adds.")
    number = 0.0 if fill is None else float(fill.item())
    by_axis = dict.fromkeys(range(rank), (0, 0))
    by_axis |= {axis % rank: (pads[i], pads[i + len(axes)]) for i, axis in enumerate(axes)}
    if by_axis[0] != (0, 0):
        raise step.refused(_BATCH)
    around = [by_axis[axis] for axis in x.order]
    if mode == "constant" and number == 0 and around[-1] == (0, 0) and 3 <= rank <= 5:
        return replace(x, value=padded(x.value, around[1:-1], step))
    if mode == "edge" and None not in x.value.shape[1:]:
        value = x.value
        for place, (before, behind) in enumerate(around):
            if before or behind:
                size = value.shape[place]
                rows = np.clip(np.arange(-before, size + behind), 0, size - 1).tolist()
                value = step.operation(keras.ops.take, value, rows, axis=place)
        return replace(x, value=value)
    if mode not in ("constant", "reflect"):
        raise step.refused(f"in mode {mode} has no counterpart in Keras.")
    how: dict[str, Any] = {"constant_values": number} if mode == "constant" else {"mode": "reflect"}
    value = step.operation(keras.ops.pad, x.value, tuple(around), **how)
    return replace(x, value=value, positive=x.positive and number >= 0)


def cut(step: Step) -> Placed:
    """Slice: part of some axes."""
    x = unflattened(step.tensor(), step.name)
    starts, ends = step.whole_numbers(1), step.whole_numbers(2)
    axes, steps = step.whole_numbers(3), step.whole_numbers(4)
    if starts is None or ends is None:
        raise step.refused("does not say where it begins and ends.")
    parts: dict[int, slice] = {}
    for place, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = axes[place] if axes else place
        by = steps[place] if steps else 1
        if by < 1 or axis % len(x.order) == 0:
            raise step.refused("takes a part of the batch, or goes backwards.")
        (size,) = _sizes(step, x, [axis])
        begin, end = slice(start, end).indices(size)[:2]
        parts[axis % len(x.order)] = slice(begin, end, by)
    return _part(step, x, parts)


def split(step: Step) -> list[Placed]:
    x = unflattened(step.tensor(), step.name)
    axis = step.attribute("axis", 0) % len(x.order)
    if axis == 0:
        raise step.refused(_BATCH)
    (size,) = _sizes(step, x, [axis])
    count = len(step.node.output)
    sizes = step.whole_numbers(1) or [min(-(-size // count), size - i * -(-size // count)) for i in range(count)]
    ends = np.cumsum([0, *sizes])
    return [_part(step, x, {axis: slice(int(a), int(b), 1)}) for a, b in pairwise(ends)]


def gather(step: Step) -> Placed:
    """One place of an axis."""
    x, place = unflattened(step.tensor(), step.name), step.constant(1)
    axis = step.attribute("axis", 0) % len(x.order)
    if place is None or place.ndim or axis == 0:
        raise step.refused("takes several places, or a part of the batch.")
    (size,) = _sizes(step, x, [axis])
    at = int(place) % size
    part = _part(step, x, {axis: slice(at, at + 1, 1)})
    kept = [one for one in x.order if one != axis]
    order = tuple(sorted(kept).index(one) for one in kept)
    return replace(part, value=_reshaped(step, part, [part.shape[one] for one in kept[1:]]), order=order)


def expand(step: Step) -> Placed:
    """One value for many: what sums and multiplies tensors spreads it by itself, as for the gate of an SE block."""
    x, target = unflattened(step.tensor(), step.name), step.whole_numbers(1)
    if target is None or len(target) > len(x.order):
        raise step.refused("makes more axes than there are, or a shape that is not known.")
    sizes = [1] * (len(x.order) - len(target)) + target
    if sizes[0] not in (1, step.batch):
        raise step.refused(_BATCH)
    if step.readers and set(step.readers) <= {"Add", "Sub", "Mul", "Div"}:
        return x
    for axis in range(1, len(sizes)):
        if x.shape[axis] == 1 and sizes[axis] > 1:
            x = replace(x, value=step.operation(keras.ops.repeat, x.value, sizes[axis], axis=x.place_of(axis)))
    return x


def _part(step: Step, x: Placed, parts: dict[int, slice]) -> Placed:
    where = tuple(parts.get(axis, slice(None)) for axis in x.order)
    return replace(x, value=step.operation(lambda value: value[where], x.value))


def _reshaped(step: Step, x: Placed, sizes: Sequence[int | None]) -> keras.KerasTensor:
    if None in sizes:
        _sizes(step, x)
    return x.value if list(x.value.shape[1:]) == list(sizes) else layers.Reshape(sizes, name=step.name())(x.value)


def _sizes(step: Step, x: Placed, axes: Sequence[int] | None = None) -> list[int]:
    """Sizes of axes of ONNX, or of all but the batch."""
    found = x.shape[1:] if axes is None else tuple(x.shape[axis] for axis in axes)
    known = [size for size in found if size]
    if len(known) < len(found):
        raise step.refused("needs the size of frames of any size: export the network for frames of one size.")
    return known


OPERATORS: dict[str, Callable[[Step], Any]] = {
    "Flatten": flatten, "Reshape": reshape, "Transpose": transpose, "Squeeze": squeeze, "Unsqueeze": unsqueeze,
    "Concat": concat, "Pad": pad, "Slice": cut, "Split": split, "Gather": gather,
    "Expand": expand,
}  # fmt: skip
