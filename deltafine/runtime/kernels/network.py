"""Running a piece of a compiled plan in one call."""

from __future__ import annotations

import numpy as np

from deltafine.runtime.kernels import entry, kernel
from deltafine.runtime.kernels import layout as at
from deltafine.runtime.kernels.events import convolve_events, should_send_events
from deltafine.runtime.kernels.frames import read_frame
from deltafine.runtime.kernels.memory import WORD, Memory
from deltafine.runtime.kernels.moves import concatenate, place, reshape
from deltafine.runtime.kernels.products import convolve
from deltafine.runtime.kernels.rescale import only_rescales, rescale
from deltafine.runtime.kernels.rows import combine, pool, pool_everything


@kernel
def _effective_macs(memory: Memory, operation: np.ndarray, fresh: bool) -> int:
    """Changed elements of the input, each times the weights that it meets."""
    index = memory.links[operation[at.INPUTS]]
    tensor = memory.tensors[index]
    if memory.changed[index] == 0 and not fresh:
        return 0
    size, begin, fan = tensor[at.HEIGHT] * tensor[at.WIDTH], tensor[at.MASK], operation[at.FAN]
    masks, counts = memory.masks[begin : begin + size], memory.counts[begin : begin + size]
    fans = memory.fans[fan : fan + size]
    total = 0
    for word in range(0, size, WORD):
        if memory.mask_words[(begin + word) // WORD]:
            for position in range(word, min(word + WORD, size)):
                total += counts[position] * masks[position] * fans[position]
    return total


@entry
def run_network(
    memory: Memory, operations: np.ndarray, first: int, last: int, frame: np.ndarray, fresh: bool, count: bool,
    counters: np.ndarray,
) -> None:  # fmt: skip
    """Advance operations ``first`` to ``last - 1`` by one frame."""
    for i in range(first, last):
        operation = operations[i]
        kind = operation[at.KIND]
        if count and operation[at.FAN] >= 0:
            counters[i, at.EFFECTIVE] += _effective_macs(memory, operation, fresh)
        if operation[at.EVENTS] >= 0 and should_send_events(memory, operation, fresh):
            convolve_events(memory, operation, fresh, counters[i])
        elif kind == at.K_CONV or kind == at.K_DEPTHWISE:
            convolve(memory, operation, kind == at.K_DEPTHWISE, fresh, counters[i])
        elif kind == at.K_IDENTITY and only_rescales(memory, operation):
            rescale(memory, operation, fresh, counters[i])
        elif kind == at.K_INPUT:
            read_frame(memory, operation, frame, fresh, counters[i])
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
        else:
            combine(memory, operation, fresh, counters[i])
