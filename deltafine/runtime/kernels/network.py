"""Running a piece of a compiled plan in one call."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import cgutils
from numba.extending import intrinsic

from deltafine.runtime.kernels import columns as at
from deltafine.runtime.kernels import entry
from deltafine.runtime.kernels.by_table import attend, blend, constant, gather
from deltafine.runtime.kernels.event_convolution import convolve_events, should_send_events
from deltafine.runtime.kernels.frame_intake import read_frame
from deltafine.runtime.kernels.magnitudes import INFINITE, largest_bits
from deltafine.runtime.kernels.memory import unpack
from deltafine.runtime.kernels.moves import concatenate, place, reshape
from deltafine.runtime.kernels.row_convolution import convolve
from deltafine.runtime.kernels.rows import combine, pool, pool_everything


@intrinsic
def borrowed(typing_context: Any, array: Any) -> Any:
    """The same array without a count of its references, which would go up and down with every call."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        view = context.make_array(array)(context, builder, args[0])
        view.meminfo = cgutils.get_null_value(view.meminfo.type)
        return view._getvalue()

    return array(array), generate


@entry
def run_network(
    table: np.ndarray, operations: np.ndarray, first: int, last: int, frame: np.ndarray, pixels: np.ndarray,
    fresh: bool, counters: np.ndarray,
) -> None:  # fmt: skip
    """Advance operations ``first`` to ``last - 1`` by one frame: ``pixels`` (uint8), or ``frame`` if that is empty.

    Args:
        table: ``addresses`` of the stream's memory.
    """
    table, operations, counters = borrowed(table), borrowed(operations), borrowed(counters)
    frame, pixels = borrowed(frame), borrowed(pixels)
    for i in range(first, last):
        operation = operations[i]
        kind = operation[at.KIND]
        by_events = operation[at.EVENTS] >= 0 and should_send_events(table, operation, fresh)
        if by_events and convolve_events(table, operation, fresh, counters[i]):
            continue
        if kind == at.K_CONV or kind == at.K_DEPTHWISE:
            convolve(table, operation, kind == at.K_DEPTHWISE, fresh, counters[i])
        elif kind == at.K_INPUT:
            if len(pixels):
                read_frame(table, operation, pixels, fresh, counters, i)
            else:
                read_frame(table, operation, frame, fresh, counters, i)
        elif kind == at.K_MAX_POOL or kind == at.K_AVERAGE_POOL:
            pool(table, operation, fresh, counters[i])
        elif kind == at.K_GLOBAL_AVERAGE or kind == at.K_GLOBAL_MAX:
            pool_everything(table, operation, fresh, counters[i])
        elif kind == at.K_PLACE:
            place(table, operation, fresh, counters[i])
        elif kind == at.K_RESHAPE:
            reshape(table, operation, fresh, counters[i])
        elif kind == at.K_CONCATENATE:
            concatenate(table, operation, fresh, counters[i])
        elif kind == at.K_GATHER:
            gather(table, operation, fresh, counters[i])
        elif kind == at.K_BLEND:
            blend(table, operation, fresh, counters[i])
        elif kind == at.K_CONSTANT:
            constant(table, operation, fresh, counters[i])
        elif kind == at.K_ATTENTION:
            attend(table, operation, fresh, counters[i])
        elif kind != at.K_DONE:
            combine(table, operation, fresh, counters[i])


@entry
def all_finite(values: np.ndarray) -> bool:
    """Whether float32 values are neither NaN nor infinite."""
    return largest_bits(values) < INFINITE


@entry
def count_macs(table: np.ndarray, operations: np.ndarray, counters: np.ndarray) -> None:
    """Effective MACs of the last frame: changed elements of each input, each times the weights that it meets."""
    memory = unpack(table)
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
