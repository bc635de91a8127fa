"""From a plan in floating point, and the ranges of its values, to one in 8-bit integers.

Convolutions and dense layers multiply bytes. Layers that multiply, add up, average or move what are bytes already work
on bytes, too. What cannot be done on bytes is done in floating point: a whole layer, or what stands behind its sums.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from deltafine.runtime.activation_functions import NO_LIMIT
from deltafine.runtime.int8.activation_tables import table_of
from deltafine.runtime.int8.byte_plan import DEQUANTISE, QUANTISE, BytePlan, ByteStep
from deltafine.runtime.int8.grids import MOST, Grid, grid_of, side_by_side
from deltafine.runtime.int8.weights import by_outputs, runs_of, whole_weights
from deltafine.runtime.plan import MACS, Finish, Operation, Plan, Tensor

_SUMS = ("add", "subtract", "average", "identity")
_MOVES = ("max_pool", "place", "reshape", "concatenate")
_ROOM = 2.0**30
"""Sums, and what they are multiplied to, stay below it."""
_LARGEST_BIAS = 2.0**29
_MOST_FACTORS = 3
_DIGITS = 16
"""Of what inputs are multiplied with before they are added up."""
_QUANTISING = ("quantize", "paper")


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
        """Whether the rule behind the sums can be that of bytes, and the output has to be none of the model's."""
        delta = operation.finish.delta
        by_neuron = delta is not None and self._plan.arrays[delta.threshold].ndim == 3
        known = not (by_neuron and delta is not None and delta.rule in _QUANTISING)
        return known and self._plan.own_rule(operation) is None and operation.output not in self._plan.outputs

    def _of(self, name: str, default: float, channels: int) -> np.ndarray:
        values = self._plan.arrays[name].astype(np.float64) if name else np.float64(default)
        return np.broadcast_to(values, (channels,)).astype(np.float64)

    @staticmethod
    def _levels(
        finish: Finish, grid: Grid, multiple: np.ndarray | None, farthest: float
    ) -> tuple[Grid, int, int, np.ndarray | None, np.ndarray | None] | None:
        """What is made of numbers up to ``farthest``: levels, the least, the largest, multiples, a table; or None."""
        slope, most, start = finish.parameters if finish.activation == "relu" else (0.0, 0.0, 0.0)
        if finish.activation == "linear":
            return grid, 0, MOST, multiple, None
        if finish.activation == "relu" and not slope and not start:
            high = MOST if most >= NO_LIMIT else min(round(most / float(grid.scale)) + int(grid.zero), MOST)
            return grid, int(grid.zero), max(high, int(grid.zero)), multiple, None
        if multiple is not None and (multiple != multiple[0]).any():
            return None
        found = table_of(finish, grid, 1 if multiple is None else int(multiple[0]), farthest)
        return None if found is None else (found[0], 0, len(found[1]) - 1, None, found[1])

    def _step(
        self, operation: Operation, grid: Grid, multiple: np.ndarray | None, factor: np.ndarray, shift: np.ndarray,
        less: np.ndarray, most: np.ndarray, times: tuple[int, ...] = (), zeros: tuple[int, ...] = (),
    ) -> ByteStep | None:  # fmt: skip
        """What is done with sums; None where they might not fit, or bytes cannot be made of them.

        Args:
            factor: (channels,), of sums, to numbers.
            shift: (channels,), added in numbers.
            less: (channels,), what sums are too large by, as the levels of 0 were added up too.
            most: (channels,), how large sums may become.
            times, zeros: of the step.
        """
        with np.errstate(all="ignore"):
            added = np.rint(shift / factor)
        biggest = most + np.abs(added) + np.abs(less)
        levels = self._levels(operation.finish, grid, multiple, float((biggest * np.abs(factor)).max()))
        if levels is None:
            return None
        given, low, high, multiple, table = levels
        to_levels = factor / given.scale / (1 if multiple is None else multiple)
        fits = (np.abs(added) <= _LARGEST_BIAS) & (biggest < _ROOM) & (biggest * np.abs(to_levels) < _ROOM)
        if not fits.all():
            return None
        bias, zero = (added - less).astype(np.int32), int(given.zero)
        return ByteStep(bias, to_levels.astype(np.float32), low, high, zero, multiple, times, zeros, table)

    def _multiplies(self, operation: Operation) -> bool:
        """Append a convolution or a dense layer, if it can be done on bytes."""
        weights = self._plan.arrays[operation.weights]
        each, outputs = weights.shape[2:]
        channels, depthwise = self._channels(operation), operation.kind == "depthwise"
        # Weights of a group are added up in pairs, which none may share with the next.
        apart = outputs == 1 if depthwise else operation.groups == 1 or each % 2 == 0
        if not apart or self._plan.own_rule(operation) is not None or operation.finish.scale:
            return False
        source = self._bytes.get(operation.inputs[0])
        given = self.grids[source] if source is not None else grid_of(*self._ranges[operation.inputs[0]])
        assert given is not None
        inputs = self._plan.tensors[operation.inputs[0]].shape[2]
        groups = channels if depthwise else operation.groups
        zeros, scales = (by_outputs(values, groups, channels) for values in (given.zeros(inputs), given.scales(inputs)))
        unit = scales.max()
        exact = weights.reshape(-1, len(scales), channels) * (scales / unit)
        runs = 1 if depthwise else runs_of(operation, each)[0]
        shift = self._of(operation.finish.shift, 0.0, channels)
        flat = exact.reshape(-1, channels)
        whole, scale = whole_weights(flat, runs, np.abs(shift) / (unit * _LARGEST_BIAS))
        factor = scale * unit
        less = (whole.reshape(exact.shape) * zeros).sum(axis=(0, 1))
        most = MOST * np.abs(whole.astype(np.int64)).sum(axis=0)
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
        """Append an operation that multiplies, adds up, averages or moves bytes, if it can be done on them."""
        shapes = [self._plan.tensors[index].shape for index in operation.inputs]
        if not self._is_on_bytes(operation) or not self._can_add(operation, shapes):
            return False
        if operation.kind in _MOVES:
            return self._moves(operation, shapes)
        kind, channels, finish = operation.kind, self._channels(operation), operation.finish
        inputs = [self._bytes[index] for index in operation.inputs]
        if len(inputs) > 1:
            inputs = [self._of_one_grid(index) for index in operation.inputs]
        given = [grid for index in inputs if (grid := self.grids[index]) is not None]
        scale, shift = self._of(finish.scale, 1.0, channels), self._of(finish.shift, 0.0, channels)
        grid, multiple = self._grid(operation)
        how: dict[str, tuple[int, ...]] = {}
        unit, less = given[0].scales(channels), given[0].zeros(channels).astype(np.float64)
        most, everywhere = float(MOST), np.ones(channels)
        if kind == "multiply":
            how = {"zeros": tuple(int(one.zero) for one in given)}
            unit, less = math.prod(float(one.scale) for one in given) * everywhere, 0 * everywhere
            most = most ** len(given)
        elif kind in _SUMS and given[0].by_channel:
            how = {"times": (1,)}
        elif kind in _SUMS:
            signs = [-1.0 if kind == "subtract" and place else 1.0 for place in range(len(given))]
            by = len(given) if kind == "average" else 1
            parts = [sign * float(one.scale) / by for sign, one in zip(signs, given, strict=True)]
            digits = _DIGITS - 1 - math.floor(math.log2(max(map(abs, parts)) / float(grid.scale)))
            of_one = float(grid.scale) * 2.0**-digits
            times = tuple(round(part / of_one) for part in parts)
            less = sum(time * one.zeros(channels) for time, one in zip(times, given, strict=True)) * everywhere
            how, unit, most = {"times": times}, of_one * everywhere, float(MOST * sum(map(abs, times)))
        else:
            count = shapes[0][0] * shapes[0][1] if kind == "global_average" else math.prod(operation.kernel)
            less, most, unit = count * less, count * most, unit / count
        step = self._step(operation, grid, multiple, unit * scale, shift, less, most * everywhere, **how)
        if step is not None:
            self._end(operation, tuple(inputs), grid, step)
        return step is not None

    def _end(self, operation: Operation, inputs: tuple[int, ...], grid: Grid, step: ByteStep) -> None:
        """Append an operation on bytes."""
        index = self._append(operation, inputs, grid)
        self._bytes[operation.output], self.steps[index] = index, step
        self._finish_of(operation, index)

    def _moves(self, operation: Operation, shapes: list[tuple[int, int, int]]) -> bool:
        """Append an operation that moves bytes as they are, if it can."""
        channels = self._channels(operation)
        inputs = tuple(self._bytes[index] for index in operation.inputs)
        given = [grid for index in inputs if (grid := self.grids[index]) is not None]
        grid = given[0]
        if operation.kind == "concatenate":
            grid = side_by_side(given, [shape[2] for shape in shapes])
        elif grid.by_channel and operation.kind == "reshape":
            before = shapes[0][2]
            if channels % before:
                inputs = (self._of_one_grid(operation.inputs[0]),)
                grid = grid_of(*self._ranges[operation.inputs[0]])
            else:
                grid = Grid(np.tile(grid.scale, channels // before), np.tile(grid.zero, channels // before))
        step = ByteStep(np.zeros(channels, np.int32), np.ones(channels, np.float32))
        self._end(operation, inputs, grid, step)
        return True

    def _of_one_grid(self, index: int) -> int:
        """A tensor in bytes whose channels do not differ."""
        source = self._bytes[index]
        grid = self.grids[source]
        assert grid is not None
        if not grid.by_channel:
            return source
        name, channels = f"{self._plan.tensors[index].name}:levels", self._plan.tensors[index].shape[2]
        made, operation = grid_of(*self._ranges[index]), Operation("identity", name, (source,), index)
        step = self._step(
            operation, made, None, grid.scales(channels), np.zeros(channels), grid.zeros(channels).astype(np.float64),
            np.full(channels, float(MOST)), times=(1,),
        )  # fmt: skip
        assert step is not None  # a number of levels is no large number
        found = self._tensor(index, made, "levels")
        self.made.append(replace(operation, output=found))
        self.steps[found] = step
        return found

    def _can_add(self, operation: Operation, shapes: list[tuple[int, int, int]]) -> bool:
        kind, finish, target = operation.kind, operation.finish, self._plan.tensors[operation.output].shape
        if kind in _SUMS:
            return all(shape == target for shape in shapes)
        if kind == "multiply":  # one position stands for all, as that of a gate does
            places = {shape[:2] for shape in shapes} - {target[:2], (1, 1)}
            return not places and len(shapes) <= _MOST_FACTORS and all(shape[2] == target[2] for shape in shapes)
        if kind == "global_average":
            return True
        if kind == "average_pool":
            return self._is_full(operation, shapes[0], target)
        if kind not in _MOVES or finish.scale or finish.shift or finish.activation != "linear":
            return False
        if kind == "concatenate":
            return finish.delta is None and all(shape[:2] == target[:2] for shape in shapes)
        if kind == "max_pool":  # what stands around the picture must be the smallest values
            quantises = finish.delta is not None and finish.delta.rule in _QUANTISING
            grid = self.grids[self._bytes[operation.inputs[0]]]
            positive = grid is not None and not np.any(grid.zero)
            alone = not any(one.inputs == operation.inputs for one in self._plan.operations if one.kind in MACS)
            return not quantises and (positive or alone or self._is_full(operation, shapes[0], target))
        return finish.delta is None

    @staticmethod
    def _is_full(operation: Operation, source: tuple[int, int, int], target: tuple[int, int, int]) -> bool:
        """Whether no window of a pooling reaches beyond the picture."""
        return operation.padding == (0, 0) and all(
            (target[axis] - 1) * operation.strides[axis] + operation.kernel[axis] <= source[axis] for axis in (0, 1)
        )


_NOTHING = ByteStep(np.zeros(0, np.int32), np.zeros(0, np.float32))
