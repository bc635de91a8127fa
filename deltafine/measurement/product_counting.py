"""Counting in products of two tensors that both flow through the network, such as the scores of attention.

A multiply-accumulate is effective for deltas if either of its two factors has changed, and spatially if neither is 0.
For every combination of the axes that both tensors share, each factor of one meets all of the other's; so it is enough
to count, for each such combination, how many factors have changed on either side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from deltafine.layers import current_stream
from deltafine.model.tensor_products import Product


class Pair:
    """The two tensors of a product; takes a slot of the active stream for the last frame of each that is no constant.

    Args:
        product: what meets what.
        values: the two tensors, (batch, steps of time, ...); a constant (...).
    """

    def __init__(self, product: Product, values: list[tf.Tensor]) -> None:
        stream = current_stream()
        assert stream is not None
        self._product, self._values = product, values
        self._before: list[tf.Tensor | None] = [None] * len(values)
        self.elements = self.positions = 0
        for place, (value, constant) in enumerate(zip(values, product.constant, strict=True)):
            if constant:
                continue
            slot = stream.slot()
            self._before[place] = slot.start
            slot.end = value[:, -1]
            self.elements += math.prod(value.shape[2:])
            self.positions += math.prod(value.shape[2:-1])

    def count(self, *, in_graph: bool) -> list[tf.Tensor]:
        """As ``counting.count``, of both tensors together and with one fan-out; always outside of the graph."""
        followed = [place for place, before in enumerate(self._before) if before is not None]
        inputs = [*self._values, *(self._before[place] for place in followed)]
        inputs = [tf.cast(value, tf.float32) if value.dtype.is_floating else value for value in inputs]

        def counted(*arrays: np.ndarray) -> np.ndarray:
            values, given = arrays[: len(self._values)], arrays[len(self._values) :]
            before = dict(zip(followed, given, strict=True))
            return count(self._product, values, [before.get(place) for place in range(len(values))])

        return [tf.numpy_function(counted, inputs, tf.int64, stateful=False)]


def count(product: Product, values: Sequence[np.ndarray], before: Sequence[np.ndarray | None]) -> np.ndarray:
    """Integers (rows, batch, time) as ``counting.count`` gives them.

    Args:
        product: what meets what.
        values: (batch, time, ...) of the first and the second tensor; a constant (...).
        before: where a video goes on, the frame (batch, ...) before the first one of each; None of a constant.
    """
    sides = [
        _Constant(value) if constant else _Side(value, last)
        for value, last, constant in zip(values, before, product.constant, strict=True)
    ]
    flowing = [side for side in sides if isinstance(side, _Side)]
    lead = flowing[0].changed.shape[:2]
    nonzero = [_by_label(product, place, side.nonzero) for place, side in enumerate(sides)]
    changed = [_by_label(product, place, side.changed) for place, side in enumerate(sides)]
    first, second = _size_alone(product, 0), _size_alone(product, 1)
    spatial = (nonzero[0] * nonzero[1]).sum(axis=-1)
    delta = (first * second - (first - changed[0]) * (second - changed[1])).sum(axis=-1)
    ternary = sides[0].ternary & sides[1].ternary
    ternary_before = np.concatenate([sides[0].ternary_before & sides[1].ternary_before, ternary[:, :-1]], axis=1)
    rows: list[np.ndarray | int] = [
        sum(_sums(side.nonzero) for side in flowing),
        sum(_sums(side.changed) for side in flowing),
        sum(_sums(np.asarray(side.changed.any(axis=-1))) for side in flowing),
        ternary,
        ternary & ternary_before,
        spatial,
        delta,
    ]
    return np.stack([np.broadcast_to(row, lead).astype(np.int64) for row in rows])


class _Side:
    """Masks (batch, time, ...) of a tensor."""

    def __init__(self, values: np.ndarray, before: np.ndarray | None) -> None:
        self.nonzero = values != 0
        self.changed = np.zeros(values.shape, bool)
        self.changed[:, 1:] = values[:, 1:] != values[:, :-1]
        self.ternary = _are_ternary(values)
        self.ternary_before = np.zeros((len(values), 1), bool)
        if before is not None:
            self.changed[:, 0] = values[:, 0] != before
            self.ternary_before = _are_ternary(before[:, None])


class _Constant:
    """The same of what never changes, with a batch and a time of 1."""

    def __init__(self, values: np.ndarray) -> None:
        self.nonzero = (values != 0)[None, None]
        self.changed = np.zeros_like(self.nonzero)
        self.ternary = _are_ternary(values[None, None])
        self.ternary_before = self.ternary


def _sums(mask: np.ndarray) -> np.ndarray:
    """(batch, time)."""
    return np.asarray(mask.reshape(*mask.shape[:2], -1).sum(axis=-1, dtype=np.int64))


def _are_ternary(values: np.ndarray) -> np.ndarray:
    """(batch, time) bool: whether all values of a frame are -1, 0 or 1."""
    flat = values.reshape(*values.shape[:2], -1)
    return np.asarray(((flat == 0) | (np.abs(flat) == 1)).all(axis=-1))


def _shared(product: Product) -> list[str]:
    return [name for name in product.labels[0] if name in product.labels[1]]


def _size_alone(product: Product, place: int) -> int:
    """How many factors of one tensor meet each of the other's."""
    return math.prod(product.sizes[name] for name in product.labels[place] if name not in product.labels[1 - place])


def _by_label(product: Product, place: int, mask: np.ndarray) -> np.ndarray:
    """(batch, time, combinations of shared labels): how many factors are marked."""
    own, shared = product.labels[place], _shared(product)
    alone = tuple(2 + axis for axis, name in enumerate(own) if name not in shared)
    counts = mask.sum(axis=alone, dtype=np.int64) if alone else mask.astype(np.int64)
    left = [name for name in own if name in shared]
    counts = counts.transpose(0, 1, *(2 + left.index(name) for name in shared))
    return counts.reshape(*counts.shape[:2], -1)
