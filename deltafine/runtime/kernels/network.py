"""Running a piece of a compiled plan in one call."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray
from numba.core import cgutils, types
from numba.extending import intrinsic

from deltafine.runtime.kernels import entry, kernel
from deltafine.runtime.kernels import layout as at
from deltafine.runtime.kernels.events import convolve_events, should_send_events
from deltafine.runtime.kernels.frames import read_frame
from deltafine.runtime.kernels.memory import Memory
from deltafine.runtime.kernels.moves import concatenate, place, reshape
from deltafine.runtime.kernels.products import convolve
from deltafine.runtime.kernels.rows import combine, pool, pool_everything


@intrinsic
def _pointer(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@kernel
def _arrays(table: np.ndarray) -> tuple[Memory, np.ndarray, np.ndarray]:
    """The arrays that a row of ``addresses`` stands for each.

    They have no count of their references, which would go up and down with every function that is called.
    """
    memory = Memory(
        carray(_pointer(table[0, 0]), table[0, 1], np.float32),
        carray(_pointer(table[1, 0]), table[1, 1], np.int32),
        carray(_pointer(table[2, 0]), table[2, 1], np.int64),
        carray(_pointer(table[3, 0]), (table[3, 1], table[3, 2]), np.int64),
        carray(_pointer(table[4, 0]), table[4, 1], np.float32),
        carray(_pointer(table[5, 0]), table[5, 1], np.uint8),
        carray(_pointer(table[6, 0]), table[6, 1], np.int32),
        carray(_pointer(table[7, 0]), table[7, 1], np.int64),
        carray(_pointer(table[8, 0]), table[8, 1], np.float64),
        carray(_pointer(table[9, 0]), table[9, 1], np.float32),
        carray(_pointer(table[10, 0]), table[10, 1], np.float32),
        carray(_pointer(table[11, 0]), table[11, 1], np.int64),
        carray(_pointer(table[12, 0]), table[12, 1], np.int64),
        carray(_pointer(table[13, 0]), table[13, 1], np.int64),
        carray(_pointer(table[14, 0]), table[14, 1], np.int64),
        carray(_pointer(table[15, 0]), table[15, 1], np.int64),
        carray(_pointer(table[16, 0]), table[16, 1], np.float64),
        carray(_pointer(table[17, 0]), table[17, 1], np.int64),
    )
    operations = carray(_pointer(table[18, 0]), (table[18, 1], table[18, 2]), np.int64)
    counters = carray(_pointer(table[19, 0]), (table[19, 1], table[19, 2]), np.int64)
    return memory, operations, counters


def addresses(memory: Memory, operations: np.ndarray, counters: np.ndarray) -> np.ndarray:
    """Where the arrays lie and how large they are, int64 (arrays, 3); they have to live on while it is used.

    To take in one array takes numba a fraction of the time that it needs for all of them.
    """
    rows = [(array.ctypes.data, *array.shape, 0)[:3] for array in (*memory, operations, counters)]
    return np.array(rows, np.int64)


@entry
def run_network(
    table: np.ndarray, first: int, last: int, frame: np.ndarray, pixels: np.ndarray, fresh: bool
) -> None:  # fmt: skip
    """Advance operations ``first`` to ``last - 1`` by one frame: ``pixels`` (uint8), or ``frame`` if that is empty.

    Args:
        table: ``addresses`` of the stream, of the operations, and of the counters of each.
    """
    memory, operations, counters = _arrays(table)
    for i in range(first, last):
        operation = operations[i]
        kind = operation[at.KIND]
        if operation[at.EVENTS] >= 0 and should_send_events(memory, operation, fresh):
            convolve_events(memory, operation, fresh, counters[i])
        elif kind == at.K_CONV or kind == at.K_DEPTHWISE:
            convolve(memory, operation, kind == at.K_DEPTHWISE, fresh, counters[i])
        elif kind == at.K_INPUT:
            if len(pixels):
                read_frame(memory, operation, pixels, fresh, counters, i)
            else:
                read_frame(memory, operation, frame, fresh, counters, i)
        elif kind == at.K_MAX_POOL or kind == at.K_AVERAGE_POOL:
            pool(memory, operation, fresh, counters[i])
        elif kind == at.K_GLOBAL_AVERAGE or kind == at.K_GLOBAL_MAX:
            pool_everything(memory, operation, fresh, counters[i])
        elif kind == at.K_PLACE:
            place(memory, operation, fresh, counters[i])
        elif kind == at.K_RESHAPE:
            reshape(memory, operation, fresh, counters[i])
        elif kind == at.K_CONCATENATE:
            concatenate(memory, operation, fresh, counters[i])
        elif kind != at.K_DONE:
            combine(memory, operation, fresh, counters[i])


@entry
def count_macs(memory: Memory, operations: np.ndarray, counters: np.ndarray) -> None:
    """Effective MACs of the last frame: changed elements of each input, each times the weights that it meets."""
    for i in range(len(operations)):
        fan, index = operations[i, at.FAN], memory.links[operations[i, at.INPUTS]]
        if fan < 0 or memory.changed[index] == 0:
            continue
        begin = memory.tensors[index, at.MASK]
        total = 0
        for position in range(memory.tensors[index, at.HEIGHT] * memory.tensors[index, at.WIDTH]):
            if memory.masks[begin + position]:
                total += memory.counts[begin + position] * memory.fans[fan + position]
        counters[i, at.EFFECTIVE] = total
