"""Memory that kernels need while they run, and leave nothing in: it is lent to streams, and does not belong to any.

Only as much is made as is in use at the same time: streams that one thread advances one by one share all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import numpy as np

from deltafine.runtime.array_sizes import aligned
from deltafine.runtime.kernels import columns as layout
from deltafine.runtime.kernels.bit_sets import BITS
from deltafine.runtime.kernels.memory import ACTIVE, SCRATCH, addresses
from deltafine.runtime.kernels.row_convolution import FEWEST_ROWS, MOST_ROWS, SCRATCH_VALUES
from deltafine.runtime.kernels.rows import PIECE
from deltafine.runtime.kernels.vectors import LANES

if TYPE_CHECKING:
    from deltafine.runtime.packed_plan import Program


class Lender:
    """Groups of arrays of one size. Any thread may borrow one.

    Args:
        make: makes a group of arrays.
        first: the row of a table of addresses in which the first of them stands; the others follow.

    Attributes:
        arrays: of all groups that were made, and their addresses.
    """

    def __init__(self, make: Callable[[], Sequence[np.ndarray]], first: int) -> None:
        self._make, self._first = make, first
        self._free: list[np.ndarray] = []
        self.arrays: list[np.ndarray] = []

    def lent(self, table: np.ndarray) -> _Loan:
        """For as long as one is in it, a group stands in a table of addresses."""
        return _Loan(self, table)

    def lend(self, table: np.ndarray) -> np.ndarray:
        """Write the addresses of a group into a table of them; returns these, to be given back."""
        try:
            rows = self._free.pop()  # at one stroke, whatever other threads do
        except IndexError:
            made = self._make()
            rows = addresses(made)
            self.arrays += [*made, rows]
        table[self._first : self._first + len(rows)] = rows
        return rows

    def take_back(self, rows: np.ndarray) -> None:
        """Others may have it."""
        self._free.append(rows)


class _Loan:
    """What ``contextlib.contextmanager`` would make, at a fifth of the time, which counts for small networks."""

    __slots__ = ("_lender", "_rows", "_table")

    def __init__(self, lender: Lender, table: np.ndarray) -> None:
        self._lender, self._table = lender, table

    def __enter__(self) -> None:
        self._rows = self._lender.lend(self._table)

    def __exit__(self, *exception: object) -> None:
        self._lender.take_back(self._rows)


class WorkingSpace:
    """What the kernels of a program need, for one stream or for several that are advanced together."""

    def __init__(self, program: Program) -> None:
        self._alone = Lender(lambda: tools(program, together=False) + _positions(program), SCRATCH)
        self._together = Lender(lambda: tools(program, together=True), SCRATCH)
        self._positions = Lender(lambda: _positions(program), ACTIVE)

    @property
    def arrays(self) -> list[np.ndarray]:
        """All that were made so far."""
        return [*self._alone.arrays, *self._together.arrays, *self._positions.arrays]

    def lent(self, table: np.ndarray) -> _Loan:
        """Let a stream work, as long as one is in it; ``table``: the addresses of its memory."""
        return self._alone.lent(table)

    @contextmanager
    def lent_together(self, tables: np.ndarray) -> Iterator[None]:
        """Let streams work together; all have the scratch of the first, which then stays in the cache.

        Args:
            tables: (streams, arrays, COLUMNS), the addresses of their memory.
        """
        with ExitStack() as loans:
            loans.enter_context(self._together.lent(tables[0]))
            tables[1:, SCRATCH:ACTIVE] = tables[0, SCRATCH:ACTIVE]
            for table in tables:
                loans.enter_context(self._positions.lent(table))
            yield


def most_rows(pitch: int) -> int:
    """Rows that are computed at a time at most, see ``piece_size``."""
    return min(max(SCRATCH_VALUES // pitch, FEWEST_ROWS), MOST_ROWS)


def tools(program: Program, *, together: bool) -> list[np.ndarray]:
    """``scratch`` to ``changes`` of the memory of a stream, of several that are ``together``, or of a helper."""
    operations, tensors = program.operations, program.tensors
    size = reach = 0
    for row, pitch, more in zip(operations, program.pitches(), program.scratch_of_operations(), strict=True):
        height, width, channels = tensors[row[layout.OUTPUT], : layout.ORIGIN]
        rows = most_rows(pitch) if together else min(most_rows(pitch), height * width)
        size = max(size, rows * pitch, min(PIECE, height * width) * channels, 2 * channels, more)
        sliding = (width + 1) * row[layout.STRIDE_W] + row[layout.KERNEL_W] * row[layout.DILATION_W] + row[layout.LEFT]
        source = program.links[row[layout.INPUTS]] if row[layout.INPUT_COUNT] else row[layout.OUTPUT]
        reach = max(reach, sliding + tensors[source, layout.WIDTH])
    widest = tensors[:, layout.CHANNELS].max()
    apart = widest + 2 * LANES * LANES  # rows that are kept apart for a while, see ``kernels.pieces``
    return [
        aligned(np.zeros(size + widest + 8 * LANES + apart, np.float32)),
        np.zeros(reach // BITS + 4, np.int64),
        np.zeros(widest + 1, np.int64),
        np.zeros(widest + 1, np.float64),
    ]


def _positions(program: Program) -> list[np.ndarray]:
    """``active`` to ``targets`` of a stream's memory; a frame is taken in without them."""
    outputs = program.operations[1:, layout.OUTPUT][program.operations[1:, layout.KIND] != layout.K_DONE]
    sizes = program.tensors[outputs, layout.HEIGHT] * program.tensors[outputs, layout.WIDTH]
    most = int(sizes.max(initial=1)) + 1
    # Behind the offsets of a stream stand those of a piece that streams share.
    return [np.zeros(size, np.int64) for size in (most, most + MOST_ROWS, most)]
