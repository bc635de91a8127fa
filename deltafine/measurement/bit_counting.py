"""Counting as ``counting.count`` does, with a bit per value: where numba is installed.

Which values are not 0, and which have changed, are masks of a bit per value; what is asked about a mask is how many
bits of some choice are set. Weights are whole numbers: each of their binary digits is such a choice of bits, a plane.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from deltafine.runtime.kernels import entry
from deltafine.runtime.kernels.vectors import LANES, VECTOR, Emitter, number

WORD = 64
"""Bits; every frame starts a word."""


@dataclass(frozen=True)
class Planes:
    """Weights of the values of a frame, taken apart into choices of bits.

    Attributes:
        bits: (planes, steps of time or 1, words) uint64; the first plane has all bits.
        factors: (planes, 1 + fan-outs) int64, what a bit of each plane counts: for the first sum, which is not
            weighted, and for each fan-out.
    """

    bits: np.ndarray
    factors: np.ndarray

    @classmethod
    def of(cls, fans: Sequence[np.ndarray], space: Sequence[int], channels: int) -> Planes:
        """Fan-outs that broadcast to one frame (*space, channels), or with time first."""
        frame = (*space, channels)
        planes, factors = [_words_of(np.ones((1, *frame), bool))], [(0, 0, 1)]
        for column, fan in enumerate(fans, start=1):
            divisor = max(1, int(np.gcd.reduce(fan, axis=None)))
            if fan.size == 1:
                factors.append((0, column, int(fan.reshape(()))))
                continue
            steps = fan if fan.ndim > len(frame) else fan[None]
            digits = np.broadcast_to(steps // divisor, (len(steps), *frame))
            for digit in range(int(digits.max()).bit_length()):
                factors.append((len(planes), column, divisor << digit))
                planes.append(_words_of((digits >> digit) & 1))
        matrix = np.zeros((len(planes), 1 + len(fans)), np.int64)
        for plane, column, factor in factors:
            matrix[plane, column] = factor
        most = max(len(plane) for plane in planes)
        return cls(np.stack([np.broadcast_to(plane, (most, plane.shape[1])) for plane in planes]), matrix)


def _words_of(bits: np.ndarray) -> np.ndarray:
    """(steps, ...) 0 or 1 to (steps, words) uint64, the lowest bit first, filled up with 0."""
    rows = bits.reshape(len(bits), -1)
    padded = np.zeros((len(rows), -(-rows.shape[1] // WORD) * WORD), np.uint8)
    padded[:, : rows.shape[1]] = rows
    return np.packbits(padded, axis=1, bitorder="little").view(np.uint64)


def count(
    row: np.ndarray, before: np.ndarray | None, time: int, planes: Planes
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count values that are not 0, and values that differ from the frame before; NaN differs from everything.

    Args:
        row: (frames, positions, channels) float32, contiguous; ``time`` frames of one clip after those of another.
        before: (clips, positions, channels), the frame before each clip; None: a clip has changed nowhere at first.
        time: frames of a clip.
        planes: of such a frame.

    Returns:
        (frames, 1 + fan-outs) int64 for those not 0 and for those changed: how many, and their weights' sums; and
        (frames,) int64, positions where any value has changed.
    """
    frames, positions, channels = row.shape
    nonzero, changed = (np.zeros((frames, planes.bits.shape[2]), np.uint64) for _ in range(2))
    start = row[:0] if before is None else np.ascontiguousarray(before)
    _pack(row.reshape(-1), start.reshape(-1), time, positions * channels, nonzero, changed)
    sums = [np.empty((frames, len(planes.bits)), np.int64) for _ in range(2)]
    touched = np.empty(frames, np.int64)
    _sum(nonzero, planes.bits, sums[0])
    _sum(changed, planes.bits, sums[1])
    if channels == 1:
        touched[:] = sums[1][:, 0]
    elif channels < WORD:
        _count_narrow_positions(changed, positions, channels, touched)
    else:
        _count_wide_positions(changed, positions, channels, touched)
    return sums[0] @ planes.factors, sums[1] @ planes.factors, touched


@intrinsic
def _ones(typing_context: Any, word: Any) -> Any:
    """How many bits of a word are set."""
    return types.uint64(types.uint64), lambda context, builder, signature, args: builder.ctpop(args[0])


@intrinsic
def _compare_vectors(
    typing_context: Any,
    values: Any,
    at: Any,
    others: Any,
    other_at: Any,
    count: Any,
    nonzero: Any,
    changed: Any,
    to: Any,
) -> Any:
    """``count`` vectors of ``values[at:]``: which are not 0, and which differ from ``others[other_at:]``.

    The masks, of words, are written from their byte ``to`` on.
    """
    signature = types.void(values, at, others, other_at, count, nonzero, changed, to)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        emit = Emitter(context, builder, signature, args)
        row, other = builder.gep(emit.data(0), [args[1]]), builder.gep(emit.data(2), [args[3]])
        mask, byte = ir.IntType(LANES), ir.IntType(8).as_pointer()
        starts = [builder.gep(builder.bitcast(emit.data(place), byte), [args[7]]) for place in (5, 6)]
        targets = [builder.bitcast(start, mask.as_pointer()) for start in starts]
        zero = ir.Constant(VECTOR, [0.0] * LANES)

        def one_vector(index: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
            place = [builder.mul(index, number(LANES))]
            x = emit.load(builder.gep(row, place))
            for target, y in zip(targets, (zero, emit.load(builder.gep(other, place))), strict=True):
                differ = builder.bitcast(builder.fcmp_unordered("!=", x, y), mask)
                builder.store(differ, builder.gep(target, [index]), align=1)
            return []

        emit.loop(args[4], [], one_vector)
        return context.get_dummy_value()

    return signature, generate


@entry
def _pack(
    values: np.ndarray, before: np.ndarray, time: int, size: int, nonzero: np.ndarray, changed: np.ndarray
) -> None:
    frames, words = nonzero.shape
    vectors = size // LANES
    for frame in range(frames):
        at = frame * size
        fresh = frame % time == 0
        others, other_at = values, at - size
        if fresh:
            others, other_at = (before, frame // time * size) if len(before) else (values, at)
        if vectors:
            _compare_vectors(values, at, others, other_at, vectors, nonzero, changed, frame * words * 8)
        for i in range(vectors * LANES, size):
            bit = np.uint64(1) << np.uint64(i % 64)
            if values[at + i] != 0:
                nonzero[frame, i // 64] |= bit
            if values[at + i] != others[other_at + i]:
                changed[frame, i // 64] |= bit
        if fresh and not len(before):
            changed[frame] = 0


@entry
def _sum(bits: np.ndarray, planes: np.ndarray, sums: np.ndarray) -> None:
    number, steps, words = planes.shape
    for frame in range(len(bits)):
        for plane in range(number):
            total = np.uint64(0)
            for word in range(words):
                total += _ones(bits[frame, word] & planes[plane, frame % steps, word])
            sums[frame, plane] = total


@entry
def _count_narrow_positions(bits: np.ndarray, positions: int, channels: int, touched: np.ndarray) -> None:
    """Positions of fewer channels than a word has bits; ``bits`` are lost."""
    frames, words = bits.shape
    starts = np.zeros(words, np.uint64)
    for position in range(positions):
        first = position * channels
        starts[first // 64] |= np.uint64(1) << np.uint64(first % 64)
    for frame in range(frames):
        seen = 1
        while seen < channels:  # each bit stands for ``seen`` bits from it on; twice as many each time
            shift = np.uint64(min(seen, channels - seen))
            for word in range(words - 1):
                own, following = bits[frame, word], bits[frame, word + 1]
                bits[frame, word] = own | (own >> shift) | (following << (np.uint64(64) - shift))
            bits[frame, words - 1] |= bits[frame, words - 1] >> shift
            seen += min(seen, channels - seen)
        total = np.uint64(0)
        for word in range(words):
            total += _ones(bits[frame, word] & starts[word])
        touched[frame] = total


@entry
def _count_wide_positions(bits: np.ndarray, positions: int, channels: int, touched: np.ndarray) -> None:
    """Positions of at least as many channels as a word has bits."""
    everything = ~np.uint64(0)
    for frame in range(len(bits)):
        total = 0
        for position in range(positions):
            begin, end = position * channels, (position + 1) * channels
            first, last = begin // 64, end // 64
            found = bits[frame, first] & (everything << np.uint64(begin % 64))
            for word in range(first + 1, last):
                found |= bits[frame, word]
            if end % 64:
                found |= bits[frame, last] & ~(everything << np.uint64(end % 64))
            total += found != 0
        touched[frame] = total
