"""Vector code on bytes, written as LLVM instructions: dot products of four, and whole numbers made bytes.

A vector of so many bytes goes with four vectors of a quarter as many 32-bit numbers. Of each 16 bytes, numbers 4 j + i
stand in vector j, so that the processor's instructions, which work within 16 bytes, put them in order.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba.core import cgutils

from deltafine.runtime.kernels.vectors import I8, I32, I64, Emitter

I16 = ir.IntType(16)
LANE = 16
"""Bytes within which instructions of a processor put things in order."""


def _features() -> set[str]:
    from numba import config

    if config.CPU_FEATURES:
        return {name[1:] for name in config.CPU_FEATURES.split(",") if name.startswith("+")}
    return {name for name, there in llvm.get_host_cpu_features().items() if there}


def _instructions() -> str:
    """What dot products are made of.

    ``dots``, ``short dots`` (256 bits at most) and ``pairs`` on x86, ``arm dots`` and ``arm pairs``, else ``any``.
    """
    machine, found = platform.machine().lower(), _features()
    if machine in ("aarch64", "arm64"):
        return "arm dots" if "dotprod" in found else "arm pairs"
    if machine not in ("x86_64", "amd64"):
        return "any"
    if {"avx512vnni", "avx512bw", "avx512vl"} <= found:
        return "dots"
    if {"avx2", "avxvnni"} <= found:
        return "short dots"
    return "pairs" if "avx2" in found else "any"


INSTRUCTIONS = _instructions()
ON_X86 = INSTRUCTIONS in ("dots", "short dots", "pairs")
BYTES = 64 if INSTRUCTIONS == "dots" else 32
"""In a vector."""
WIDTHS = tuple(width for width in (16, 32, 64) if width <= BYTES)
"""Bytes of the vectors that the rest of a row may fill."""

_BITS = {16: 128, 32: 256, 64: 512}
_MULTIPLY_BYTES = {16: "ssse3.pmadd.ub.sw.128", 32: "avx2.pmadd.ub.sw"}
_MULTIPLY_WORDS = {16: "sse2.pmadd.wd", 32: "avx2.pmadd.wd", 64: "avx512.pmaddw.d.512"}
_PACK_NUMBERS = {16: "sse2.packssdw.128", 32: "avx2.packssdw", 64: "avx512.packssdw.512"}
_PACK_WORDS = {16: "sse2.packuswb.128", 32: "avx2.packuswb", 64: "avx512.packuswb.512"}


def places_of_channels(width: int) -> np.ndarray:
    """Where the numbers of ``width`` bytes side by side stand among those of the four vectors, one behind the other."""
    byte = np.arange(width)
    lane, within = byte // LANE, byte % LANE
    return (within // 4) * (width // 4) + lane * 4 + within % 4


class ByteEmitter(Emitter):
    """Helpers for one piece of vector code, with vectors of so many bytes."""

    def __init__(
        self, context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value], width: int = BYTES
    ) -> None:
        super().__init__(context, builder, signature, args, width // 4)
        self.width = width
        self.of_bytes, self.of_words, self.of_numbers = (
            ir.VectorType(kind, width // size) for kind, size in ((I8, 1), (I16, 2), (I32, 4))
        )

    def of_width(self, width: int) -> ByteEmitter:
        """The same with vectors of another width."""
        return ByteEmitter(self.context, self.builder, self.signature, self.args, width)

    def at(self, pointer: ir.Value, distance: ir.Value | int) -> ir.Value:
        place = ir.Constant(I64, distance) if isinstance(distance, int) else distance
        return self.builder.gep(pointer, [place])

    def read(self, pointer: ir.Value, kind: ir.Type) -> ir.Value:
        """A vector of a type, from anywhere."""
        return self.builder.load(self.builder.bitcast(pointer, kind.as_pointer()), align=1)

    def write(self, vector: ir.Value, pointer: ir.Value) -> None:
        self.builder.store(vector, self.builder.bitcast(pointer, vector.type.as_pointer()), align=1)

    def everywhere(self, value: ir.Value, kind: ir.Type) -> ir.Value:
        """One value in all lanes of a vector."""
        undefined = ir.Constant(kind, ir.Undefined)
        first = self.builder.insert_element(undefined, value, ir.Constant(I32, 0))
        return self.builder.shuffle_vector(first, undefined, self._places([0] * kind.count))

    def intrinsic(self, name: str, result: ir.Type, *values: ir.Value) -> ir.Value:
        kind = ir.FunctionType(result, [value.type for value in values])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), values)

    def constant_of(self, value: int, kind: ir.Type) -> ir.Value:
        return ir.Constant(kind, [value] * kind.count)

    def dot(self, total: ir.Value, levels: ir.Value, weights: ir.Value) -> ir.Value:
        """``total`` plus products of four neighbours each: unsigned bytes times signed ones."""
        builder = self.builder
        if INSTRUCTIONS in ("dots", "short dots"):
            # Newer versions of LLVM take bytes; all of them take numbers of 32 bits.
            four = [builder.bitcast(vector, self.of_numbers) for vector in (levels, weights)]
            return self.intrinsic(f"llvm.x86.avx512.vpdpbusd.{_BITS[self.width]}", self.of_numbers, total, *four)
        if INSTRUCTIONS == "pairs":
            pairs = self.intrinsic(f"llvm.x86.{_MULTIPLY_BYTES[self.width]}", self.of_words, levels, weights)
            ones = self.constant_of(1, self.of_words)
            return builder.add(total, self._added(pairs, ones))
        if INSTRUCTIONS in ("arm dots", "arm pairs"):
            one_register = self._arm_dots if INSTRUCTIONS == "arm dots" else self._arm_pairs
            return self._by_registers(one_register, total, levels, weights)
        wide = ir.VectorType(I32, self.width)
        products = builder.mul(builder.zext(levels, wide), builder.sext(weights, wide))
        for first in range(4):
            own = self._places(list(range(first, self.width, 4)))
            total = builder.add(total, builder.shuffle_vector(products, products, own))
        return total

    def _by_registers(self, make: Callable[..., ir.Value], *vectors: ir.Value) -> ir.Value:
        """What ``make`` gives for each 16 bytes of a vector of bytes and those that belong to them, side by side."""
        parts = []
        for part in range(self.width // LANE):
            size = [vector.type.count * LANE // self.width for vector in vectors]
            of_part = [self._places(list(range(part * count, (part + 1) * count))) for count in size]
            own = [self.builder.shuffle_vector(v, v, places) for v, places in zip(vectors, of_part, strict=True)]
            parts.append(make(*own))
        while len(parts) > 1:
            parts = [self._joined(*parts[place : place + 2]) for place in range(0, len(parts), 2)]
        return parts[0]

    def _arm_dots(self, total: ir.Value, levels: ir.Value, weights: ir.Value) -> ir.Value:
        """The instruction takes signed bytes: levels less 128. What is missing depends on the weights only."""
        builder, name = self.builder, "llvm.aarch64.neon.sdot.v4i32.v16i8"
        less = self.constant_of(-128, levels.type)
        dots = self.intrinsic(name, total.type, total, builder.xor(levels, less), weights)
        return builder.sub(dots, self.intrinsic(name, total.type, self.constant_of(0, total.type), less, weights))

    def _arm_pairs(self, total: ir.Value, levels: ir.Value, weights: ir.Value) -> ir.Value:
        """Two products that stand side by side fit into 16 bits together."""
        builder, words, half = self.builder, ir.VectorType(I16, LANE), ir.VectorType(I16, LANE // 2)
        products = builder.mul(builder.zext(levels, words), builder.sext(weights, words))
        halves = [
            builder.shuffle_vector(products, products, self._places(list(range(begin, begin + LANE // 2))))
            for begin in (0, LANE // 2)
        ]
        pairs = self.intrinsic("llvm.aarch64.neon.addp.v8i16", half, *halves)
        return builder.add(total, self.intrinsic("llvm.aarch64.neon.saddlp.v4i32.v8i16", total.type, pairs))

    def _added(self, words: ir.Value, others: ir.Value) -> ir.Value:
        """Products of neighbouring 16-bit numbers, added up in pairs."""
        name = f"llvm.x86.{_MULTIPLY_WORDS[words.type.count * 2]}"
        return self.intrinsic(name, ir.VectorType(I32, words.type.count // 2), words, others)

    def side_by_side(self, vectors: Sequence[ir.Value]) -> list[ir.Value]:
        """Of four vectors of bytes, the first of each, the second of each ..., as the four vectors of numbers stand."""
        first = self._mixed(vectors[0], vectors[1], 1)
        second = self._mixed(vectors[2], vectors[3], 1)
        words = [[self.builder.bitcast(half, self.of_words) for half in pair] for pair in (first, second)]
        mixed = [self._mixed(words[0][half], words[1][half], 2) for half in (0, 1)]
        return [self.builder.bitcast(vector, self.of_bytes) for pair in mixed for vector in pair]

    def _mixed(self, one: ir.Value, other: ir.Value, size: int) -> tuple[ir.Value, ir.Value]:
        """The lower and the upper halves of each 16 bytes, elements of both in turn."""
        count, half = one.type.count, LANE // size // 2
        halves = []
        for begin in (0, half):
            order = [
                lane + begin + place + of * count
                for lane in range(0, count, LANE // size)
                for place in range(half)
                for of in (0, 1)
            ]
            halves.append(self.builder.shuffle_vector(one, other, self._places(order)))
        return halves[0], halves[1]

    def numbers(self, levels: ir.Value) -> list[ir.Value]:
        """Bytes as four vectors of 32-bit numbers."""
        zero = self.constant_of(0, self.of_bytes)
        return [
            self.builder.bitcast(vector, self.of_numbers) for vector in self.side_by_side([levels, zero, zero, zero])
        ]

    def packed(self, numbers: Sequence[ir.Value]) -> ir.Value:
        """Four vectors of 32-bit numbers as bytes; what is below 0 or above 255 is limited."""
        if ON_X86:
            halves = [
                self.intrinsic(f"llvm.x86.{_PACK_NUMBERS[self.width]}", self.of_words, *pair)
                for pair in (numbers[:2], numbers[2:])
            ]
            return self.intrinsic(f"llvm.x86.{_PACK_WORDS[self.width]}", self.of_bytes, *halves)
        zero, most = (self.constant_of(value, self.of_numbers) for value in (0, 255))
        builder = self.builder
        limited = []
        for vector in numbers:
            above = builder.select(builder.icmp_signed("<", vector, zero), zero, vector)
            limited.append(builder.select(builder.icmp_signed(">", above, most), most, above))
        pairs = [self._joined(limited[half], limited[half + 1]) for half in (0, 2)]
        whole = self._joined(*pairs)
        order = self._places([int(place) for place in places_of_channels(self.width)])
        return builder.trunc(builder.shuffle_vector(whole, whole, order), self.of_bytes)

    def looked_up(self, table: ir.Value, places: Sequence[ir.Value]) -> ir.Value:
        """Bytes of a table, at places in four vectors of numbers."""
        builder, result = self.builder, ir.Constant(self.of_bytes, ir.Undefined)
        for channel, place in enumerate(places_of_channels(self.width)):
            vector, lane = divmod(int(place), self.width // 4)
            number = builder.zext(builder.extract_element(places[vector], ir.Constant(I32, lane)), I64)
            result = builder.insert_element(result, builder.load(self.at(table, number)), ir.Constant(I32, channel))
        return result

    def between(self, numbers: ir.Value, low: ir.Value, high: ir.Value) -> ir.Value:
        """Numbers that are limited, ends as 64-bit numbers."""
        low, high = (self.everywhere(self.builder.trunc(end, I32), numbers.type) for end in (low, high))
        above = self.builder.select(self.builder.icmp_signed("<", numbers, low), low, numbers)
        return self.builder.select(self.builder.icmp_signed(">", above, high), high, above)

    def four_everywhere(self, levels: ir.Value, four: int) -> ir.Value:
        """Of each 16 bytes, four neighbours four times."""
        order = [lane + four for lane in range(0, self.width // 4, LANE // 4) for _ in range(LANE // 4)]
        numbers = self.builder.bitcast(levels, self.of_numbers)
        return self.builder.bitcast(self.builder.shuffle_vector(numbers, numbers, self._places(order)), self.of_bytes)

    def read_numbers(self, pointer: ir.Value, vector: int) -> ir.Value:
        """Of numbers of 32 bits side by side, those that stand in one of the four vectors."""
        kind = ir.VectorType(pointer.type.pointee, LANE // 4)
        parts = [self.read(self.at(pointer, lane + 4 * vector), kind) for lane in range(0, self.width, LANE)]
        while len(parts) > 1:
            parts = [self._joined(*parts[place : place + 2]) for place in range(0, len(parts), 2)]
        return parts[0]

    def write_numbers(self, numbers: ir.Value, pointer: ir.Value, vector: int) -> None:
        """The other way round."""
        for lane in range(0, self.width, LANE):
            own = self._places([lane // 4 + place for place in range(LANE // 4)])
            part = self.builder.shuffle_vector(numbers, numbers, own)
            self.write(part, self.at(pointer, lane + 4 * vector))

    def _joined(self, one: ir.Value, other: ir.Value) -> ir.Value:
        return self.builder.shuffle_vector(one, other, self._places(list(range(2 * one.type.count))))

    def larger(self, one: ir.Value, other: ir.Value) -> ir.Value:
        return self.builder.select(self.builder.icmp_unsigned(">", one, other), one, other)

    def smaller(self, one: ir.Value, other: ir.Value) -> ir.Value:
        return self.builder.select(self.builder.icmp_unsigned("<", one, other), one, other)

    def distance(self, one: ir.Value, other: ir.Value) -> ir.Value:
        """Of unsigned bytes."""
        return self.builder.sub(self.larger(one, other), self.smaller(one, other))

    def count_true(self, chosen: ir.Value) -> ir.Value:
        """How many lanes of bytes are true, 64 bits."""
        bits = self.builder.ctpop(self.builder.bitcast(chosen, ir.IntType(self.width)))
        return self.builder.zext(bits, I64) if self.width < 64 else bits

    def bytes_below(self, count: ir.Value) -> ir.Value:
        """Which lanes of bytes have a number below ``count``."""
        numbers = ir.Constant(self.of_bytes, list(range(self.width)))
        limit = self.everywhere(self.builder.trunc(count, I8), self.of_bytes)
        return self.builder.icmp_unsigned("<", numbers, limit)

    def sum_of_squares(self, changes: ir.Value, factors: ir.Value, cap: ir.Value) -> ir.Value:
        """Sum of min(change * factor >> 8, cap) squared over a vector of bytes and 16-bit factors, 64 bits."""
        builder = self.builder
        words, numbers = ir.VectorType(I16, self.width), ir.VectorType(I32, self.width)
        high = builder.shl(builder.zext(changes, words), self.constant_of(8, words))
        product = builder.mul(builder.zext(high, numbers), builder.zext(factors, numbers))
        counted = builder.trunc(builder.lshr(product, self.constant_of(16, numbers)), words)
        counted = self.smaller(counted, self.everywhere(builder.trunc(cap, I16), words))
        if not ON_X86:
            wide = builder.zext(counted, numbers)
            return self._total(builder.mul(wide, wide))
        step = min(self.width, BYTES // 2)
        pieces = []
        for begin in range(0, self.width, step):
            piece = builder.shuffle_vector(counted, counted, self._places(list(range(begin, begin + step))))
            pieces.append(self._added(piece, piece))
        total = pieces[0]
        for piece in pieces[1:]:
            total = builder.add(total, piece)
        return self._total(total)

    def _total(self, vector: ir.Value) -> ir.Value:
        name = f"llvm.vector.reduce.add.v{vector.type.count}i32"
        return self.builder.zext(self.intrinsic(name, I32, vector), I64)
