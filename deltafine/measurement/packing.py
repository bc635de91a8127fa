"""Masks as bits, in vector code: where numba is installed, one pass over the values does for four."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from deltafine.runtime.kernels import entry
from deltafine.runtime.kernels.vectors import LANES, VECTOR, Emitter, number


@intrinsic
def _compare_vectors(
    typing_context: Any, values: Any, start: Any, before: Any, vectors: Any, nonzero: Any, changed: Any
) -> Any:
    """From ``values[start:]`` on, which of so many vectors' values are not 0, and which differ from ``before`` on."""
    signature = types.void(values, start, before, vectors, nonzero, changed)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Emitter(context, builder, signature, args)
        row, other = builder.gep(emit.data(0), [args[1]]), builder.gep(emit.data(0), [args[2]])
        mask = ir.IntType(LANES)
        byte = builder.sdiv(args[1], number(8))
        targets = [builder.bitcast(builder.gep(emit.data(place), [byte]), mask.as_pointer()) for place in (4, 5)]
        zero = ir.Constant(VECTOR, [0.0] * LANES)

        def one_vector(index: Any, carried: list[Any]) -> list[Any]:
            at = [builder.mul(index, number(LANES))]
            x = emit.load(builder.gep(row, at))
            for target, y in zip(targets, (zero, emit.load(builder.gep(other, at))), strict=True):
                differ = builder.bitcast(builder.fcmp_unordered("!=", x, y), mask)
                builder.store(differ, builder.gep(target, [index]), align=1)
            return []

        emit.loop(args[3], [], one_vector)
        return context.get_dummy_value()

    return signature, generate


@entry
def _pack(values: np.ndarray, size: int, nonzero: np.ndarray, changed: np.ndarray) -> None:
    for begin, end, distance in ((0, size, 0), (size, len(values), size)):
        vectors = (end - begin) // LANES
        if vectors:
            _compare_vectors(values, begin, begin - distance, vectors, nonzero, changed)
        for i in range(begin + vectors * LANES, end):
            bit = np.uint8(1 << (i % 8))
            if values[i] != 0:
                nonzero[i // 8] |= bit
            if values[i] != values[i - distance]:
                changed[i // 8] |= bit


def pack(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which values are not 0, and which differ from the frame before; NaN differs from everything.

    Args:
        frames: (frames, values) float32, contiguous; the number of values a multiple of 8.

    Returns:
        Two arrays (frames, values / 8) uint8, a bit per value, the lowest bit first. In the first frame those of the
        second array have no meaning.
    """
    nonzero, changed = (np.zeros(frames.size // 8, np.uint8) for _ in range(2))
    _pack(frames.reshape(-1), frames.shape[1], nonzero, changed)
    return nonzero.reshape(len(frames), -1), changed.reshape(len(frames), -1)
