"""Plays a plan in whole numbers, frame by frame: the reference for whoever writes firmware."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

import numpy as np

from deltafine.exporting.fixed_numbers import divided, limited, shifted
from deltafine.exporting.fixed_operations import FACTOR_BITS, RELATIVE_BITS
from deltafine.storage.files import JsonObject

_COMBINED = {"add": np.add, "subtract": np.subtract, "multiply": np.multiply, "maximum": np.maximum,
             "minimum": np.minimum, "average": np.add}  # fmt: skip
_MOST_RELATIVE = 2**16 - 1


class FixedPlayer:
    """One stream. All arithmetic is in int64, which nothing here needs: the file's widths hold by its making.

    Attributes:
        values: by tensor, (height, width, channels) int64, of the last frame.
        events: by delta layer, of the last frame.
    """

    def __init__(self, document: JsonObject, arrays: Mapping[str, np.ndarray]) -> None:
        self._document = document
        self._arrays = {name: array.astype(np.int64) for name, array in arrays.items()}
        self._shapes = [tuple(tensor["shape"]) for tensor in document["tensors"]]
        self.reset()

    def reset(self) -> None:
        """The next frame is a first frame."""
        self.values: dict[int, np.ndarray] = {}
        self.events: dict[str, int] = {}

    def step(self, frame: np.ndarray) -> None:
        """Advance by a frame of whole numbers (height, width, channels)."""
        before, self.values, self.events = self.values, {}, {}
        for operation in self._document["operations"]:
            index = operation["output"]
            x = self._value(operation, frame)
            old = before.get(index)
            y = x if operation["delta"] is None else self._sent(operation["delta"], x, old)
            self.values[index] = y
            if operation["delta"] is not None:
                differs = np.ones(y.shape, bool) if old is None else y != old
                if operation["delta"]["granularity"] == "pixel":
                    differs = differs.any(axis=-1)
                self.events[operation["delta"]["name"]] = int(differs.sum())

    def _value(self, operation: JsonObject, frame: np.ndarray) -> np.ndarray:
        x = self._raw(operation, frame)
        if operation["multiplier"]:
            x = x * self._arrays[operation["multiplier"]]
        if operation["bias"]:
            x = x + self._arrays[operation["bias"]]
        x = limited(shifted(x, self._arrays[operation["right"]]))
        return np.clip(x, operation["low"], operation["high"]) if operation["low"] is not None else x

    def _raw(self, operation: JsonObject, frame: np.ndarray) -> np.ndarray:
        kind, shape = operation["kind"], self._shapes[operation["output"]]
        if kind == "input":
            return frame.astype(np.int64).reshape(shape)
        inputs = [self.values[index] for index in operation["inputs"]]
        first = inputs[0]
        if kind == "conv":
            return convolved(_taps(operation, first, shape), self._arrays[operation["weights"]], operation["groups"])
        if kind == "depthwise":
            weights = self._arrays[operation["weights"]]
            by_output = weights.reshape(*weights.shape[:2], 1, -1)
            return convolved(_taps(operation, first, shape), by_output, weights.shape[2])
        if kind == "max_pool":
            return np.asarray(_taps(operation, first, shape, -(2**15)).max(axis=(2, 3)))
        if kind == "average_pool":
            inside = _taps(operation, np.ones_like(first), shape).sum(axis=(2, 3))
            return divided(_taps(operation, first, shape).sum(axis=(2, 3)), inside)
        if kind == "global_average":
            return divided(first.sum(axis=(0, 1), keepdims=True), first.shape[0] * first.shape[1])
        if kind == "global_max":
            return np.asarray(first.max(axis=(0, 1), keepdims=True))
        if kind == "place":
            return _placed(operation, first, shape)
        if kind in ("identity", "reshape"):
            return first.reshape(shape)
        moved = [shifted(x, right) for x, right in zip(inputs, operation["align"] or [0] * len(inputs), strict=True)]
        if kind == "concatenate":
            return np.concatenate([np.broadcast_to(x, (*shape[:2], x.shape[2])) for x in moved], axis=-1)
        together = np.broadcast_to(reduce(_COMBINED[kind], moved), shape)
        return divided(together, len(moved)) if kind == "average" else together

    def _sent(self, delta: JsonObject, x: np.ndarray, before: np.ndarray | None) -> np.ndarray:
        threshold = self._arrays[delta["threshold"]]
        if delta["rule"] in ("quantize", "paper"):
            return limited(divided(x, threshold) * threshold)
        if delta["rule"] in ("identity", "l1") or before is None:
            return x
        change = np.abs(x - before)
        if delta["granularity"] == "element":
            return np.where(change >= threshold, x, before)
        relative = np.right_shift(change * self._arrays[delta["factor"]], FACTOR_BITS - RELATIVE_BITS)
        squares = np.square(np.minimum(relative, _MOST_RELATIVE)).sum(axis=-1, keepdims=True)
        return np.where(squares >= x.shape[-1] << 2 * RELATIVE_BITS, x, before)


def _taps(operation: JsonObject, x: np.ndarray, shape: tuple[Any, ...], outside: int = 0) -> np.ndarray:
    sides = {name: operation[name] for name in ("kernel", "strides", "padding", "dilation")}
    return taps(x, shape, outside=outside, **sides)


def taps(
    x: np.ndarray,
    shape: tuple[Any, ...],
    *,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...] = (1, 1),
    outside: int = 0,
) -> np.ndarray:
    """(height, width, kernel height, kernel width, channels): what each output position reads.

    Args:
        x: (height, width, channels).
        shape: of the output; its first two axes count.
        kernel, strides, padding, dilation: (height, width); the padding is that in front.
        outside: what is read outside of ``x``.
    """
    places, inside = [], []
    for axis in (0, 1):
        starts = np.arange(shape[axis])[:, None] * strides[axis] - padding[axis]
        at = starts + np.arange(kernel[axis]) * dilation[axis]
        inside.append((at >= 0) & (at < x.shape[axis]))
        places.append(at.clip(0, x.shape[axis] - 1))
    read = x[places[0][:, None, :, None], places[1][None, :, None, :]]
    valid = inside[0][:, None, :, None] & inside[1][None, :, None, :]
    return np.where(valid[..., None], read, outside)


def convolved(read: np.ndarray, weights: np.ndarray, groups: int) -> np.ndarray:
    """(height, width, output channels) of what each position reads, see ``taps``.

    Args:
        read: (height, width, kernel height, kernel width, channels).
        weights: (kernel height, kernel width, channels / groups, output channels).
        groups: of the convolution.
    """
    if groups == 1:
        return np.tensordot(read, weights, ([2, 3, 4], [0, 1, 2]))
    height, width, kernel, channels = read.shape[0], read.shape[1], weights.shape[:2], read.shape[4] // groups
    grouped = read.reshape(height, width, *kernel, groups, channels)
    by_group = weights.reshape(*kernel, channels, groups, -1)
    return np.einsum("hwklgc,klcgo->hwgo", grouped, by_group, optimize=True).reshape(height, width, -1)


def _placed(operation: JsonObject, x: np.ndarray, shape: tuple[Any, ...]) -> np.ndarray:
    (top, left), (tall, wide) = operation["padding"], operation["strides"]
    x = x.repeat(tall, axis=0).repeat(wide, axis=1)[max(-top, 0) :, max(-left, 0) :]
    result = np.zeros(shape, np.int64)
    piece = x[: shape[0] - max(top, 0), : shape[1] - max(left, 0)]
    result[max(top, 0) : max(top, 0) + piece.shape[0], max(left, 0) : max(left, 0) + piece.shape[1]] = piece
    return result
