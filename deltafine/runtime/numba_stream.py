"""The state of one stream, advanced by the compiled kernels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from deltafine.runtime.array_sizes import aligned, owned_bytes
from deltafine.runtime.event_rules import follows_sensitivity, sent, sent_by_own_rule
from deltafine.runtime.frame_counts import FrameCounts
from deltafine.runtime.frame_reader import FrameReader
from deltafine.runtime.helpers import NO_TEAM
from deltafine.runtime.kernels import columns as layout
from deltafine.runtime.kernels.event_convolution import FRAMES_TO_WAIT
from deltafine.runtime.kernels.memory import NUMBERS, OWN, PIXELS, Memory, addresses
from deltafine.runtime.kernels.network import all_finite, count_macs, run_network
from deltafine.runtime.kernels.vectors import LANES
from deltafine.runtime.packed_plan import Program
from deltafine.runtime.plan import DELAY, GIVEN, UNKNOWN, Operation, begins_anew
from deltafine.runtime.single_thread import NotCopied

KerasCall = Callable[[Sequence[Operation], Mapping[int, np.ndarray]], list[np.ndarray]]


class NumbaState(NotCopied):
    """One stream: the state of every value, in flat arrays. To be used by one thread at a time.

    Attributes:
        counters: what the last frame took, as in a table of :class:`FrameCounts`, but for effective MACs.
        fresh: whether the next frame is a first one.
        table: addresses of the memory.
    """

    def __init__(self, program: Program, keras_call: KerasCall) -> None:
        self.program = program
        self._sensitivity = 1.0
        self._keras_call = keras_call
        shapes = [tensor.shape for tensor in program.plan.tensors]
        frame = shapes[program.plan.operations[0].output]
        self.memory_arrays = Memory(
            weights=program.weights,
            fans=program.fans,
            links=program.links,
            tensors=program.tensors,
            levels=program.levels,
            thresholds=program.thresholds,
            arena=aligned(np.zeros(program.arena_size, np.float32)),
            masks=np.zeros(program.mask_size, np.uint8),
            counts=np.zeros(program.mask_size, np.int32),
            changed=np.zeros(len(shapes), np.int64),
            sums=np.zeros(program.sum_count, np.float64),
            before=np.zeros(program.before_count, np.float32),
            scratch=np.zeros(0, np.float32),
            line=np.zeros(0, np.int64),
            chosen=np.zeros(0, np.int64),
            changes=np.zeros(0, np.float64),
            active=np.zeros(0, np.int64),
            offsets=np.zeros(0, np.int64),
            targets=np.zeros(0, np.int64),
            sent_bytes=np.zeros(math.prod(frame) + 4 * LANES, np.uint8),
            stale=np.zeros(len(shapes), np.int64),
            largest=np.zeros(len(shapes), np.float64),
            looks=np.zeros(len(shapes), np.int64),
            counters=np.zeros((len(program.operations), layout.COUNTERS), np.int64),
            numbers=np.zeros(0, np.float32),
            pixels=np.zeros(0, np.uint8),
        )
        self.counters = self.memory_arrays.counters
        self._address()
        self._first, self._count = np.zeros(1, np.uint8), np.zeros(1, np.int64)
        self._follows = [follows_sensitivity(program.plan, operation) for operation in program.plan.operations]
        self._views = [self._lines_of(index) for index in range(len(shapes))]
        self._reader = FrameReader(
            program.plan, self.memory_arrays.sent_bytes, self._views[program.plan.operations[0].output]
        )
        self._delayed = {delay.output: np.zeros(shapes[delay.output], np.float32) for delay in program.plan.delays}
        self._given = {one.output: np.zeros(shapes[one.output], np.float32) for one in program.plan.further}
        self.reset()

    def _address(self) -> None:
        self.table = addresses(self.memory_arrays)
        self._alone = self.table[None]

    def reset(self) -> None:
        """Forget everything: the next frame is a first frame."""
        arrays = self.memory_arrays
        for array in (arrays.arena, arrays.masks, arrays.counts, arrays.changed):
            array[:] = 0
        for delayed in self._delayed.values():
            delayed[:] = 0
        self._reader.reset()
        self.fresh, self._compare_all, self._anew, self.frames = True, False, False, 0
        self._restarting = False

    def give(self, further: Mapping[int, np.ndarray]) -> None:
        """Set further inputs, by tensor, for the next frames; all of them before a first one."""
        for index, values in further.items():
            self._given[index][...] = values.reshape(self._given[index].shape)

    def go_on_from(self, values: Sequence[np.ndarray]) -> None:
        """Go on with the values of another engine, (height, width, channels) of each tensor.

        What delta layers have sent is kept; all else is computed anew in the next frame, so that nothing of the other
        engine's rounding is left.
        """
        for index, value in enumerate(values):
            if index not in self.program.part_of:
                self._views[index][:] = value
        for operation in self.program.plan.delays:
            self._delayed[operation.output][:] = values[operation.before]
        self.memory_arrays.stale[:] = FRAMES_TO_WAIT
        self._reader.take_no_bytes_as_sent()
        self.fresh, self._compare_all, self._anew = False, True, True

    def set_sensitivity(self, sensitivity: float, *, compare_all: bool) -> None:
        """Multiply thresholds from the next frame on; in it, ``compare_all``, also of values that stand still."""
        thresholds, levels = self.program.limits(sensitivity)
        self.memory_arrays = self.memory_arrays._replace(thresholds=thresholds, levels=levels)
        self._address()
        self._sensitivity = sensitivity
        self._compare_all |= compare_all

    @staticmethod
    def is_finite(pixels: np.ndarray) -> bool:
        """Whether a frame, float32, holds neither NaN nor infinity."""
        flat = pixels.reshape(-1)
        return bool(all_finite(flat if flat.flags.aligned and flat.flags.writeable else flat.copy()))

    @property
    def memory(self) -> int:
        """Bytes of all arrays that are not the program's."""
        arrays = self.memory_arrays
        own = [getattr(arrays, name) for name in OWN]
        if arrays.thresholds is not self.program.thresholds:
            own += [arrays.thresholds, arrays.levels]
        own += [self.table, self._first, self._count, *self._delayed.values(), *self._given.values()]
        return owned_bytes([*own, *self._reader.arrays])

    def value(self, index: int) -> np.ndarray:
        """A copy of the current value of a tensor, (height, width, channels); it may have to be computed for it."""
        return self.as_kept(index)

    def _computed(self, index: int) -> np.ndarray:
        """A tensor that is not kept, as it would be: its rows into memory for them alone."""
        program, arrays = self.program, self.memory_arrays
        height, width, channels = shape = program.plan.tensors[index].shape
        values = np.zeros(math.prod(shape) + LANES, np.float32)  # whole vectors are written
        away = (values.ctypes.data - arrays.arena.ctypes.data) // values.itemsize
        tensors, operations = program.tensors.copy(), program.operations.copy()
        tensors[index] = height, width, channels, away, width * channels, 0
        place = next(place for place, one in enumerate(program.plan.operations) if one.output == index)
        operations[place] = program.alone[index]
        memory = arrays._replace(
            tensors=tensors,
            masks=np.zeros(height * width, np.uint8),
            counts=np.zeros(height * width, np.int32),
            changed=np.zeros_like(arrays.changed),
            counters=np.zeros_like(arrays.counters),
        )
        table = addresses(memory)
        with program.working.lent(table):
            flags, counts = np.ones(1, np.uint8), np.zeros(1, np.int64)
            run_network(table[None], operations, place, place + 1, flags, counts, NO_TEAM, False)
        return values[: math.prod(shape)].reshape(shape).copy()

    def as_kept(self, index: int) -> np.ndarray:
        """A copy of a tensor as the state holds it, or would hold it."""
        return self._computed(index) if index in self.program.part_of else self._views[index].copy()

    def _lines_of(self, index: int) -> np.ndarray:
        """A tensor in the arena, without the zeros around it."""
        height, width, channels, origin, pitch, _ = self.program.tensors[index]
        arena = self.memory_arrays.arena
        lines = np.lib.stride_tricks.as_strided(
            arena[origin:], (height, width, channels), (4 * pitch, 4 * channels, 4), writeable=True
        )
        return lines

    def step(self, frame: np.ndarray) -> None:
        """Advance by one frame (height, width, channels), any number type."""
        self.begin(frame)
        if not self.compares_all:
            for first, last in self.program.sections:
                self.run(first, last)
        self.end()

    @property
    def compares_all(self) -> bool:
        """Whether the next frame compares what stands still as well, which a stream does alone."""
        return self._compare_all and not self.fresh

    def begin(self, frame: np.ndarray) -> None:
        """Take a frame in."""
        self.counters.fill(0)
        self._restarting = begins_anew(self.program.plan, self.frames)
        if self._restarting:
            for delayed in self._delayed.values():
                delayed[:] = 0
        self.take_in(frame)

    def end(self) -> None:
        """The frame has gone through the sections of the plan, if not here."""
        if self.compares_all:
            self._run_comparing_all()
        self._reader.release()
        self.end_frame()

    def end_frame(self) -> None:
        """Keep what the next frame needs, now that all operations have advanced."""
        for operation in self.program.plan.delays:
            self._delayed[operation.output][:] = self._views[operation.before]
        self.fresh = self._compare_all = self._anew = False
        self.frames += 1

    def counts(self) -> FrameCounts:
        """What the last frame took."""
        counters = self.counters.copy()
        count_macs(self.table, self.program.operations, counters)
        return FrameCounts(self.program.plan, counters)

    def take_in(self, frame: np.ndarray) -> None:
        """Hold a frame ready for the first operation, which reads it; one that it can read as it is, until then."""
        self._reader.take_in(frame, self.fresh)
        row, array = (PIXELS, self._reader.pixels) if len(self._reader.pixels) else (NUMBERS, self._reader.numbers)
        self.table[PIXELS, 1] = 0
        self.table[row, 0], self.table[row, 1] = array.__array_interface__["data"][0], array.size

    def runs_alone(self, first: int) -> bool:
        """Whether several streams advance the section that begins here one after the other."""
        return self.program.plan.runs_in_python(self.program.plan.operations[first])

    def run(self, first: int, last: int) -> None:
        """Advance operations of one section of the plan, and add to their counters."""
        plan = self.program.plan
        if plan.operations[first].kind == DELAY:
            self._keep(first, plan.operations[first], self._delayed[plan.operations[first].output])
        elif plan.operations[first].kind == GIVEN:
            self._keep(first, plan.operations[first], self._given[plan.operations[first].output])
        elif plan.own_rule(plan.operations[first]) is not None:
            self._run_own_rule(first, plan.operations[first])
        elif plan.operations[first].restarts:
            self._run_delta_of_state(first, plan.operations[first])
        elif plan.operations[first].kind == UNKNOWN:
            self._run_keras(first, last)
        else:
            self._first[0] = self.fresh
            program = self.program
            with program.working.lent(self.table), program.helpers.lent() as words:
                run_network(self._alone, program.operations, first, last, self._first, self._count, words, False)

    def _run_comparing_all(self) -> None:
        """Advance all operations; where a delta layer finishes one, as if all of its inputs had changed."""
        for first, last in self.program.sections:
            if self.program.plan.runs_in_python(self.program.plan.operations[first]):
                self.run(first, last)
                continue
            for place in range(first, last):
                self._run_comparing(place)

    def _run_comparing(self, place: int) -> None:
        arrays, before = self.memory_arrays, []
        for index in self.program.read_at(place) if self._anew or self._follows[place] else ():
            height, width, _, _, _, mask = self.program.tensors[index]
            masks = arrays.masks[mask : mask + height * width]
            before.append((index, arrays.changed[index], masks, masks.copy()))
            masks[:] = 1
            arrays.changed[index] = height * width
        self.run(place, place + 1)
        for index, changed, masks, as_it_was in reversed(before):  # for whatever reads them next, and for the counts
            masks[:] = as_it_was
            arrays.changed[index] = changed

    def _run_delta_of_state(self, place: int, operation: Operation) -> None:
        delta = operation.finish.delta
        assert delta is not None
        threshold = self.program.plan.arrays[delta.threshold]
        threshold = threshold * np.float32(self._sensitivity) if self._follows[place] else threshold
        given = self.value(operation.inputs[0])
        self._keep(place, operation, sent(delta, given, self._held(operation), threshold))

    def _held(self, operation: Operation) -> np.ndarray | None:
        """What a delta layer has sent last; None where it begins."""
        first = self.fresh or (self._restarting and operation.restarts)
        return None if first else self.value(operation.output)

    def _run_own_rule(self, place: int, operation: Operation) -> None:
        before = self._held(operation)
        given = self.value(operation.inputs[0])
        self._keep(place, operation, sent_by_own_rule(self.program.plan, operation, given, before, self._sensitivity))

    def _run_keras(self, first: int, last: int) -> None:
        plan, changed = self.program.plan, self.memory_arrays.changed
        operations, read = plan.operations[first:last], plan.read_by(first, last)
        results: Sequence[np.ndarray | None] = [None] * len(operations)
        if self.fresh or changed[read].any():
            given = {index: self.value(index).reshape(plan.tensors[index].sample_shape) for index in read}
            results = self._keras_call(operations, given)
        for place, operation, result in zip(range(first, last), operations, results, strict=True):
            moved = self.fresh or changed[list(operation.inputs)].any()
            self._keep(place, operation, result if moved else None)

    def _keep(self, place: int, operation: Operation, result: np.ndarray | None) -> None:
        """Note the values of an operation that Python has computed, and what of them changed; None: nothing did."""
        arrays = self.memory_arrays
        height, width, channels, _, _, mask = self.program.tensors[operation.output]
        masks, counts = (array[mask : mask + height * width] for array in (arrays.masks, arrays.counts))
        masks[:] = 0
        arrays.changed[operation.output] = 0
        if result is None:
            return
        kept, result = self._views[operation.output], result.reshape(height, width, channels)
        differing = np.full((height, width), channels) if self.fresh else (result != kept).sum(axis=-1)
        kept[:] = result
        counts[:] = differing.ravel()
        masks[:] = counts > 0
        arrays.changed[operation.output] = np.count_nonzero(counts)
        self.counters[place, :3] += (height * width, arrays.changed[operation.output], differing.sum())
        self.counters[place, layout.EFFECTIVE] += 0 if operation.fan else operation.dense_macs or 0


def step_together(states: Sequence[NumbaState], frames: Sequence[np.ndarray]) -> None:
    """Advance several streams of one program by a frame each, as they would advance alone."""
    for state, frame in zip(states, frames, strict=True):
        state.begin(frame)
    together = [state for state in states if not state.compares_all]
    if together:
        tables = np.stack([state.table for state in together])
        fresh = np.array([state.fresh for state in together], np.uint8)
        program, counts = together[0].program, np.empty(len(together), np.int64)
        for first, last in program.sections:
            if together[0].runs_alone(first):
                for state in together:
                    state.run(first, last)
            else:
                with program.working.lent_together(tables):
                    run_network(tables, program.operations, first, last, fresh, counts, NO_TEAM, False)
    for state in states:
        state.end()
