"""What a helper of a stream in 8-bit integers does, and what it works in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deltafine.runtime.kernels.byte_memory import FIELDS, SUMS
from deltafine.runtime.kernels.byte_network import run_bytes
from deltafine.runtime.kernels.memory import COLUMNS, addresses
from deltafine.runtime.network_help import NetworkHelp

if TYPE_CHECKING:
    from deltafine.runtime.int8.byte_program import ByteProgram


class ByteHelp(NetworkHelp):
    """Computes pieces of operations on bytes, with sums and a line of its own as well."""

    def __init__(self, program: ByteProgram, words: np.ndarray) -> None:
        super().__init__(program, words)
        sums = program.room_for_sums()
        self._more = np.zeros((FIELDS, COLUMNS), np.int64)
        self._more[SUMS : SUMS + len(sums)] = addresses(sums)
        self.arrays += [*sums, self._more]

    def __call__(self) -> None:
        run_bytes(self.tables[0], self._more, self.operations, 0, 0, False, self.words, True)
