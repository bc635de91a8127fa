"""The arrays that kernels work on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array


class Memory(NamedTuple):
    """What one stream computes with. The first group is the model's and shared by its streams, the second its state.

    In between, ``scratch`` to ``changes`` are lent while kernels run, see ``deltafine.runtime.working_space``.

    Attributes:
        weights: float32, packed weights, scales, shifts and parameters.
        fans: int32 fan-outs.
        links: int64, lists of inputs and of offsets.
        tensors: int64 (tensors, TENSOR_COLUMNS).
        levels: uint8, for the values of a line of the input, or of the frame if their thresholds differ: bytes that are
            less apart are not sent.
        thresholds: float32, of delta layers. A stream that multiplies them has its own, and its own ``levels``.
        arena: float32, every value with the zeros around it.
        masks: uint8, 1 for each position that changed in this frame.
        counts: int32, how many channels of it changed.
        changed: int64 per tensor, positions that changed.
        sums: float64, what convolutions by events have added up.
        before: float32, the inputs that these sums stand for.
        scratch: float32, rows being computed.
        line: int64, as bits, which positions of a line changed; 0 but while it is looked at.
        chosen: int64, channels that changed at one position.
        changes: float64, by how much they did.
        active: int64, positions being computed.
        offsets: int64, where each of them reads.
        targets: int64, where each of them is written.
        sent_bytes: uint8, the byte of each value of a frame that was sent last; as long as all frames are bytes.
        stale: int64 per tensor, quiet frames to wait for before its ``sums`` are taken again; 0 while they hold, -1
            when it is time.
        largest: float64 per tensor, the largest value that its ``sums`` have held.
        looks: int64 per tensor, how often it was asked whether they still hold.
        counters: int64 (operations, COUNTERS), what the frame takes.
        numbers: float32, the frame to be read, unless ``pixels`` has any.
        pixels: uint8, the frame to be read.
    """

    weights: np.ndarray
    fans: np.ndarray
    links: np.ndarray
    tensors: np.ndarray
    levels: np.ndarray
    thresholds: np.ndarray
    arena: np.ndarray
    masks: np.ndarray
    counts: np.ndarray
    changed: np.ndarray
    sums: np.ndarray
    before: np.ndarray
    scratch: np.ndarray
    line: np.ndarray
    chosen: np.ndarray
    changes: np.ndarray
    active: np.ndarray
    offsets: np.ndarray
    targets: np.ndarray
    sent_bytes: np.ndarray
    stale: np.ndarray
    largest: np.ndarray
    looks: np.ndarray
    counters: np.ndarray
    numbers: np.ndarray
    pixels: np.ndarray


OWN = Memory._fields[Memory._fields.index("arena") : -2]
"""The second group, without the frames, which are the caller's or a buffer's."""
ARENA, CHANGED, SCRATCH, ACTIVE, TALLY, NUMBERS, PIXELS = (
    Memory._fields.index(name) for name in ("arena", "changed", "scratch", "active", "counters", "numbers", "pixels")
)
"""Rows of a table of addresses."""

_TYPES = (
    types.float32, types.int32, types.int64, types.int64, types.uint8, types.float32, types.float32, types.uint8,
    types.int32, types.int64, types.float64, types.float32, types.float32, types.int64, types.int64, types.float64,
    types.int64, types.int64, types.int64, types.uint8, types.int64, types.float64,
    types.int64, types.int64, types.float32, types.uint8,
)  # fmt: skip
_ARRAYS: list[Any] = [
    types.Array(of, 1 + (name in ("tensors", "counters")), "C") for name, of in zip(Memory._fields, _TYPES, strict=True)
]
COLUMNS = 3


def addresses(memory: Iterable[np.ndarray]) -> np.ndarray:
    """Where each array lies, and its shape, int64 (arrays, COLUMNS); the arrays have to live on while it is used."""
    return np.array([(array.ctypes.data, *array.shape, 1)[:COLUMNS] for array in memory], np.int64)


def unpacker(kind_of_memory: Any, kinds: Sequence[Any]) -> Any:
    """A function that makes of a table the memory that ``addresses`` were taken of.

    Kernels hand the table on to each other, and make of it what they need: all arrays would be more than a hundred
    numbers to copy with every call. They have no count of references either, which would go up and down each time.

    Args:
        kind_of_memory: a named tuple.
        kinds: numba's types of its arrays.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rows = context.make_array(signature.args[0])(context, builder, args[0]).data
        arrays = []
        for number, kind in enumerate(kinds):
            address, *shape = (
                builder.load(cgutils.gep_inbounds(builder, rows, number * COLUMNS + column))
                for column in range(1 + kind.ndim)
            )
            size = context.get_constant(types.intp, kind.dtype.bitwidth // 8)
            strides = [size] if kind.ndim == 1 else [builder.mul(shape[1], size), size]
            array = context.make_array(kind)(context, builder)
            data = builder.inttoptr(address, array.data.type)
            populate_array(array, data=data, shape=shape, strides=strides, itemsize=size, meminfo=None)
            arrays.append(array._getvalue())
        return context.make_tuple(builder, signature.return_type, arrays)

    @intrinsic
    def unpack(typing_context: Any, table: Any) -> Any:
        return types.NamedTuple(kinds, kind_of_memory)(table), generate  # type: ignore[attr-defined]

    return unpack


unpack = unpacker(Memory, _ARRAYS)
