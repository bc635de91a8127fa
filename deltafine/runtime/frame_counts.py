"""What one frame took: exact integers for each operation of a plan."""

from __future__ import annotations

import math

import numpy as np

from deltafine.runtime.plan import MACS, UNKNOWN, WHOLE, Operation, Plan

COLUMNS = 5


class FrameCounts:
    """Counts of one frame, or sums of several; int64 arrays with an entry per operation of the plan.

    Args:
        plan: what is counted in.
        table: (operations, COLUMNS) int64, the attributes in this order; default: zeros.

    Attributes:
        rows: positions that were computed again.
        changed_rows: positions whose values changed.
        changed_elements: values that changed.
        effective_macs: changed input elements, each times the weights that it meets: the effective MACs of the report.
            Of a layer that the report names as not measured, all MACs of each frame in which its input changed.
        event_macs: multiply-accumulates carried out for single events.
    """

    def __init__(self, plan: Plan, table: np.ndarray | None = None) -> None:
        self.plan = plan
        table = np.zeros((len(plan.operations), COLUMNS), np.int64) if table is None else table
        self.arrays = (table,)
        self.rows, self.changed_rows, self.changed_elements, self.effective_macs, self.event_macs = table.T

    @property
    def executed_macs(self) -> np.ndarray:
        """Multiply-accumulates carried out: of whole rows, padding included, of single events, and all of Keras
        and of attention."""
        return self.rows * macs_per_row(self.plan) + self.event_macs + self._of_whole()

    @property
    def needed_macs(self) -> np.ndarray:
        """``effective_macs``, but all MACs of a layer left to Keras whenever it ran, since Keras knows no other way."""
        of_keras = [operation.kind == UNKNOWN for operation in self.plan.operations]
        return np.where(of_keras, self._of_whole(), self.effective_macs)

    def _of_whole(self) -> np.ndarray:
        macs = np.zeros(len(self.plan.operations), np.int64)
        for place, operation in enumerate(self.plan.operations):
            if operation.kind in WHOLE:
                height, width, _ = self.plan.tensors[operation.output].shape
                macs[place] = self.rows[place] // (height * width) * (operation.dense_macs or 0)
        return macs

    def total(self, name: str) -> int:
        """Sum of one kind of count over all operations."""
        return int(getattr(self, name).sum())

    def events(self) -> dict[str, tuple[int, int]]:
        """By delta layer: (values sent, all values); positions where the granularity is the pixel."""
        found = {}
        for place, operation in enumerate(self.plan.operations):
            delta = operation.finish.delta
            if delta is not None:
                height, width, channels = self.plan.tensors[operation.output].shape
                pixel = delta.granularity == "pixel"
                sent = self.changed_rows[place] if pixel else self.changed_elements[place]
                found[delta.name] = (int(sent), height * width * (1 if pixel else channels))
        return found


def macs_per_row(plan: Plan) -> np.ndarray:
    """Multiply-accumulates of one output row, padding included; 0 for other operations."""
    return np.array([_macs_per_row(plan, operation) for operation in plan.operations], np.int64)


def _macs_per_row(plan: Plan, operation: Operation) -> int:
    return math.prod(plan.arrays[operation.weights].shape) if operation.kind in MACS else 0
