"""The state of one stream in 8-bit integers, advanced by the compiled kernels."""

from __future__ import annotations

import numpy as np

from deltafine.runtime.array_sizes import aligned, owned_bytes
from deltafine.runtime.int8.byte_program import ByteProgram
from deltafine.runtime.kernels.byte_memory import ByteMemory
from deltafine.runtime.kernels.byte_network import run_bytes
from deltafine.runtime.kernels.memory import addresses
from deltafine.runtime.numba_stream import KerasCall, NumbaState


class ByteState(NumbaState):
    """One stream. To be used by one thread at a time."""

    program: ByteProgram

    def __init__(self, program: ByteProgram, keras_call: KerasCall) -> None:
        self._bytes = ByteMemory(
            operations=program.byte_operations,
            weights=program.byte_weights,
            whole=program.whole,
            factors=program.factors,
            near=program.near,
            far=program.far,
            levels=aligned(np.zeros(program.level_count, np.uint8)),
            sums=np.zeros(0, np.int32),
            line=np.zeros(0, np.uint8),
            tables=program.byte_tables,
        )
        self._byte_table = addresses(self._bytes)
        super().__init__(program, keras_call)

    def reset(self) -> None:
        super().reset()
        for index, piece, around in self.program.around:
            grid = self.program.plan.grids[index]
            assert grid is not None
            self._bytes.levels[piece] = around
            self._views[index][:] = grid.zero

    def set_sensitivity(self, sensitivity: float, *, compare_all: bool) -> None:
        super().set_sensitivity(sensitivity, compare_all=compare_all)
        near, far = self.program.byte_limits(sensitivity)
        self._bytes = self._bytes._replace(near=near, far=far)
        self._byte_table = addresses(self._bytes)

    @property
    def memory(self) -> int:
        own = [self._bytes.levels, self._byte_table]
        if self._bytes.near is not self.program.near:
            own += [self._bytes.near, self._bytes.far]
        return super().memory + owned_bytes(own)

    def value(self, index: int) -> np.ndarray:
        grid = self.program.plan.grids[index]
        return super().value(index) if grid is None else grid.numbers(self._views[index])

    def runs_alone(self, first: int) -> bool:
        plan = self.program.plan
        return plan.on_bytes(plan.operations[first]) or super().runs_alone(first)

    def run(self, first: int, last: int) -> None:
        plan = self.program.plan
        if plan.on_bytes(plan.operations[first]):
            program = self.program
            with (
                program.working.lent(self.table),
                program.sums.lent(self._byte_table),
                program.byte_helpers.lent() as words,
            ):
                run_bytes(self.table, self._byte_table, program.operations, first, last, self.fresh, words, False)
        else:
            super().run(first, last)

    def _lines_of(self, index: int) -> np.ndarray:
        if self.program.plan.grids[index] is None:
            return super()._lines_of(index)
        height, width, channels, origin, pitch, _ = self.program.tensors[index]
        return np.lib.stride_tricks.as_strided(
            self._bytes.levels[origin:], (height, width, channels), (pitch, channels, 1), writeable=True
        )
