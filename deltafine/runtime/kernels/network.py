"""Running a piece of a compiled plan in one call."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import cgutils
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
def borrowed(typing_context: Any, array: Any) -> Any:
    """The same array without a count of its references, which would go up and down with every function that is called.

    Its owner has to live on meanwhile.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        view = context.make_array(array)(context, builder, args[0])
        view.meminfo = cgutils.get_null_value(view.meminfo.type)
        return view._getvalue()

    return array(array), generate


@kernel
def _borrow(memory: Memory) -> Memory:
    return Memory(
        borrowed(memory.weights),
        borrowed(memory.fans),
        borrowed(memory.links),
        borrowed(memory.tensors),
        borrowed(memory.arena),
        borrowed(memory.masks),
        borrowed(memory.counts),
        borrowed(memory.changed),
        borrowed(memory.sums),
        borrowed(memory.before),
        borrowed(memory.scratch),
        borrowed(memory.active),
        borrowed(memory.offsets),
        borrowed(memory.targets),
        borrowed(memory.line),
        borrowed(memory.chosen),
        borrowed(memory.changes),
        borrowed(memory.stale),
    )


@entry
def run_network(
    memory: Memory, operations: np.ndarray, first: int, last: int, frame: np.ndarray, pixels: np.ndarray, fresh: bool,
    counters: np.ndarray,
) -> None:  # fmt: skip
    """Advance operations ``first`` to ``last - 1`` by one frame: ``pixels`` (uint8), or ``frame`` if that is empty."""
    memory, operations, counters = _borrow(memory), borrowed(operations), borrowed(counters)
    frame, pixels = borrowed(frame), borrowed(pixels)
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
