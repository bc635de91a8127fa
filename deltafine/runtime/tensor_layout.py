"""Where tensors stand in memory: one behind the other, with the zeros around them that sliding kernels read."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deltafine.runtime.plan import Operation, Plan


def round_up(value: int, multiple: int) -> int:
    return -(-int(value) // multiple) * multiple


def zeros_around(plan: Plan, pads: Callable[[Operation], bool]) -> np.ndarray:
    """int64 (tensors, 4): zeros above, left, below and right of each tensor that the operations which ``pads`` need."""
    around = np.zeros((len(plan.tensors), 4), np.int64)
    for operation in filter(pads, plan.operations):
        source = operation.inputs[0]
        around[source] = np.maximum(around[source], _needed(plan, operation))
    return around


def _needed(plan: Plan, operation: Operation) -> list[int]:
    source, target = plan.tensors[operation.inputs[0]].shape, plan.tensors[operation.output].shape
    behind = []
    for axis in (0, 1):
        span = (operation.kernel[axis] - 1) * operation.dilation[axis] + 1
        last = (target[axis] - 1) * operation.strides[axis] + span
        behind.append(max(last - operation.padding[axis] - source[axis], 0))
    return [*operation.padding, *behind]


class Room:
    """An array that tensors are given places in.

    The zeros behind a line are also those in front of the next one, and ``shared``, those behind a tensor are also
    those in front of the next.

    Args:
        unit: first values stand at multiples of it.
        shared: whether the zeros around all tensors are the same.

    Attributes:
        size: values that it takes, the zeros behind the last tensor included.
    """

    def __init__(self, unit: int, *, shared: bool) -> None:
        self._unit, self._shared = unit, shared
        self._end = self.size = 0

    def place(self, shape: tuple[int, int, int], around: np.ndarray) -> tuple[int, int, slice]:
        """Give a tensor a place: where its first value stands, values per line, and all with the zeros around it."""
        height, width, channels = shape
        top, left, bottom, right = (int(side) for side in around)
        pitch = (width + max(left, right)) * channels
        before, behind = top * pitch + left * channels, bottom * pitch + right * channels
        begin = self._end if self._shared else self.size
        origin = round_up(max(begin + before, self.size), self._unit)
        self._end = origin + (height - 1) * pitch + width * channels
        self.size = self._end + behind
        return origin, pitch, slice(origin - before, self.size)
