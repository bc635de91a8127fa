"""The plan in 8-bit integers in plain NumPy: what the kernels must give, bit by bit."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from deltafine.runtime.int8.byte_plan import (
    DEQUANTISE,
    FAR,
    QUANTISE,
    BytePlan,
    ByteStep,
    cap_of,
    element_thresholds,
    limit_of,
    pixel_factors,
)
from deltafine.runtime.numpy_stream import KerasCall, NumpyState, matrices, matrix_of, multiplied, patches, placed
from deltafine.runtime.plan import Delta, Operation


class ByteNumpyState(NumpyState):
    """One stream. Tensors of bytes are uint8, (height, width, channels)."""

    plan: BytePlan

    def __init__(self, plan: BytePlan, keras_call: KerasCall, weights: dict[str, np.ndarray]) -> None:
        super().__init__(plan, keras_call, weights)

    def reset(self) -> None:
        super().reset()
        for index, grid in enumerate(self.plan.grids):
            if grid is not None:
                self.values[index] = np.full(self.plan.tensors[index].shape, grid.zero).astype(np.uint8)

    def value(self, index: int) -> np.ndarray:
        grid = self.plan.grids[index]
        return super().value(index) if grid is None else grid.numbers(self.values[index])

    def _reached(self, operation: Operation) -> np.ndarray:
        if operation.kind in (QUANTISE, DEQUANTISE):
            operation = replace(operation, kind="identity")
        return super()._reached(operation)

    def _rows(self, operation: Operation, active: np.ndarray, given: np.ndarray) -> np.ndarray:
        if not self.plan.on_bytes(operation):
            return super()._rows(operation, active, given)
        grid, first = self.plan.grids[operation.output], self.values[operation.inputs[0]]
        if operation.kind == QUANTISE:
            assert grid is not None
            return grid.levels(first[active])
        if operation.kind == DEQUANTISE:
            of_input = self.plan.grids[operation.inputs[0]]
            assert of_input is not None
            return of_input.numbers(first[active])
        step = self.plan.steps[operation.output]
        sums = self._sums(operation, step, active) + step.bias
        scaled = sums.astype(np.int32).astype(np.float32) * step.factor
        if step.in_floats:
            return scaled
        levels = np.rint(scaled).astype(np.int64)
        if step.multiple is not None:
            levels = levels * step.multiple
        levels = np.clip(levels + step.zero, step.low, step.high)
        return levels.astype(np.uint8) if step.table is None else step.table[levels]

    def _sums(self, operation: Operation, step: ByteStep, active: np.ndarray) -> np.ndarray:
        """(rows, channels) int64."""
        kind, size = operation.kind, active.shape
        inputs = [self.values[index] for index in operation.inputs]
        first = inputs[0]
        zero = self.plan.grids[operation.inputs[0]].zero  # type: ignore[union-attr]
        if kind in ("conv", "depthwise"):
            taps = patches(operation, first.astype(np.int64) - zero, size)[active] + zero
            weights = self._weights[operation.name]
            if kind == "depthwise":
                return np.einsum("nhwc,hwc->nc", taps, weights[..., 0].astype(np.int64))
            # Products of doubles, all of whose sums are whole numbers below 2 ** 53.
            return multiplied(operation, taps.astype(np.float64), weights).astype(np.int64)
        if kind == "global_average":
            return np.asarray(first.sum(axis=(0, 1), dtype=np.int64))[None]
        if kind == "average_pool":
            return np.asarray(patches(operation, first, size)[active].sum(axis=(1, 2), dtype=np.int64))
        if kind == "max_pool":
            return patches(operation, first, size)[active].max(axis=(1, 2)).astype(np.int64)
        if kind == "place":
            return (placed(operation, first.astype(np.int64) - zero, size) + zero)[active]
        if kind == "reshape":
            return first.reshape(-1, self.plan.tensors[operation.output].shape[2]).astype(np.int64)
        if kind == "concatenate":
            return np.concatenate(inputs, axis=2)[active].astype(np.int64)
        if kind == "multiply":
            shape = self.plan.tensors[operation.output].shape
            parts = [value.astype(np.int64) - zero for value, zero in zip(inputs, step.zeros, strict=True)]
            return np.asarray(math.prod(np.broadcast_to(part, shape)[active] for part in parts))
        return np.asarray(
            sum(time * value[active].astype(np.int64) for time, value in zip(step.times, inputs, strict=True))
        )

    def _finished(self, operation: Operation, rows: np.ndarray, old: np.ndarray, active: np.ndarray) -> np.ndarray:
        step = self.plan.steps.get(operation.output)
        if step is None or step.in_floats:
            return super()._finished(operation, rows, old, active)
        delta = operation.finish.delta
        if delta is None or delta.rule != "send-on-delta" or self.fresh:
            return rows
        return self._sent(operation, delta, rows, old, active)

    def _sent(
        self, operation: Operation, delta: Delta, rows: np.ndarray, old: np.ndarray, active: np.ndarray
    ) -> np.ndarray:
        grid, channels = self.plan.grids[operation.output], rows.shape[1]
        assert grid is not None
        thresholds = self.plan.arrays[delta.threshold]
        thresholds = thresholds[active] if thresholds.ndim == 3 else thresholds
        change = np.abs(rows.astype(np.int64) - old)
        sensitivity = float(self._sensitivity)
        if delta.granularity == "element":
            return np.where(change >= element_thresholds(delta, thresholds, grid, sensitivity), rows, old)
        factors = pixel_factors(thresholds, grid, channels, sensitivity).astype(np.int64)
        counted = np.minimum(change * factors // FAR, cap_of(channels))
        far = np.square(counted).sum(axis=1, keepdims=True) >= limit_of(channels)
        return np.where(far, rows, old)


def byte_matrices(plan: BytePlan) -> dict[str, np.ndarray]:
    """The weights as this engine multiplies with them, by operation; to be shared by all streams."""
    on_bytes = {operation.name for operation in plan.operations if plan.on_bytes(operation)}
    others = replace(plan, operations=[one for one in plan.operations if one.name not in on_bytes])
    made = matrices(others)
    for operation in plan.operations:
        if operation.name in on_bytes and operation.weights:
            weights = plan.arrays[operation.weights]
            whole = weights if operation.kind == "depthwise" else weights.astype(np.float64)
            made[operation.name] = matrix_of(operation, whole)
    return made
