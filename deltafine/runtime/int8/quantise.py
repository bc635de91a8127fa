"""From a plan in floating point, and the ranges of its values, to one in 8-bit integers.

Convolutions and dense layers multiply bytes. So do layers that add up, average or move what are bytes already. What
cannot be done on bytes is done in floating point: a whole layer, or what stands behind the sums of one.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from deltafine.runtime.activation_functions import NO_LIMIT
from deltafine.runtime.int8.byte_plan import DEQUANTISE, MOST, QUANTISE, BytePlan, ByteStep, Grid
from deltafine.runtime.int8.weights import runs_of, whole_weights
from deltafine.runtime.plan import MACS, Finish, Operation, Plan, Tensor

_SUMS = ("add", "subtract", "average", "identity")
_SAME_GRID = ("max_pool", "place", "reshape")
_ROOM = 2.0**30
"""Sums, and what they are multiplied to, stay below it."""
_LARGEST_BIAS = 2.0**29
_DIGITS = 16
"""Of what inputs are multiplied with before they are added up."""
_QUANTISING = ("quantize", "paper")


def grid_of(low: float, high: float, least: float = 0.0) -> Grid:
    """Levels from ``low`` to ``high``, of which one is 0, and which are at least so far apart."""
    low, high = min(low, 0.0), max(high, 0.0)
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return Grid(float(np.float32(max(least, 1.0))), 0)
    zero = round(-low / span * MOST)
    needed = max(high / (MOST - zero) if zero < MOST else 0.0, -low / zero if zero else 0.0)
    return Grid(float(np.float32(max(needed, least, 1e-30))), zero)


def in_bytes(plan: Plan, ranges: np.ndarray) -> BytePlan:
    """The plan in 8-bit integers.

    Args:
        plan: in floating point.
        ranges: of its tensors, see ``deltafine.runtime.value_ranges``.
    """
    making = _Making(plan, ranges)
    for operation in plan.operations:
        making.add(operation)
    outputs = tuple(making.floats(index) for index in plan.outputs)
    made = making.made
    used = {name for one in made for name in (one.weights, one.table, one.fan, one.finish.scale, one.finish.shift)}
    used |= {one.finish.delta.threshold for one in made if one.finish.delta is not None}
    return BytePlan(
        plan.name, making.tensors, made, outputs,
        {name: array for name, array in making.arrays.items() if name in used},
        plan.structure, own_rules=plan.own_rules, grids=making.grids, steps=making.steps,
    )  # fmt: skip


class _Making:
    """Operations one by one; each tensor of the given plan is one of bytes, of floating point, or both."""

    def __init__(self, plan: Plan, ranges: np.ndarray) -> None:
        self._plan, self._ranges = plan, ranges
        self.tensors: list[Tensor] = []
        self.grids: list[Grid | None] = []
        self.made: list[Operation] = []
        self.steps: dict[int, ByteStep] = {}
        self.arrays = dict(plan.arrays)
        self._bytes: dict[int, int] = {}
        self._floats: dict[int, int] = {}

    def floats(self, index: int) -> int:
        """A tensor in floating point."""
        if index not in self._floats:
            source = self._bytes[index]
            name = self._plan.tensors[index].name
            self._floats[index] = self._tensor(index, None, "float32")
            self.made.append(Operation(DEQUANTISE, f"{name}:float32", (source,), self._floats[index]))
            self.steps[self._floats[index]] = _NOTHING
        return self._floats[index]

    def bytes(self, index: int) -> int:
        """A tensor in bytes."""
        if index not in self._bytes:
            source, name = self._floats[index], self._plan.tensors[index].name
            self._bytes[index] = self._tensor(index, grid_of(*self._ranges[index]), "int8")
            self.made.append(Operation(QUANTISE, f"{name}:int8", (source,), self._bytes[index]))
            self.steps[self._bytes[index]] = _NOTHING
        return self._bytes[index]

    def add(self, operation: Operation) -> None:
        """Append what an operation is here."""
        if operation.kind in MACS and self._multiplies(operation):
            return
        if all(index in self._bytes for index in operation.inputs) and operation.inputs and self._adds(operation):
            return
        inputs = tuple(self.floats(index) for index in operation.inputs)
        self._floats[operation.output] = self._append(operation, inputs, None)

    def _tensor(self, index: int, grid: Grid | None, suffix: str = "") -> int:
        tensor = self._plan.tensors[index]
        self.tensors.append(replace(tensor, name=f"{tensor.name}:{suffix}") if suffix else tensor)
        self.grids.append(grid)
        return len(self.tensors) - 1

    def _append(self, operation: Operation, inputs: tuple[int, ...], grid: Grid | None) -> int:
        index = self._tensor(operation.output, grid)
        self.made.append(replace(operation, inputs=inputs, output=index))
        return index

    def _grid(self, operation: Operation) -> tuple[Grid, np.ndarray | None]:
        """How the output of an operation is held, and of which levels it is multiples by its rule."""
        delta, (low, high) = operation.finish.delta, self._ranges[operation.output]
        if delta is None or delta.rule not in _QUANTISING:
            return grid_of(low, high), None
        thresholds = self._plan.arrays[delta.threshold].astype(np.float64)
        grid = grid_of(low, high, least=float(thresholds.min()))
        multiple = np.broadcast_to(np.maximum(np.rint(thresholds / grid.scale), 1), self._channels(operation))
        multiple = np.minimum(multiple, MOST).astype(np.int32)
        return grid, multiple if (multiple > 1).any() else None

    def _channels(self, operation: Operation) -> int:
        return self._plan.tensors[operation.output].shape[2]

    def _is_on_bytes(self, operation: Operation) -> bool:
        """Whether what stands behind the sums can be done on bytes, and the output has to be none of the model's."""
        finish = operation.finish
        slope, _, start = finish.parameters if finish.activation == "relu" else (0.0, 0.0, 0.0)
        plain = finish.activation == "linear" or (finish.activation == "relu" and not slope and not start)
        by_neuron = finish.delta is not None and self._plan.arrays[finish.delta.threshold].ndim == 3
        known = not (by_neuron and finish.delta is not None and finish.delta.rule in _QUANTISING)
        return plain and known and self._plan.own_rule(operation) is None and operation.output not in self._plan.outputs

    def _of(self, name: str, default: float, channels: int) -> np.ndarray:
        values = self._plan.arrays[name].astype(np.float64) if name else np.float64(default)
        return np.broadcast_to(values, (channels,)).astype(np.float64)

    def _limits(self, finish: Finish, grid: Grid) -> tuple[int, int]:
        if finish.activation != "relu":
            return 0, MOST
        most = finish.parameters[1]
        high = MOST if most >= NO_LIMIT else min(round(most / grid.scale) + grid.zero, MOST)
        return grid.zero, max(high, grid.zero)

    def _step(
        self, operation: Operation, grid: Grid, multiple: np.ndarray | None, factor: np.ndarray, shift: np.ndarray,
        less: np.ndarray, most: np.ndarray, times: tuple[int, ...] = (),
    ) -> ByteStep | None:  # fmt: skip
        """What is done with sums; None where they might not fit.

        Args:
            factor: (channels,), of sums, to numbers.
            shift: (channels,), added in numbers.
            less: (channels,), what sums are too large by, as the levels of 0 were added up too.
            most: (channels,), how large sums may become.
        """
        with np.errstate(all="ignore"):
            added = np.rint(shift / factor)
        to_levels = factor / grid.scale / (1 if multiple is None else multiple)
        biggest = most + np.abs(added) + np.abs(less)
        fits = (np.abs(added) <= _LARGEST_BIAS) & (biggest < _ROOM) & (biggest * np.abs(to_levels) < _ROOM)
        if not fits.all():
            return None
        low, high = self._limits(operation.finish, grid)
        bias = (added - less).astype(np.int32)
        return ByteStep(bias, to_levels.astype(np.float32), low, high, grid.zero, multiple, times)

    def _multiplies(self, operation: Operation) -> bool:
        """Append a convolution or a dense layer, if it can be done on bytes."""
        weights = self._plan.arrays[operation.weights]
        each, outputs = weights.shape[2:]
        channels = self._channels(operation)
        alone = outputs == 1 if operation.kind == "depthwise" else operation.groups == 1
        if not alone or self._plan.own_rule(operation) is not None or operation.finish.scale:
            return False
        source = self._bytes.get(operation.inputs[0])
        given = self.grids[source] if source is not None else grid_of(*self._ranges[operation.inputs[0]])
        assert given is not None
        flat = weights.reshape(-1, channels)
        runs = 1 if operation.kind == "depthwise" else runs_of(operation, each)[0]
        shift = self._of(operation.finish.shift, 0.0, channels)
        whole, scale = whole_weights(flat, runs, np.abs(shift) / (given.scale * _LARGEST_BIAS))
        factor = scale * given.scale
        less, most = whole.sum(axis=0, dtype=np.int64) * given.zero, MOST * np.abs(whole.astype(np.int64)).sum(axis=0)
        if (most + np.abs(less) >= _ROOM).any():
            return False
        grid, multiple = self._grid(operation)
        step = None
        if self._is_on_bytes(operation):
            step = self._step(operation, grid, multiple, factor, shift, less.astype(float), most.astype(float))
        index = self._append(operation, (self.bytes(operation.inputs[0]),), None if step is None else grid)
        self.arrays[operation.weights] = whole.reshape(weights.shape)
        if step is None:
            self._floats[operation.output] = index
            self.steps[index] = ByteStep((-less).astype(np.int32), factor.astype(np.float32), in_floats=True)
        else:
            self._bytes[operation.output] = index
            self.steps[index] = step
            self._finish_of(operation, index)
        return True

    def _finish_of(self, operation: Operation, index: int) -> None:
        """Of the finish of an operation on bytes, only the rule is left; the rest is in its step."""
        self.made[-1] = replace(self.made[-1], finish=Finish(delta=operation.finish.delta))

    def _adds(self, operation: Operation) -> bool:
        """Append an operation that adds up, averages or moves bytes, if it can be done on them."""
        kind, channels = operation.kind, self._channels(operation)
        shapes = [self._plan.tensors[index].shape for index in operation.inputs]
        target = self._plan.tensors[operation.output].shape
        given = [self.grids[self._bytes[index]] for index in operation.inputs]
        first = given[0]
        assert first is not None
        if not self._is_on_bytes(operation) or not self._can_add(operation, shapes, target, first):
            return False
        finish = operation.finish
        scale, shift = self._of(finish.scale, 1.0, channels), self._of(finish.shift, 0.0, channels)
        grid, multiple = self._grid(operation)
        times: tuple[int, ...] = ()
        if kind in _SAME_GRID:
            grid = first
            factor, less, most = np.full(channels, first.scale), float(first.zero), float(MOST)
        elif kind in _SUMS:
            signs = [-1.0 if kind == "subtract" and place else 1.0 for place in range(len(given))]
            by = len(given) if kind == "average" else 1
            parts = [sign * one.scale / by for sign, one in zip(signs, given, strict=True) if one is not None]
            digits = _DIGITS - 1 - math.floor(math.log2(max(map(abs, parts)) / grid.scale))
            unit = grid.scale * 2.0**-digits
            times = tuple(round(part / unit) for part in parts)
            less = float(sum(time * one.zero for time, one in zip(times, given, strict=True) if one is not None))
            most, factor = float(MOST * sum(map(abs, times))), unit * scale
        else:
            count = shapes[0][0] * shapes[0][1] if kind == "global_average" else math.prod(operation.kernel)
            less, most = float(count * first.zero), float(count * MOST)
            factor = first.scale / count * scale
        everywhere = np.ones(channels)
        step = self._step(operation, grid, multiple, factor, shift, less * everywhere, most * everywhere, times)
        if step is None:
            return False
        inputs = tuple(self._bytes[index] for index in operation.inputs)
        index = self._append(operation, inputs, grid)
        self._bytes[operation.output], self.steps[index] = index, step
        self._finish_of(operation, index)
        return True

    def _can_add(
        self, operation: Operation, shapes: list[tuple[int, int, int]], target: tuple[int, int, int], grid: Grid
    ) -> bool:
        kind, finish = operation.kind, operation.finish
        if kind in _SUMS:
            return all(shape == target for shape in shapes)
        if kind == "global_average":
            return True
        if kind == "average_pool":
            return self._is_full(operation, shapes[0], target)
        if kind not in _SAME_GRID or finish.scale or finish.shift or finish.activation != "linear":
            return False
        quantises = finish.delta is not None and finish.delta.rule in _QUANTISING
        if kind == "max_pool":  # zeros around the picture must be the smallest values
            return not quantises and (grid.zero == 0 or self._is_full(operation, shapes[0], target))
        return finish.delta is None

    @staticmethod
    def _is_full(operation: Operation, source: tuple[int, int, int], target: tuple[int, int, int]) -> bool:
        """Whether no window of a pooling reaches beyond the picture."""
        return operation.padding == (0, 0) and all(
            (target[axis] - 1) * operation.strides[axis] + operation.kernel[axis] <= source[axis] for axis in (0, 1)
        )


_NOTHING = ByteStep(np.zeros(0, np.int32), np.zeros(0, np.float32))
