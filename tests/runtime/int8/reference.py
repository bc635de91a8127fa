"""A plan in 8-bit integers played by the letter of docs/runtime.md: whole frames, whole numbers, loops over positions.

It shares nothing with the engines but what it is handed: the operations, their arrays, and how bytes stand for numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from deltafine.runtime.int8.byte_plan import BytePlan, ByteStep
from deltafine.runtime.plan import Operation


class Reference:
    """One stream of a plan of which all but the ends are bytes. ``values``: by tensor, (height, width, channels)."""

    def __init__(self, plan: BytePlan) -> None:
        self.plan = plan
        self.values: dict[int, np.ndarray] = {}

    def step(self, frame: np.ndarray) -> None:
        before, self.values = self.values, {}
        for operation in self.plan.operations:
            x = self._value(operation, frame)
            if operation.finish.delta is not None and operation.output in before:
                x = self._held(operation, x, before[operation.output])
            self.values[operation.output] = x

    def _value(self, operation: Operation, frame: np.ndarray) -> np.ndarray:
        plan, target = self.plan, self.plan.tensors[operation.output].shape
        if operation.kind == "input":
            scale = plan.arrays[operation.finish.scale] if operation.finish.scale else np.float32(1)
            shift = plan.arrays[operation.finish.shift] if operation.finish.shift else np.float32(0)
            return frame.astype(np.float32) * scale + shift
        inputs = [self.values[index] for index in operation.inputs]
        grid: Any = plan.grids[operation.output]
        if operation.kind == "quantise":
            near = np.rint(inputs[0] * np.float32(1 / grid.scale)).astype(np.int64) + grid.zero
            return near.clip(0, 255)
        if operation.kind == "dequantise":
            of_input: Any = plan.grids[operation.inputs[0]]
            return (inputs[0] - of_input.zero).astype(np.float32) * np.asarray(of_input.scale, np.float32)
        if operation.kind == "place":
            made = np.zeros(target, np.int64) + grid.zero
            (top, left), (height, width, _) = operation.padding, inputs[0].shape
            made[top : top + height, left : left + width] = inputs[0]
            return made
        if operation.kind == "reshape":
            return inputs[0].reshape(target)
        if operation.kind == "concatenate":
            return np.concatenate(inputs, axis=2)
        step = plan.steps[operation.output]
        sums = np.zeros(target, np.int64)
        for y in range(target[0]):
            for x in range(target[1]):
                sums[y, x] = self._sum(operation, step, inputs, y, x)
        assert np.abs(sums).max() < 2**31
        sums = sums + step.bias.astype(np.int64)
        assert np.abs(sums).max() < 2**31
        scaled = sums.astype(np.float32) * step.factor
        if step.in_floats:
            shift = plan.arrays[operation.finish.shift] if operation.finish.shift else np.float32(0)
            assert operation.finish.activation == "linear"
            return scaled + shift
        whole = np.array([[[round(float(one)) for one in row] for row in line] for line in scaled])  # halves to even
        multiple = 1 if step.multiple is None else step.multiple.astype(np.int64)
        levels = (whole * multiple + step.zero).clip(step.low, step.high)
        return levels if step.table is None else step.table[levels].astype(np.int64)

    def _sum(self, operation: Operation, step: ByteStep, inputs: list[np.ndarray], y: int, x: int) -> np.ndarray:
        kind, first = operation.kind, inputs[0]
        if kind == "global_average":
            return np.asarray(first.sum(axis=(0, 1)))
        if kind == "multiply":
            product = np.ones(first.shape[2], np.int64)
            for value, less in zip(inputs, step.zeros, strict=True):
                product = product * (value[min(y, value.shape[0] - 1), min(x, value.shape[1] - 1)] - less)
            return product
        if kind not in ("conv", "depthwise", "max_pool", "average_pool"):
            return np.asarray(sum(time * value[y, x] for time, value in zip(step.times, inputs, strict=True)))
        zero = 0 if kind == "max_pool" else self.plan.grids[operation.inputs[0]].zero  # type: ignore[union-attr]
        read = []
        for tap_y in range(operation.kernel[0]):
            for tap_x in range(operation.kernel[1]):
                at_y = y * operation.strides[0] - operation.padding[0] + tap_y * operation.dilation[0]
                at_x = x * operation.strides[1] - operation.padding[1] + tap_x * operation.dilation[1]
                inside = 0 <= at_y < first.shape[0] and 0 <= at_x < first.shape[1]
                read.append(first[at_y, at_x] if inside else np.broadcast_to(zero, first.shape[2]))
        taps = np.array(read, np.int64)  # (taps, channels)
        if kind == "max_pool":
            return np.asarray(taps.max(axis=0))
        if kind == "average_pool":
            return np.asarray(taps.sum(axis=0))
        weights = self.plan.arrays[operation.weights].astype(np.int64)
        if kind == "depthwise":
            return np.asarray((taps * weights.reshape(taps.shape)).sum(axis=0))
        weights = weights.reshape(len(taps), -1, weights.shape[3])  # (taps, inputs of a group, outputs)
        own, each = weights.shape[2] // operation.groups, weights.shape[1]
        sums = np.zeros(weights.shape[2], np.int64)
        for output in range(len(sums)):
            begin = output // own * each  # of the inputs of its group
            sums[output] = (taps[:, begin : begin + each] * weights[:, :, output]).sum()
        return sums

    def _held(self, operation: Operation, x: np.ndarray, before: np.ndarray) -> np.ndarray:
        delta: Any = operation.finish.delta
        if delta.rule != "send-on-delta":
            return x
        grid: Any = self.plan.grids[operation.output]
        thresholds = self.plan.arrays[delta.threshold].astype(np.float64)
        change, channels = np.abs(x - before), x.shape[2]
        if delta.granularity == "element":
            levels = np.rint(thresholds / grid.scale).clip(1, 255)
            return np.where(change >= levels, x, before)
        unit = max(one for one in (1, 2, 4, 8, 16, 32, 64) if one == 1 or one * channels <= 46340)
        factors = np.rint(256 * unit * grid.scale / thresholds).clip(0, 65535).astype(np.int64)
        counted = (change * factors // 256).clip(max=int(np.ceil(unit * np.sqrt(channels))))
        far = (counted**2).sum(axis=2, keepdims=True) >= channels * unit**2
        return np.where(far, x, before)
