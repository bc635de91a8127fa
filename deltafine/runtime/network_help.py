"""What a helper of a stream does, and what it works in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deltafine.runtime.kernels import columns as layout
from deltafine.runtime.kernels.memory import CHANGED, COLUMNS, SCRATCH, TALLY, Memory, addresses
from deltafine.runtime.kernels.network import run_network
from deltafine.runtime.working_space import tools

if TYPE_CHECKING:
    from deltafine.runtime.packed_plan import Program


class NetworkHelp:
    """Computes pieces of operations for a stream, until there was nothing to do for a while.

    It has a scratch, changes and counters of its own, holds no more of a program than it needs, and so does not keep it
    alive.

    Args:
        program: whose operations they are.
        words: of the team.
    """

    def __init__(self, program: Program, words: np.ndarray) -> None:
        self.words, self.operations = words, program.operations
        counters = np.zeros((len(program.operations), layout.COUNTERS), np.int64)
        made = tools(program, together=False)
        self.tables = np.zeros((1, len(Memory._fields), COLUMNS), np.int64)
        self.tables[0, SCRATCH : SCRATCH + len(made)] = addresses(made)
        changed = np.zeros(len(program.tensors), np.int64)
        self.tables[0, CHANGED], self.tables[0, TALLY] = addresses([changed, counters])
        self.arrays = [*made, changed, counters, self.tables]
        self._unused = np.zeros(1, np.uint8), np.zeros(1, np.int64)

    def __call__(self) -> None:
        run_network(self.tables, self.operations, 0, 0, *self._unused, self.words, True)
