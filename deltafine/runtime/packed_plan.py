"""A plan laid out for the kernels: packed weights and tables, shared by all streams of a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from deltafine.runtime.activation_functions import CODES
from deltafine.runtime.array_sizes import ALIGNED, aligned
from deltafine.runtime.event_rules import follows_sensitivity, require_rules
from deltafine.runtime.helpers import Helpers
from deltafine.runtime.kernels import columns as layout
from deltafine.runtime.kernels.attention import scratch_of
from deltafine.runtime.kernels.bit_sets import BITS
from deltafine.runtime.kernels.frame_intake import FEW_CHANNELS
from deltafine.runtime.kernels.tiles import VECTORS
from deltafine.runtime.kernels.vectors import LANES
from deltafine.runtime.network_help import NetworkHelp
from deltafine.runtime.plan import DELAY, GIVEN, Operation, Plan
from deltafine.runtime.sums_at_once import sums_at_once
from deltafine.runtime.tensor_layout import Room, round_up, zeros_around
from deltafine.runtime.working_space import WorkingSpace

SLIDING = ("conv", "depthwise", "max_pool", "average_pool")
FINISH = [
    layout.SCALE, layout.SHIFT, layout.ZEROS, layout.ACTIVATION, layout.PARAMETERS, layout.RULE, layout.PIXEL,
    layout.THRESHOLD, layout.THRESHOLD_BY_NEURON,
]  # fmt: skip
"""Columns of what happens to rows that are computed."""


class Program:
    """A plan in tables; read only, shared by all streams of a model and by all threads.

    Args:
        plan: what to compute.
        events: convolutions that may run by events: for each by name how many times as much a multiply-accumulate of
            an event costs as one of a row.
        threads: that compute a frame of a stream that is advanced by itself.

    Attributes:
        part_of: by the tensors that are not kept, the sums that they are part of, see ``sums_at_once``.
        alone: by the same, the row of ``operations`` that would compute it by itself.
        working: what the kernels work in.
        helpers: of streams, with all but what is computed in bytes.

    Raises:
        DeltafineError: the plan has a rule of the user's own, and not its code.
    """

    def __init__(self, plan: Plan, events: Mapping[str, float] | None = None, threads: int = 1) -> None:
        require_rules(plan)
        self.plan = plan
        self.events = dict(events or {})
        self.sum_count = self.before_count = 0
        self._weights: list[np.ndarray] = []
        self._weight_count = 0
        self._links: list[np.ndarray] = []
        self._link_count = 0
        self._fans: list[np.ndarray] = []
        self._fan_count = 0
        self._rescaling = _rescaling(plan)
        self.part_of = self._sums_at_once()
        self.tensors = self._tensor_table()
        longest = max(tensor.shape[1] * tensor.shape[2] for tensor in plan.tensors)
        self._zeros = self._put(np.zeros(longest))
        self._thresholds = [np.zeros(round_up(longest, ALIGNED), np.float32)]  # zeros for all without a delta layer
        self._multiplied: list[slice] = []
        self.operations = np.array([self._row(operation) for operation in plan.operations], np.int64)
        self.alone: dict[int, list[int]] = {}
        self._compute_with_sums()
        self.levels = _levels(plan)
        self._put(np.zeros(8 * LANES, np.float32))  # tiles may read, and ignore, a little beyond the end
        self.weights = aligned(np.concatenate(self._weights))
        self.thresholds = aligned(np.concatenate([*self._thresholds, np.zeros(8 * LANES, np.float32)]))
        self.fans = np.concatenate([*self._fans, np.zeros(1, np.int32)])
        self.links = np.concatenate([*self._links, np.zeros(1, np.int64)])
        self._weights, self._fans, self._thresholds, self._links = [], [], [], []
        self.sections = plan.sections()
        self.working = WorkingSpace(self)
        self.helpers = Helpers(threads, lambda words: NetworkHelp(self, words))

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """Weights and tables."""
        return (self.weights, self.fans, self.links, self.tensors, self.operations, self.levels, self.thresholds)

    def _sums_at_once(self) -> dict[int, Operation]:
        found = sums_at_once(self.plan)
        by_events = {operation.output for operation in self.plan.operations if operation.name in self.events}
        return {index: operation for index, operation in found.items() if index not in by_events}

    @property
    def working_arrays(self) -> list[np.ndarray]:
        """What the kernels work in, of all streams that were ever in them at the same time."""
        return [*self.working.arrays, *self.helpers.arrays]

    def release_threads(self) -> None:
        """Let helpers end; others come when they are needed again."""
        self.helpers.leave()

    def read_at(self, place: int) -> list[int]:
        """The tensors that the kernels read at a place of the plan."""
        row = self.operations[place]
        inputs = self.links[row[layout.INPUTS] : row[layout.INPUTS] + row[layout.INPUT_COUNT]]
        return [*map(int, inputs), *([int(row[layout.SUMMAND])] if row[layout.SUMMAND] >= 0 else [])]

    def limits(self, sensitivity: float) -> tuple[np.ndarray, np.ndarray]:
        """``thresholds`` times a number, where their rules allow it, and the ``levels`` that go with them."""
        if sensitivity == 1:
            return self.thresholds, self.levels
        thresholds = aligned(self.thresholds)
        for piece in self._multiplied:
            thresholds[piece] *= np.float32(sensitivity)
        return thresholds, _levels(self.plan, sensitivity)

    def _tensor_table(self) -> np.ndarray:
        """Where each tensor stands, with as many zeros around it as its readers need."""
        table = np.zeros((len(self.plan.tensors), layout.TENSOR_COLUMNS), np.int64)
        around = zeros_around(self.plan, lambda operation: operation.kind in SLIDING[:2])
        room, mask = Room(ALIGNED, shared=True), 0
        for index, tensor in enumerate(self.plan.tensors):
            if index in self.part_of:
                table[index, : layout.ORIGIN] = tensor.shape
                continue
            origin, pitch, _ = room.place(tensor.shape, around[index])
            table[index] = (*tensor.shape, origin, pitch, mask)
            mask += math.prod(tensor.shape[:2])
        self.arena_size, self.mask_size = room.size + 8 * LANES, mask + BITS  # whole words are read
        return table

    def pitches(self) -> list[int]:
        """Values between the rows that are computed at a time, by operation; at least 1."""
        outputs = self.tensors[self.operations[:, layout.OUTPUT], layout.CHANNELS]
        by_events = np.where(self.operations[:, layout.EVENTS] >= 0, outputs, 1)
        return [int(pitch) for pitch in np.maximum(self.operations[:, layout.ROW_PITCH], by_events)]

    def scratch_of_operations(self) -> list[int]:
        """Numbers that operations work with beside their rows: those of attention."""
        sizes = []
        for operation in self.plan.operations:
            size = 0
            if operation.kind == "attention":
                shapes = [self.plan.tensors[index].shape for index in (*operation.inputs[:2], operation.output)]
                (_, _, of_queries), (height, width, _), (*rows, channels) = shapes
                heads = operation.groups
                size = scratch_of(math.prod(rows), channels, height * width, of_queries // heads, channels // heads)
            sizes.append(size)
        return sizes

    def _put(self, values: np.ndarray | Sequence[float]) -> int:
        """Append weights; returns where they begin."""
        flat = np.asarray(values, np.float32).ravel()
        begin = self._weight_count
        padded = np.zeros(round_up(len(flat), ALIGNED), np.float32)
        padded[: len(flat)] = flat
        self._weights.append(padded)
        self._weight_count += len(padded)
        return begin

    def _put_thresholds(self, operation: Operation, values: np.ndarray) -> int:
        """Append thresholds; returns where they begin."""
        flat = np.asarray(values, np.float32).ravel()
        begin = sum(map(len, self._thresholds))
        self._thresholds.append(np.pad(flat, (0, -len(flat) % ALIGNED)))
        if follows_sensitivity(self.plan, operation):
            self._multiplied.append(slice(begin, begin + len(flat)))
        return begin

    def _link(self, values: Sequence[int] | np.ndarray) -> int:
        begin = self._link_count
        self._links.append(np.asarray(values, np.int64))
        self._link_count += len(values)
        return begin

    def _row(self, operation: Operation) -> list[int]:
        row = dict.fromkeys(range(layout.COLUMNS), 0)
        row |= {
            layout.KIND: layout.KINDS.index(DELAY if operation.kind == GIVEN else operation.kind),  # both in Python
            layout.INPUTS: self._link(operation.inputs),
            layout.INPUT_COUNT: len(operation.inputs),
            layout.OUTPUT: operation.output,
            layout.GROUPS: operation.groups,
            layout.FAN: -1,
            layout.EVENTS: -1,
            layout.RESCALED: -1,
            layout.SUMMAND: -1,
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
        elif operation.weights:
            row[layout.WEIGHTS] = self._put(self.plan.arrays[operation.weights])
            row[layout.ROW_LENGTH] = operation.dense_macs or 0
        if operation.table:
            row |= self._pack_table(operation)
        row |= self._finish(operation)
        if operation is self._rescaling:
            row[layout.KIND] = layout.K_DONE
        elif operation.kind == "input" and self._rescaling is not None:
            row |= self._rescale(self._rescaling)
        return [row[column] for column in range(layout.COLUMNS)]

    def _compute_with_sums(self) -> None:
        """Let the sums that convolutions are ``part_of`` be computed by these."""
        places = {operation.output: place for place, operation in enumerate(self.plan.operations)}
        for index, added in self.part_of.items():
            row, other = self.operations[places[index]], next(one for one in added.inputs if one != index)
            self.alone[index] = [int(column) for column in row]
            of_sum = self.operations[places[added.output]]
            finish = of_sum[FINISH]
            of_sum[:] = row
            of_sum[FINISH] = finish
            of_sum[layout.OUTPUT], of_sum[layout.SUMMAND], of_sum[layout.FAN] = added.output, other, -1
            of_sum[layout.OWN_SHIFT], of_sum[layout.OWN_PLACE] = row[layout.SHIFT], places[index]
            row[layout.KIND] = layout.K_DONE

    def _rescale(self, operation: Operation) -> dict[int, int]:
        """What the operation before it does along with its own."""
        channels = self.plan.tensors[operation.output].shape[2]
        scale, shift = (
            self.plan.arrays[name] if name else np.full(1, default)
            for name, default in ((operation.finish.scale, 1.0), (operation.finish.shift, 0.0))
        )
        return {
            layout.RESCALED: operation.output,
            layout.RESCALE: self._put(np.tile(np.broadcast_to(scale, (channels,)), LANES)),
            layout.RESHIFT: self._put(np.tile(np.broadcast_to(shift, (channels,)), LANES)),
        }

    def _finish(self, operation: Operation) -> dict[int, int]:
        finish, arrays = operation.finish, self.plan.arrays
        _, width, channels = self.plan.tensors[operation.output].shape
        copies = width if operation.kind == "input" else 1  # a frame is read by whole lines

        def spread(name: str) -> np.ndarray:
            values = arrays[name]
            return values if values.ndim == 3 else np.tile(np.broadcast_to(values, (channels,)), copies)

        def put(name: str) -> int:
            return self._put(spread(name))

        row = {
            layout.ZEROS: self._zeros,
            layout.SCALE: put(finish.scale) if finish.scale else -1,
            layout.SHIFT: put(finish.shift) if finish.shift else self._zeros,
            layout.ACTIVATION: CODES[finish.activation],
            layout.PARAMETERS: self._put([*finish.parameters, 0.0, 0.0, 0.0][:3]),
            layout.RULE: layout.R_NONE,
            layout.THRESHOLD: 0,
        }
        if operation.kind == "input" and not finish.scale:
            row[layout.SCALE] = self._put(np.ones(width * channels))
        if finish.delta is not None and self.plan.own_rule(operation) is None:
            row |= {
                layout.RULE: layout.RULE_CODES[finish.delta.rule],
                layout.PIXEL: int(finish.delta.granularity == "pixel"),
                layout.THRESHOLD: self._put_thresholds(operation, spread(finish.delta.threshold)),
                layout.THRESHOLD_BY_NEURON: int(arrays[finish.delta.threshold].ndim == 3),
            }
        return row

    def _pack_convolution(self, operation: Operation) -> dict[int, int]:
        """Weights by group, panel of output channels and input; and the runs of inputs that make a row."""
        weights = self.plan.arrays[operation.weights]
        height, width, each, outputs = weights.shape
        groups, own = operation.groups, outputs // operation.groups
        vectors = min(VECTORS, key=lambda count: (round_up(own, count * LANES), -count))
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
            layout.ROW_PITCH: round_up((groups - 1) * own + panels * panel, LANES),
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

    def _pack_table(self, operation: Operation) -> dict[int, int]:
        """Where in the arena the values or positions of a table stand, and their marks; -1 for a zero."""
        table, tensors = self.plan.arrays[operation.table], self.tensors
        places, marks = [], []
        for index in operation.inputs:
            height, width, channels, origin, pitch, mask = tensors[index]
            y, x, c = np.ogrid[:height, :width, : channels if operation.kind == "gather" else 1]
            places.append((origin + y * pitch + x * channels + c).ravel())
            marks.append((mask + y * width + x + 0 * c).ravel())
        by_value = operation.kind == "gather" and table.ndim == 3
        return {
            layout.RUNS: self._link(np.append(np.concatenate(places), -1)[table].ravel()),
            layout.RUN_COUNT: -1 if by_value else self._link(np.append(np.concatenate(marks), -1)[table].ravel()),
            layout.RUN_LENGTH: table.shape[2] if operation.kind == "blend" else 1,
        }

    def _pack_depthwise(self, operation: Operation) -> dict[int, int]:
        weights = self.plan.arrays[operation.weights]
        height, width, channels, multiplier = weights.shape
        padded = round_up(channels * multiplier, LANES)
        packed = np.zeros((height * width, padded), np.float32)
        packed[:, : channels * multiplier] = weights.reshape(height * width, -1)
        pitch = self.tensors[operation.inputs[0], layout.PITCH]
        (down, right) = operation.dilation
        taps = [y * down * pitch + x * right * channels for y in range(height) for x in range(width)]
        return {
            layout.WEIGHTS: self._put(packed),
            layout.MULTIPLIER: multiplier,
            layout.ROW_LENGTH: padded,
            layout.ROW_PITCH: padded,
            layout.RUNS: self._link(taps),
            layout.RUN_COUNT: len(taps),
        }


def _rescaling(plan: Plan) -> Operation | None:
    """The operation right behind the input, if all that it does is scale and shift each channel."""
    if len(plan.operations) < 2:
        return None
    first, second = plan.operations[:2]
    finish = second.finish
    plain = second.kind == "identity" and finish.activation == "linear" and finish.delta is None
    same = plan.tensors[first.output].shape == plan.tensors[second.output].shape
    by_channel = all(plan.arrays[name].ndim <= 1 for name in (finish.scale, finish.shift) if name)
    few = plan.tensors[first.output].shape[2] in FEW_CHANNELS
    return second if plain and same and by_channel and few and second.inputs == (first.output,) else None


def _levels(plan: Plan, sensitivity: float = 1.0) -> np.ndarray:
    """How far apart two bytes of a frame have to be at least for the event rule to send one after the other.

    Rather too little than too much: by more than what single precision can be wrong by.

    Returns:
        uint8, (width * channels,) for each line, or (height * width * channels,) where each neuron has its own
        threshold; and a little room behind.
    """
    operation = plan.operations[0]
    finish, (_, width, channels) = operation.finish, plan.tensors[operation.output].shape
    scale, shift = (
        np.abs(np.broadcast_to(plan.arrays[name] if name else default, (channels,)).astype(float))
        for name, default in ((finish.scale, 1.0), (finish.shift, 0.0))
    )
    threshold = plan.arrays[finish.delta.threshold].astype(float) if finish.delta is not None else np.zeros(())
    if finish.delta is None or layout.RULE_CODES.get(finish.delta.rule) != layout.R_SEND_ON_DELTA:
        threshold = np.zeros_like(threshold)
    threshold *= float(np.float32(sensitivity))
    wrong = 1e-5 * threshold + 4 * np.finfo(np.float32).eps * (255 * scale + shift)
    with np.errstate(divide="ignore", invalid="ignore"):
        levels = np.clip(np.nan_to_num(np.ceil((threshold - wrong) / scale), nan=1.0), 1, 255).astype(np.uint8)
    if threshold.ndim < 3:
        levels = np.tile(np.broadcast_to(levels, (channels,)), width)
    return np.concatenate([levels.ravel(), np.ones(4 * LANES, np.uint8)])
