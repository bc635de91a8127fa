"""Vector code written as LLVM instructions: helpers for what neither NumPy nor a loop in numba does as fast."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import cgutils


def _has_wide_vectors() -> bool:
    from numba import config

    features = config.CPU_FEATURES
    return "+avx512f" in features.split(",") if features else bool(llvm.get_host_cpu_features().get("avx512f"))


WIDE = _has_wide_vectors()
LANES = 16 if WIDE else 8
"""Values in a vector register."""

I8, I32, I64, F32 = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.FloatType()
VECTOR = ir.VectorType(F32, LANES)


def number(value: int) -> ir.Constant:
    return ir.Constant(I64, value)


class Emitter:
    """Helpers for one piece of vector code, with vectors of so many lanes."""

    def __init__(
        self, context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value], lanes: int = LANES
    ) -> None:
        self.context, self.builder, self.signature, self.args = context, builder, signature, args
        self.lanes = lanes
        self.vector = ir.VectorType(F32, lanes)

    @property
    def halved(self) -> Emitter:
        """The same with half as many lanes."""
        return Emitter(self.context, self.builder, self.signature, self.args, self.lanes // 2)

    def constant(self, value: float) -> ir.Value:
        return ir.Constant(self.vector, [value] * self.lanes)

    def call(self, name: str, *vectors: ir.Value) -> ir.Value:
        """One of LLVM's functions of vectors, lane by lane."""
        function = cgutils.get_or_insert_function(
            self.builder.module,
            ir.FunctionType(self.vector, [self.vector] * len(vectors)),
            f"llvm.{name}.v{self.lanes}f32",
        )
        return self.builder.call(function, vectors)

    def data(self, place: int) -> ir.Value:
        """Pointer to the first element of an array argument."""
        array = self.signature.args[place]
        return self.context.make_array(array)(self.context, self.builder, self.args[place]).data

    def load(self, pointer: ir.Value) -> ir.Value:
        """Values of 32-bit floating point, or bytes made such."""
        if pointer.type.pointee == I8:
            return self.builder.uitofp(self.load_bytes(pointer), self.vector)
        return self.builder.load(self.builder.bitcast(pointer, self.vector.as_pointer()), align=4)

    def load_bytes(self, pointer: ir.Value) -> ir.Value:
        """As many bytes as there are lanes."""
        whole = ir.VectorType(I8, self.lanes)
        return self.builder.load(self.builder.bitcast(pointer, whole.as_pointer()), align=1)

    def store_bytes(self, vector: ir.Value, pointer: ir.Value) -> None:
        self.builder.store(vector, self.builder.bitcast(pointer, vector.type.as_pointer()), align=1)

    def store(self, vector: ir.Value, pointer: ir.Value) -> None:
        self.builder.store(vector, self.builder.bitcast(pointer, self.vector.as_pointer()), align=4)

    def spread(self, value: ir.Value) -> ir.Value:
        """One value in all lanes."""
        undefined = ir.Constant(ir.VectorType(value.type, self.lanes), ir.Undefined)
        first = self.builder.insert_element(undefined, value, ir.Constant(I32, 0))
        return self.builder.shuffle_vector(first, undefined, self._places([0] * self.lanes))

    def lanes_below(self, count: ir.Value) -> ir.Value:
        """Which lanes have a number below ``count``."""
        numbers = self._places(list(range(self.lanes)))
        return self.builder.icmp_signed("<", numbers, self.spread(self.builder.trunc(count, I32)))

    def bits(self, chosen: ir.Value) -> ir.Value:
        """The lanes that are true, as bits of a number."""
        return self.builder.zext(self.builder.bitcast(chosen, ir.IntType(self.lanes)), I64)

    def count_lanes(self, chosen: ir.Value) -> ir.Value:
        """How many lanes are true."""
        bits = self.builder.bitcast(chosen, ir.IntType(self.lanes))
        return self.builder.zext(self.builder.ctpop(bits), I64)

    def apart(self, vectors: list[ir.Value]) -> list[ir.Value]:
        """Values of neighbours, each with as many channels as there are vectors, side by side: a vector per channel."""
        count = len(vectors)
        return [
            self._picked(vectors, [lane * count + channel for lane in range(self.lanes)]) for channel in range(count)
        ]  # fmt: skip

    def together(self, chosen: ir.Value, channels: int) -> list[ir.Value]:
        """What is true of neighbours, for each of their values side by side."""
        return [
            self.builder.shuffle_vector(
                chosen, chosen, self._places([(vector * self.lanes + lane) // channels for lane in range(self.lanes)])
            )
            for vector in range(channels)
        ]

    def total(self, vector: ir.Value) -> ir.Value:
        """Sum of all lanes, halves on halves."""
        return self.builder.extract_element(self.total_everywhere(vector), ir.Constant(I32, 0))

    def total_everywhere(self, vector: ir.Value) -> ir.Value:
        """The same in all lanes."""
        size = self.lanes
        while size > 1:
            size //= 2
            other = self.builder.shuffle_vector(vector, vector, self._places([i ^ size for i in range(self.lanes)]))
            vector = self.builder.fadd(vector, other)
        return vector

    def _picked(self, vectors: list[ir.Value], places: list[int]) -> ir.Value:
        """The values at these places of vectors side by side."""
        result = vectors[0]
        for number_of, vector in enumerate(vectors):
            inside = [place - number_of * self.lanes for place in places]
            mix = [self.lanes + own if 0 <= own < self.lanes else lane for lane, own in enumerate(inside)]
            result = self.builder.shuffle_vector(result, vector, self._places(mix))
        return result

    def _places(self, places: list[int]) -> ir.Value:
        return ir.Constant(ir.VectorType(I32, len(places)), places)

    def loop(
        self, count: ir.Value, carried: list[ir.Value], body: Callable[[ir.Value, list[ir.Value]], list[ir.Value]]
    ) -> list[ir.Value]:
        """``body(index, values) -> values``, at least once; returns the values after the last time."""
        builder = self.builder
        before = builder.block
        block = builder.append_basic_block("loop")
        builder.branch(block)
        builder.position_at_end(block)
        index = builder.phi(I64)
        phis = [builder.phi(value.type) for value in carried]
        after = body(index, phis)
        following = builder.add(index, number(1))
        end = builder.block
        done = builder.append_basic_block("done")
        builder.cbranch(builder.icmp_signed("<", following, count), block, done)
        index.add_incoming(number(0), before)
        index.add_incoming(following, end)
        for phi, first, last in zip(phis, carried, after, strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(last, end)
        builder.position_at_end(done)
        return after

    def where(
        self, condition: ir.Value, otherwise: list[ir.Value], body: Callable[[], list[ir.Value]]
    ) -> list[ir.Value]:
        """``body() -> values`` where the condition holds, else ``otherwise``."""
        builder = self.builder
        before = builder.block
        with builder.if_then(condition):
            found = body()
            end = builder.block
        phis = []
        for value, other in zip(found, otherwise, strict=True):
            phi = builder.phi(value.type)
            phi.add_incoming(value, end)
            phi.add_incoming(other, before)
            phis.append(phi)
        return phis
