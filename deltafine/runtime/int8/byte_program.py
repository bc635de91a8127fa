"""A plan in 8-bit integers laid out for the kernels: packed weights and tables, shared by all streams of a model."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from deltafine.runtime.array_sizes import ALIGNED, aligned
from deltafine.runtime.helpers import Helpers
from deltafine.runtime.int8.byte_help import ByteHelp
from deltafine.runtime.int8.byte_plan import (
    DEQUANTISE,
    QUANTISE,
    BytePlan,
    ByteStep,
    cap_of,
    element_thresholds,
    limit_of,
    pixel_factors,
)
from deltafine.runtime.int8.weights import runs_of
from deltafine.runtime.kernels import byte_memory as of
from deltafine.runtime.kernels import columns as layout
from deltafine.runtime.kernels.bit_sets import BITS
from deltafine.runtime.kernels.byte_memory import SUMS
from deltafine.runtime.kernels.byte_vectors import BYTES, WIDTHS, places_of_channels
from deltafine.runtime.kernels.row_convolution import NINE
from deltafine.runtime.packed_plan import SLIDING, Program
from deltafine.runtime.plan import MACS, Finish, Operation
from deltafine.runtime.tensor_layout import Room, round_up, zeros_around
from deltafine.runtime.working_space import Lender, most_rows

_LINE = 64
"""Bytes of a cache line; and as many are read, and ignored, beyond the end of an array."""
_TYPES = {"weights": np.int8, "whole": np.int32, "factors": np.float32, "tables": np.uint8}
_PADDED = (*SLIDING[:2], "max_pool")
_IN_LANES = (4, 8, 16)
"""Channels of groups of which whole ones lie within 16 bytes."""
_KINDS = {
    QUANTISE: of.B_QUANTISE, DEQUANTISE: of.B_DEQUANTISE, "conv": of.B_CONV, "depthwise": of.B_DEPTHWISE,
    "global_average": of.B_WINDOW_SUM, "average_pool": of.B_WINDOW_SUM, "max_pool": of.B_WINDOW_MOST,
    "place": of.B_PLACE, "reshape": of.B_RESHAPE, "concatenate": of.B_CONCATENATE, "multiply": of.B_PRODUCT,
}  # fmt: skip


class ByteProgram(Program):
    """A plan in tables; read only, shared by all streams of a model and by all threads.

    Attributes:
        byte_operations: of ``deltafine.runtime.kernels.byte_memory``.
        byte_weights, whole, factors, near, far, byte_tables: arrays of ``ByteMemory``.
        level_count: bytes of all tensors of bytes.
        around: their indices, where each stands, and the levels around it.
        sums: what kernels on bytes work in.
        byte_helpers: of streams, with what is computed in bytes.
    """

    plan: BytePlan

    def __init__(self, plan: BytePlan, threads: int = 1) -> None:
        self._packed: dict[str, list[np.ndarray]] = {name: [] for name in _TYPES}
        self._rows: list[list[int]] = []
        self._limits: list[tuple[Operation, slice]] = []
        self._near_count = self._far_count = 0
        super().__init__(plan)
        self.byte_operations = np.array(self._rows, np.int64)
        self.byte_weights, self.whole, self.factors, self.byte_tables = (
            aligned(np.concatenate([*self._packed[name], np.zeros(4 * BYTES)]).astype(kind))
            for name, kind in _TYPES.items()
        )
        self._packed = {}
        self.near, self.far = self.byte_limits(1.0)
        self.sums = Lender(self.room_for_sums, SUMS)
        self.byte_helpers = Helpers(threads, lambda words: ByteHelp(self, words))

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        return (
            *super().arrays, self.byte_operations, self.byte_weights, self.whole, self.factors, self.byte_tables,
            self.near, self.far,
        )  # fmt: skip

    def byte_limits(self, sensitivity: float) -> tuple[np.ndarray, np.ndarray]:
        """``near`` and ``far`` with all thresholds times a number."""
        near = np.zeros(self._near_count + 2 * _LINE, np.uint8)
        far = np.zeros(self._far_count + 2 * _LINE, np.uint16)
        for operation, piece in self._limits:
            delta, grid = operation.finish.delta, self.plan.grids[operation.output]
            assert delta is not None
            assert grid is not None
            thresholds, channels = self.plan.arrays[delta.threshold], self.plan.tensors[operation.output].shape[2]
            if delta.granularity == "element":
                near[piece] = _spread(element_thresholds(delta, thresholds, grid, sensitivity), channels)
            else:
                far[piece] = _spread(pixel_factors(thresholds, grid, channels, sensitivity), channels)
        return near, far

    @property
    def working_arrays(self) -> list[np.ndarray]:
        return [*super().working_arrays, *self.sums.arrays, *self.byte_helpers.arrays]

    def pitches(self) -> list[int]:
        of_bytes = self.byte_operations[:, of.PITCH]
        return [max(one, int(other)) for one, other in zip(super().pitches(), of_bytes, strict=True)]

    def release_threads(self) -> None:
        super().release_threads()
        self.byte_helpers.leave()

    def room_for_sums(self) -> list[np.ndarray]:
        """``sums`` and ``line`` of a stream's memory, or a helper's."""
        pitch = int(self.byte_operations[:, of.PITCH].max(initial=BYTES))
        positions = self.tensors[self.operations[:, layout.OUTPUT], : layout.CHANNELS].prod(axis=1)
        of_bytes = zip(self.byte_operations[:, of.PITCH], positions, strict=True)
        size = max((min(most_rows(one), count) * one for one, count in of_bytes if one), default=0)
        apart = pitch + 2 * BYTES * BYTES  # rows that are kept apart for a while, see ``kernels.byte_pieces``
        return [aligned(np.zeros(size + 2 * pitch, np.int32)), np.zeros(pitch + BYTES + apart, np.uint8)]

    def _sums_at_once(self) -> dict[int, Operation]:
        return {}

    def _tensor_table(self) -> np.ndarray:
        table = np.zeros((len(self.plan.tensors), layout.TENSOR_COLUMNS), np.int64)
        around = zeros_around(
            self.plan, lambda operation: operation.kind in (_PADDED if self.plan.on_bytes(operation) else _PADDED[:2])
        )
        numbers, levels, mask = Room(ALIGNED, shared=True), Room(_LINE, shared=False), 0
        convolved = {one.inputs[0] for one in self.plan.operations if one.kind in MACS}
        self.around: list[tuple[int, slice, int | np.ndarray]] = []
        for index, (tensor, grid) in enumerate(zip(self.plan.tensors, self.plan.grids, strict=True)):
            room = numbers if grid is None else levels
            origin, pitch, whole = room.place(tensor.shape, around[index])
            table[index] = (*tensor.shape, origin, pitch, mask)
            if grid is not None:
                zero = np.resize(grid.zero, whole.stop - whole.start) if grid.by_channel else int(grid.zero)
                # What no convolution reads has the smallest level around it, for max pooling.
                self.around.append((index, whole, zero if index in convolved else 0))
            mask += math.prod(tensor.shape[:2])
        self.arena_size, self.mask_size = numbers.size + 8 * ALIGNED, mask + BITS  # whole words are read
        self.level_count = levels.size + 4 * _LINE
        return table

    def _row(self, operation: Operation) -> list[int]:
        if not self.plan.on_bytes(operation):
            self._rows.append([0] * of.COLUMNS)
            return super()._row(operation)
        step = self.plan.steps[operation.output]
        finish = operation.finish if step.in_floats else Finish()
        row = super()._row(replace(operation, kind="identity", weights="", table="", finish=finish))
        if operation.kind in layout.KINDS:
            row[layout.KIND] = layout.KINDS.index(operation.kind)
        made = dict.fromkeys(range(of.COLUMNS), 0) | self._columns(operation, step)
        self._rows.append([made[column] for column in range(of.COLUMNS)])
        return row

    def _columns(self, operation: Operation, step: ByteStep) -> dict[int, int]:
        kind = _KINDS.get(operation.kind, of.B_TIMES)
        source, target = self.plan.grids[operation.inputs[0]], self.plan.grids[operation.output]
        channels = self.plan.tensors[operation.output].shape[2]
        if kind == of.B_DEQUANTISE:
            assert source is not None
            factors, zeros = source.scales(channels), source.zeros(channels)
            return {of.KIND: kind, of.FACTOR: self._pack("factors", factors), of.BIAS: self._pack("whole", zeros)}
        if kind in (of.B_PLACE, of.B_RESHAPE, of.B_CONCATENATE):
            return {of.KIND: kind}
        blocks, rest = divmod(channels, BYTES)
        tail = min((width for width in WIDTHS if width >= rest), default=0) if rest else 0
        size = {of.KIND: kind, of.BLOCKS: blocks, of.REST: rest, of.TAIL: tail, of.PITCH: blocks * BYTES + tail}
        if kind == of.B_QUANTISE:
            assert target is not None
            per_unit = self._pack("factors", [1 / float(target.scale)])
            return {**size, of.FACTOR: per_unit, of.ZERO: int(target.zero)}
        row = size | {
            of.BIAS: self._pack_by_channel("whole", step.bias),
            of.FACTOR: self._pack_by_channel("factors", step.factor),
            of.ZERO: step.zero,
            of.LOW: step.low,
            of.HIGH: step.high,
            of.RULE: of.R_IN_FLOATS if step.in_floats else of.R_NONE,
            of.TABLE: -1 if step.table is None else self._pack("tables", step.table),
        }
        if step.multiple is not None:
            row |= {of.RULE: of.R_MULTIPLES, of.MULTIPLE: self._pack_by_channel("whole", step.multiple)}
        row |= self._pack_weights(operation, kind) if operation.weights else self._pack_taps(operation, step)
        delta = operation.finish.delta
        if delta is not None and not step.in_floats and delta.rule == "send-on-delta":
            row |= self._pack_thresholds(operation, channels)
        return row

    def _pack_thresholds(self, operation: Operation, channels: int) -> dict[int, int]:
        delta = operation.finish.delta
        assert delta is not None
        by_neuron = self.plan.arrays[delta.threshold].ndim == 3
        height, width, _ = self.plan.tensors[operation.output].shape
        size = height * width * channels if by_neuron else channels
        pixel = delta.granularity == "pixel"
        begin = self._far_count if pixel else self._near_count
        self._limits.append((operation, slice(begin, begin + size)))
        if pixel:
            self._far_count += round_up(size, _LINE)
        else:
            self._near_count += round_up(size, _LINE)
        return {
            of.RULE: of.R_PIXEL if pixel else of.R_ELEMENT,
            of.THRESHOLD: begin,
            of.THRESHOLD_PITCH: channels if by_neuron else 0,
            of.LEAST: limit_of(channels),
            of.CAP: cap_of(channels),
        }

    def _pack_weights(self, operation: Operation, kind: int) -> dict[int, int]:
        """Weights by block of channels, run of inputs, and four inputs; in a block as its sums stand."""
        weights = self.plan.arrays[operation.weights]
        height, width, each, _ = weights.shape
        channels, pitch = (int(one) for one in self.tensors[operation.inputs[0], [layout.CHANNELS, layout.PITCH]])
        down, right = operation.dilation
        taps = [y * down * pitch + x * right * channels for y in range(height) for x in range(width)]
        if kind == of.B_DEPTHWISE:
            runs, length, flat = 1, height * width, weights.reshape(1, height * width, each)
            links = taps + [taps[-1]] * (-length % 4)
            kind = of.B_NINE if length == NINE else kind
        else:
            runs, length = runs_of(operation, each)
            flat = weights.reshape(runs, length, -1)
            links = taps if runs == height * width else [tap * down * pitch for tap in range(height)]
        outputs = flat.shape[2]
        starts = [0] * (len(_blocks(outputs)) + 1)
        if operation.groups > 1 and length * operation.groups == outputs and length in _IN_LANES:
            kind = of.B_LANES
        elif operation.groups > 1:
            starts, flat = _side_by_side(flat, operation.groups)
        else:
            flat = flat[None]
        quads = -(-flat.shape[-2] // 4)
        pieces = []
        for number, (at, block) in enumerate(_blocks(outputs)):
            padded = np.zeros((runs, 4 * quads, block), np.int8)
            own = (flat if kind == of.B_LANES else flat[min(number, len(flat) - 1)])[:, :, at : at + block]
            padded[:, : own.shape[1], : own.shape[2]] = own
            order = np.argsort(places_of_channels(block))
            pieces.append(padded[:, :, order].reshape(runs, quads, 4, block).transpose(0, 1, 3, 2).ravel())
        return {
            of.KIND: kind,
            of.WEIGHTS: self._pack("weights", np.concatenate(pieces)),
            of.QUADS: quads,
            of.RUNS: self._link(links),
            of.RUN_COUNT: runs,
            of.STARTS: self._link(starts),
        }

    def _pack_taps(self, operation: Operation, step: ByteStep) -> dict[int, int]:
        """What is added up of other operations."""
        height, width, channels, _, pitch, _ = (int(one) for one in self.tensors[operation.inputs[0]])
        if step.times or step.zeros:
            return {of.TIMES: self._link(step.times or step.zeros)}
        if operation.kind != "global_average":
            height, width = operation.kernel
        links = [y * pitch + x * channels for y in range(height) for x in range(width)]
        return {of.RUNS: self._link(links), of.RUN_COUNT: len(links)}

    def _pack_by_channel(self, name: str, values: np.ndarray) -> int:
        """Append values of channels, in the order in which sums stand."""
        padded = np.zeros(round_up(len(values), BYTES), values.dtype)
        padded[: len(values)] = values
        pieces = [padded[at : at + width][np.argsort(places_of_channels(width))] for at, width in _blocks(len(values))]
        return self._pack(name, np.concatenate(pieces))

    def _pack(self, name: str, values: np.ndarray | list[float]) -> int:
        flat = np.asarray(values)
        begin = sum(map(len, self._packed[name]))
        self._packed[name].append(np.pad(flat, (0, -len(flat) % _LINE)))
        return begin


def _blocks(channels: int) -> list[tuple[int, int]]:
    """Where each vector of bytes of a row begins, and its width."""
    blocks, rest = divmod(channels, BYTES)
    found = [(block * BYTES, BYTES) for block in range(blocks)]
    return [*found, (blocks * BYTES, min(width for width in WIDTHS if width >= rest))] if rest else found


def _side_by_side(weights: np.ndarray, groups: int) -> tuple[list[int], np.ndarray]:
    """Weights of groups as each vector of outputs needs them: of all the groups that it has a part of.

    Args:
        weights: (runs, inputs of a group, outputs).
        groups: how many.

    Returns:
        For each vector of outputs, and one more, the first input that it reads; and weights (vectors, runs, inputs,
        outputs), the same number of inputs for each, zeros where an output is of another group.
    """
    runs, each, outputs = weights.shape
    own = outputs // groups
    touched = [(at // own, (min(at + width, outputs) - 1) // own) for at, width in _blocks(outputs)]
    most = max(last - first + 1 for first, last in touched)
    starts, found = [], np.zeros((len(touched), runs, most * each, outputs), np.int8)
    for number, (first, last) in enumerate(touched):
        begin = min(first, groups - most)
        starts.append(begin * each)
        for group in range(first, last + 1):
            place, mine = (group - begin) * each, slice(group * own, (group + 1) * own)
            found[number, :, place : place + each, mine] = weights[:, :, mine]
    return [*starts, 0], found


def _spread(values: np.ndarray, channels: int) -> np.ndarray:
    """Of each channel, or of each neuron."""
    return values.ravel() if values.ndim == 3 else np.broadcast_to(values, (channels,))
