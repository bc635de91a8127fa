"""A plan laid out for the kernels: packed weights and tables that all streams share, and the state of one stream."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from deltafine.errors import DeltafineError
from deltafine.runtime.activations import CODES
from deltafine.runtime.counts import Counts
from deltafine.runtime.kernels import layout
from deltafine.runtime.kernels.memory import Memory
from deltafine.runtime.kernels.network import run_network
from deltafine.runtime.kernels.products import FEWEST_ROWS, SCRATCH_VALUES
from deltafine.runtime.kernels.rows import PIECE
from deltafine.runtime.kernels.tiles import LANES, VECTORS
from deltafine.runtime.plan import UNKNOWN, Finish, Operation, Plan

WINDOWS = ("conv", "depthwise", "max_pool", "average_pool")
ALIGNED = 16
"""Buffers begin at multiples of so many values, a cache line."""

KerasCall = Callable[[Operation, list[np.ndarray]], np.ndarray]


class Program:
    """A plan in tables; read only, shared by all streams of a model and by all threads.

    Args:
        plan: what to compute.
        events: convolutions that may run by events: for each by name how many times as much a multiply-accumulate of
            an event costs as one of a row.
    """

    def __init__(self, plan: Plan, events: Mapping[str, float] | None = None) -> None:
        self.plan = plan
        self.events = dict(events or {})
        self.sum_count = self.before_count = 0
        self._weights: list[np.ndarray] = []
        self._weight_count = 0
        self._links: list[int] = []
        self._fans: list[np.ndarray] = []
        self._fan_count = 0
        self.tensors = self._tensor_table()
        self.operations = np.array([self._row(operation) for operation in plan.operations], np.int64)
        self._put(np.zeros(8 * LANES, np.float32))  # tiles may read, and ignore, a little beyond the end
        self.weights = _aligned(np.concatenate(self._weights))
        self.fans = np.concatenate([*self._fans, np.zeros(1, np.int32)])
        self.links = np.array(self._links, np.int64)
        self._weights, self._fans = [], []
        self.segments = self._segments()

    @property
    def memory(self) -> int:
        """Bytes of weights and tables."""
        return self.weights.nbytes + self.fans.nbytes + self.links.nbytes + self.operations.nbytes

    def _segments(self) -> list[tuple[int, int]]:
        """Runs of operations between those that are left to Keras; these stand alone."""
        bounds, start = [], 0
        for place, operation in enumerate(self.plan.operations):
            if operation.kind == UNKNOWN:
                bounds += [(start, place)] * (start < place) + [(place, place + 1)]
                start = place + 1
        return [*bounds, (start, len(self.plan.operations))] if start < len(self.plan.operations) else bounds

    def _tensor_table(self) -> np.ndarray:
        """Where each tensor stands, with as many zeros around it as its readers need."""
        table = np.zeros((len(self.plan.tensors), layout.TENSOR_COLUMNS), np.int64)
        around = np.zeros((len(self.plan.tensors), 4), np.int64)  # top, left, bottom, right
        for operation in self.plan.operations:
            if operation.kind in WINDOWS[:2]:
                source = operation.inputs[0]
                around[source] = np.maximum(around[source], self._zeros_around(operation))
        begin = mask = 0
        for index, tensor in enumerate(self.plan.tensors):
            height, width, channels = tensor.shape
            top, left, bottom, right = around[index]
            pitch = (width + left + right) * channels
            table[index] = (height, width, channels, begin + top * pitch + left * channels, pitch, mask)
            begin = _round_up(begin + (height + top + bottom) * pitch, ALIGNED)
            mask += height * width
        self.arena_size, self.mask_size = int(begin) + 8 * LANES, int(mask)
        return table

    def _zeros_around(self, operation: Operation) -> list[int]:
        source = self.plan.tensors[operation.inputs[0]].shape
        target = self.plan.tensors[operation.output].shape
        behind = []
        for axis in (0, 1):
            last = (target[axis] - 1) * operation.strides[axis] + (operation.kernel[axis] - 1) * operation.dilation[
                axis
            ]
            behind.append(max(last + 1 - operation.padding[axis] - source[axis], 0))
        return [*operation.padding, *behind]

    def _put(self, values: Any) -> int:
        """Append weights; returns where they begin."""
        flat = np.asarray(values, np.float32).ravel()
        begin = self._weight_count
        padded = np.zeros(_round_up(len(flat), ALIGNED), np.float32)
        padded[: len(flat)] = flat
        self._weights.append(padded)
        self._weight_count += len(padded)
        return begin

    def _link(self, values: Any) -> int:
        begin = len(self._links)
        self._links += [int(value) for value in values]
        return begin

    def _row(self, operation: Operation) -> list[int]:
        row = dict.fromkeys(range(layout.COLUMNS), 0)
        row |= {
            layout.KIND: layout.KINDS.index(operation.kind),
            layout.INPUTS: self._link(operation.inputs),
            layout.INPUT_COUNT: len(operation.inputs),
            layout.OUTPUT: operation.output,
            layout.GROUPS: operation.groups,
            layout.FAN: -1,
            layout.EVENTS: -1,
        }
        for columns, values in (
            ((layout.KERNEL_H, layout.KERNEL_W), operation.kernel),
            ((layout.STRIDE_H, layout.STRIDE_W), operation.strides),
            ((layout.DILATION_H, layout.DILATION_W), operation.dilation),
            ((layout.TOP, layout.LEFT), operation.padding),
        ):
            row |= dict(zip(columns, values, strict=True))
        if operation.fan:
            row[layout.FAN] = self._fan_count
            fan = self.plan.arrays[operation.fan].ravel()
            self._fans.append(fan)
            self._fan_count += len(fan)
        if operation.kind == "conv":
            row |= self._pack_convolution(operation)
            if operation.name in self.events:
                row |= self._pack_events(operation)
        elif operation.kind == "depthwise":
            row |= self._pack_depthwise(operation)
        row |= self._finish(operation)
        return [row[column] for column in range(layout.COLUMNS)]

    def _finish(self, operation: Operation) -> dict[int, int]:
        finish, arrays = operation.finish, self.plan.arrays
        if operation.kind == "input":
            finish, arrays = self._spread_over_lines(operation)
        row = {
            layout.SCALE: self._put(arrays[finish.scale]) if finish.scale else -1,
            layout.SHIFT: self._put(arrays[finish.shift]) if finish.shift else -1,
            layout.ACTIVATION: CODES[finish.activation],
            layout.PARAMETERS: self._put([*finish.parameters, 0.0, 0.0, 0.0][:3]),
            layout.RULE: layout.R_NONE,
        }
        if operation.kind in WINDOWS[:2] and not finish.shift and not finish.scale:
            row[layout.SHIFT] = self._put(np.zeros(self.plan.tensors[operation.output].shape[2]))
        if finish.delta is not None:
            step, scope = arrays[finish.delta.step], self.plan.arrays[finish.delta.step].ndim
            row |= {
                layout.RULE: layout.RULE_CODES[finish.delta.rule],
                layout.PIXEL: int(finish.delta.unit == "pixel"),
                layout.STEP: self._put(step),
                layout.STEP_SCOPE: {0: layout.BY_LAYER, 1: layout.BY_CHANNEL, 3: layout.BY_NEURON}[scope],
            }
        return row

    def _spread_over_lines(self, operation: Operation) -> tuple[Finish, dict[str, np.ndarray]]:
        """The arrays of the input's finish, repeated for a line of positions."""
        _, width, channels = self.plan.tensors[operation.output].shape
        finish = operation.finish
        names = [finish.scale, finish.shift, finish.delta.step if finish.delta else ""]
        arrays = {name: self.plan.arrays[name] for name in names if name}
        for name, array in arrays.items():
            if array.ndim < 3:
                arrays[name] = np.tile(np.broadcast_to(array, (channels,)), width)
        return finish, arrays

    def _pack_convolution(self, operation: Operation) -> dict[int, int]:
        """Weights by group, panel of output channels and input; and the runs of inputs that make a row."""
        weights = self.plan.arrays[operation.weights]
        height, width, each, outputs = weights.shape
        groups, own = operation.groups, outputs // operation.groups
        vectors = min(VECTORS, key=lambda count: (_round_up(own, count * LANES), -count))
        panel = vectors * LANES
        panels = -(-own // panel)
        length = height * width * each
        packed = np.zeros((groups, panels, length, panel), np.float32)
        by_group = weights.reshape(length, groups, own)
        for number in range(panels):
            piece = by_group[:, :, number * panel : (number + 1) * panel]
            packed[:, number, :, : piece.shape[2]] = piece.transpose(1, 0, 2)
        channels, pitch = self.tensors[operation.inputs[0], [layout.CHANNELS, layout.PITCH]]
        down, right = operation.dilation
        if groups == 1 and right == 1:  # the taps of a line lie side by side
            runs, run_length = [tap * down * pitch for tap in range(height)], width * each
        else:
            runs = [y * down * pitch + x * right * channels for y in range(height) for x in range(width)]
            run_length = each
        return {
            layout.WEIGHTS: self._put(packed),
            layout.VECTORS: vectors,
            layout.ROW_LENGTH: length,
            layout.RUNS: self._link(runs),
            layout.RUN_COUNT: len(runs),
            layout.RUN_LENGTH: run_length,
        }

    def _pack_events(self, operation: Operation) -> dict[int, int]:
        """Weights by tap, input and output, and room for the sums and the inputs that they stand for."""
        source, target = (self.plan.tensors[index].shape for index in (operation.inputs[0], operation.output))
        row = {
            layout.EVENTS: self._put(self.plan.arrays[operation.weights]),
            layout.PRICE: round(100 * self.events[operation.name]),
            layout.SUMS: self.sum_count,
            layout.BEFORE: self.before_count,
        }
        self.sum_count += math.prod(target)
        self.before_count += math.prod(source)
        return row

    def _pack_depthwise(self, operation: Operation) -> dict[int, int]:
        weights = self.plan.arrays[operation.weights]
        height, width, channels, multiplier = weights.shape
        padded = _round_up(channels * multiplier, LANES)
        packed = np.zeros((height * width, padded), np.float32)
        packed[:, : channels * multiplier] = weights.reshape(height * width, -1)
        pitch = self.tensors[operation.inputs[0], layout.PITCH]
        (down, right) = operation.dilation
        taps = [y * down * pitch + x * right * channels for y in range(height) for x in range(width)]
        return {
            layout.WEIGHTS: self._put(packed),
            layout.MULTIPLIER: multiplier,
            layout.ROW_LENGTH: padded,
            layout.RUNS: self._link(taps),
            layout.RUN_COUNT: len(taps),
        }


class NumbaState:
    """One stream: the state of every value, in flat arrays. To be used by one thread at a time."""

    def __init__(self, program: Program, keras_call: KerasCall) -> None:
        _require_known_rules(program.plan)
        self.program = program
        self._keras_call = keras_call
        shapes = [tensor.shape for tensor in program.plan.tensors]
        widest = max(channels for _, _, channels in shapes)
        most = max(height * width for height, width, _ in shapes)
        reach = max(
            [1]
            + [
                (program.plan.tensors[o.output].shape[1] + 1) * o.strides[1]
                + o.kernel[1] * o.dilation[1]
                + o.padding[1]
                + shapes[o.inputs[0]][1]
                for o in program.plan.operations
                if o.kind in WINDOWS
            ]
        )
        pitch = widest + 4 * LANES
        self.memory_arrays = Memory(
            weights=program.weights,
            fans=program.fans,
            links=program.links,
            tensors=program.tensors,
            arena=_aligned(np.zeros(program.arena_size, np.float32)),
            masks=np.zeros(program.mask_size, np.uint8),
            counts=np.zeros(program.mask_size, np.int32),
            changed=np.zeros(len(shapes), np.int64),
            sums=np.zeros(program.sum_count, np.float64),
            before=np.zeros(program.before_count, np.float32),
            scratch=_aligned(
                np.zeros(max(SCRATCH_VALUES, FEWEST_ROWS * pitch, PIECE * pitch, 2 * pitch) + pitch * 8, np.float32)
            ),
            active=np.zeros(most + 1, np.int64),
            offsets=np.zeros(most + 1, np.int64),
            reach=np.zeros(reach, np.uint8),
            chosen=np.zeros(widest + 1, np.int64),
            changes=np.zeros(widest + 1, np.float64),
            stale=np.zeros(len(shapes), np.int64),
        )
        self.counting = True
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next frame is a first frame."""
        arrays = self.memory_arrays
        for array in (arrays.arena, arrays.masks, arrays.counts, arrays.changed):
            array[:] = 0
        self.fresh = True

    @property
    def memory(self) -> int:
        """Bytes of state."""
        arrays = self.memory_arrays
        own = (arrays.arena, arrays.masks, arrays.counts, arrays.sums, arrays.before)
        return sum(array.nbytes for array in (*own, arrays.scratch, arrays.active, arrays.offsets))

    def value(self, index: int) -> np.ndarray:
        """A copy of the current value of a tensor, (height, width, channels)."""
        return self._view(index).copy()

    def _view(self, index: int) -> np.ndarray:
        height, width, channels, origin, pitch, _ = self.program.tensors[index]
        arena = self.memory_arrays.arena
        lines = np.lib.stride_tricks.as_strided(
            arena[origin:], (height, width, channels), (4 * pitch, 4 * channels, 4), writeable=True
        )
        return lines

    def step(self, frame: np.ndarray) -> Counts:
        """Advance by one frame (height, width, channels), float32."""
        counters = np.zeros((len(self.program.operations), layout.COUNTERS), np.int64)
        flat = np.ascontiguousarray(frame, np.float32).ravel()
        for first, last in self.program.segments:
            self.run(first, last, flat, counters)
        self.fresh = False
        return self.counts(counters)

    def run(self, first: int, last: int, flat: np.ndarray, counters: np.ndarray) -> None:
        """Advance some operations."""
        operation = self.program.plan.operations[first]
        if operation.kind == UNKNOWN:
            self._run_keras(first, operation, counters)
        else:
            arguments = (self.memory_arrays, self.program.operations, first, last, flat)
            run_network(*arguments, self.fresh, self.counting, counters)

    def counts(self, counters: np.ndarray) -> Counts:
        """The counters of the kernels as counts."""
        counts = Counts(self.program.plan)
        counts.rows = counters[:, layout.ROWS]
        counts.changed_rows = counters[:, layout.CHANGED_ROWS]
        counts.changed_elements = counters[:, layout.CHANGED_ELEMENTS]
        counts.effective_macs = counters[:, layout.EFFECTIVE]
        counts.event_macs = counters[:, layout.EVENT_MACS]
        return counts

    def _run_keras(self, place: int, operation: Operation, counters: np.ndarray) -> None:
        arrays, plan = self.memory_arrays, self.program.plan
        height, width, channels, _, _, mask = self.program.tensors[operation.output]
        masks, counts = (array[mask : mask + height * width] for array in (arrays.masks, arrays.counts))
        masks[:] = 0
        arrays.changed[operation.output] = 0
        if not self.fresh and not any(arrays.changed[index] for index in operation.inputs):
            return
        given = [self.value(index).reshape(plan.tensors[index].sample_shape) for index in operation.inputs]
        result = self._keras_call(operation, given).reshape(height, width, channels)
        kept = self._view(operation.output)
        differing = np.full((height, width), channels) if self.fresh else (result != kept).sum(axis=-1)
        kept[:] = result
        counts[:] = differing.ravel()
        masks[:] = counts > 0
        arrays.changed[operation.output] = np.count_nonzero(counts)
        counters[place, :3] += (height * width, arrays.changed[operation.output], differing.sum())


def _require_known_rules(plan: Plan) -> None:
    for operation in plan.operations:
        delta = operation.finish.delta
        if delta is not None and delta.rule not in layout.RULE_CODES:
            raise DeltafineError(
                f"Delta layer '{delta.name}' has the rule '{delta.rule}', which has no kernel: use engine='numpy'."
            )


def _round_up(value: int, multiple: int) -> int:
    return -(-int(value) // multiple) * multiple


def _aligned(array: np.ndarray) -> np.ndarray:
    """The same values, beginning at a cache line."""
    spare = np.empty(array.size + 2 * ALIGNED, array.dtype)
    begin = (-spare.ctypes.data // array.itemsize) % ALIGNED
    result = spare[begin : begin + array.size]
    result[:] = array
    return result
