"""Tensors of a network in the making, and where the axes that ONNX gave them lie."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np

Namer = Callable[[str], str]
"""Gives a free layer name for what stands beside an operator, by a word for it."""


def channels_last(rank: int) -> tuple[int, ...]:
    """The order in which Keras wants the axes (batch, channels, ...) of ONNX."""
    return (0, *range(2, rank), 1) if rank > 1 else (0,)


@dataclass(frozen=True)
class Placed:
    """A tensor, and what its axes are.

    Attributes:
        value: the tensor in Keras; its first axis is that of the batch.
        order: for each of its axes, which one in ONNX it is.
        flat: of a tensor (batch, values) that was flattened as it lay: its sample shape and order before.
        positive: nothing in it is below zero.
    """

    value: keras.KerasTensor
    order: tuple[int, ...]
    flat: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    positive: bool = False

    @property
    def shape(self) -> tuple[int | None, ...]:
        """In the order of ONNX; None for the batch and for sizes that are not known."""
        return tuple(self.value.shape[self.order.index(axis)] for axis in range(len(self.order)))

    def place_of(self, axis: int) -> int:
        """Where an axis of ONNX, counted from either end, lies in Keras."""
        return self.order.index(axis % len(self.order))

    def flat_places(self) -> np.ndarray:
        """For each value of a flat sample as it lies, its place in the order of ONNX."""
        count = self.value.shape[1]
        if self.flat is None:
            return np.arange(count)
        shape, order = self.flat
        sizes = [shape[order.index(axis) - 1] for axis in range(1, len(order))]
        return np.arange(count).reshape(sizes).transpose([axis - 1 for axis in order[1:]]).ravel()


def moved(placed: Placed, order: Sequence[int], name: Namer) -> Placed:
    """The same values with their axes in another order, by layers only where values change their places."""
    placed, order = unflattened(placed, name), tuple(order)
    if placed.order == order:
        return placed
    places = [placed.order.index(axis) for axis in order]
    return replace(placed, value=_permuted(placed.value, places, name), order=order)


def plain(placed: Placed, name: Namer) -> Placed:
    """The same with the axes in the order of ONNX."""
    return moved(placed, range(len(placed.order)), name)


def unflattened(placed: Placed, name: Namer) -> Placed:
    """The same with flat values in the order of ONNX."""
    if placed.flat is None:
        return placed
    shape, order = placed.flat
    whole = keras.layers.Reshape(shape, name=name("unflat"))(placed.value)
    whole = _permuted(whole, [order.index(axis) for axis in range(len(order))], name)
    return replace(placed, value=keras.layers.Flatten(name=name("flat"))(whole), flat=None)


def flattened(placed: Placed, name: str) -> Placed:
    """(batch, values), as they lie; all sizes are known."""
    value = keras.layers.Flatten(name=name)(placed.value)
    many = [axis for axis in placed.order[1:] if placed.value.shape[placed.order.index(axis)] != 1]
    flat = None if many == sorted(many) else (tuple(placed.value.shape[1:]), placed.order)
    return Placed(value, (0, 1), flat, placed.positive)


def reshaped(placed: Placed, shape: Sequence[int], name: Namer) -> Placed:
    """The values in another shape (without the batch), in the order of ONNX; all sizes are known.

    Axes that are joined are laid side by side; others stay where they are, as the groups of channels of a shuffle do.
    """
    placed = unflattened(placed, name)
    groups = _groups([int(size or 0) for size in placed.shape[1:]], list(shape))
    if not all(old for old, _ in groups):  # new axes of size 1 have no place yet
        placed = plain(placed, name)
        return replace(placed, value=_shaped(placed.value, shape, name), order=tuple(range(len(shape) + 1)))
    groups.sort(key=lambda group: placed.order.index(group[0][0]))
    placed = moved(placed, (0, *(axis for old, _ in groups for axis in old)), name)
    order = (0, *(axis for _, new in groups for axis in new))
    return replace(placed, value=_shaped(placed.value, [shape[axis - 1] for axis in order[1:]], name), order=order)


def _groups(old: list[int], new: list[int]) -> list[tuple[list[int], list[int]]]:
    """Runs of old and new axes, counted from 1, of the same number of values each."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        first, second = [i], [j]
        i, j = i + 1, j + 1
        while math.prod(old[k] for k in first if k < len(old)) != math.prod(new[k] for k in second if k < len(new)):
            left = math.prod(old[k] for k in first if k < len(old))
            if left < math.prod(new[k] for k in second if k < len(new)) and i < len(old):
                first.append(i)
                i += 1
            else:
                second.append(j)
                j += 1
        groups.append(([k + 1 for k in first if k < len(old)], [k + 1 for k in second if k < len(new)]))
    return groups


def _shaped(value: keras.KerasTensor, shape: Sequence[int], name: Namer) -> keras.KerasTensor:
    return value if tuple(value.shape[1:]) == tuple(shape) else keras.layers.Reshape(tuple(shape), name=name(""))(value)


def _permuted(value: keras.KerasTensor, places: list[int], name: Namer) -> keras.KerasTensor:
    """Axes in another order; if only axes of size 1 change their places, no value does."""
    many = [place for place in places if value.shape[place] != 1]
    sizes = [value.shape[place] for place in places[1:]]
    if many == sorted(many) and None not in sizes:
        return keras.layers.Reshape(sizes, name=name("shape"))(value)
    return keras.layers.Permute(places[1:], name=name("order"))(value)
