"""How small and how large the values of each tensor become, on frames that show it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np

from deltafine.runtime.plan import Plan


class _Stream(Protocol):
    """What runs in floating point: a stream or its state."""

    def step(self, frame: np.ndarray) -> object: ...

    def value(self, index: int) -> np.ndarray: ...


def value_ranges(plan: Plan, state: _Stream, frames: Iterable[np.ndarray]) -> np.ndarray:
    """The least and the largest value of each tensor of a plan.

    Args:
        plan: what is computed.
        state: a stream of it, which goes on from where it is.
        frames: as it takes them.

    Returns:
        (tensors, 2) float64; of no frames, zeros. 0 always lies within.
    """
    ranges = np.zeros((len(plan.tensors), 2))
    for frame in frames:
        state.step(frame)
        for index in range(len(plan.tensors)):
            value = state.value(index)
            ranges[index] = min(ranges[index, 0], float(value.min())), max(ranges[index, 1], float(value.max()))
    return ranges


def of_bytes(plan: Plan, ranges: np.ndarray) -> np.ndarray:
    """The same, where frames are bytes: of the input, also in other units, all that there can be."""
    ranges = ranges.copy()
    known: dict[int, Callable[[float], np.ndarray]] = {}
    for operation in plan.operations[:2]:
        if operation.kind not in ("input", "identity") or operation.finish.activation != "linear":
            break
        if operation.kind == "identity" and operation.inputs[0] not in known:
            break
        before = known[operation.inputs[0]] if operation.inputs else np.asarray
        scale, shift = (
            plan.arrays[name].astype(np.float64) if name else np.float64(default)
            for name, default in ((operation.finish.scale, 1), (operation.finish.shift, 0))
        )
        known[operation.output] = lambda x, before=before, scale=scale, shift=shift: before(x) * scale + shift  # type: ignore[misc]
        ends = np.concatenate([known[operation.output](end).ravel() for end in (0.0, 255.0)])
        ranges[operation.output] = min(ends.min(), 0), max(ends.max(), 0)
    return ranges
