"""Blocks of multiply-accumulates, written as LLVM vector code: what neither NumPy nor a loop in numba does as fast.

A *tile* computes some rows times some vectors of output channels and keeps all sums in registers. It reads its rows
where they lie in the arena, so that nothing is gathered, and weights packed so that they are read once, in order. Each
sum is taken over the inputs one after the other with fused multiply-adds, in the same order whatever rows stand
beside it: a value computed alone equals, to the bit, the one computed with the whole picture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic


def _has_wide_vectors() -> bool:
    from numba import config

    features = config.CPU_FEATURES
    return "+avx512f" in features.split(",") if features else bool(llvm.get_host_cpu_features().get("avx512f"))


WIDE = _has_wide_vectors()
LANES = 16 if WIDE else 8
"""Values in a vector register."""

VECTORS = (4, 2, 1) if WIDE else (2, 1)
"""Widths of tiles, in vectors; a layer takes the one that wastes least."""

ROWS = {4: 6, 2: 8, 1: 8} if WIDE else {2: 6, 1: 8}
"""Rows of the largest tile of each width: as many sums as there are registers."""

_I64, _F32 = ir.IntType(64), ir.FloatType()
_VECTOR = ir.VectorType(_F32, LANES)


def _number(value: int) -> Any:
    return ir.Constant(_I64, value)


class _Emitter:
    """Helpers for one piece of vector code."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any) -> None:
        self.context, self.builder, self.signature, self.args = context, builder, signature, args
        self.fma = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), f"llvm.fma.v{LANES}f32"
        )

    def data(self, place: int) -> Any:
        """Pointer to the first element of an array argument."""
        array = self.signature.args[place]
        return self.context.make_array(array)(self.context, self.builder, self.args[place]).data

    def load(self, pointer: Any) -> Any:
        return self.builder.load(self.builder.bitcast(pointer, _VECTOR.as_pointer()), align=4)

    def store(self, vector: Any, pointer: Any) -> None:
        self.builder.store(vector, self.builder.bitcast(pointer, _VECTOR.as_pointer()), align=4)

    def spread(self, pointer: Any) -> Any:
        """One value in all lanes."""
        undefined = ir.Constant(_VECTOR, ir.Undefined)
        first = self.builder.insert_element(undefined, self.builder.load(pointer), ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return self.builder.shuffle_vector(first, undefined, zeros)

    def loop(self, count: Any, carried: list[Any], body: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
        """``body(index, values) -> values``, at least once; returns the values after the last time."""
        builder = self.builder
        before = builder.block
        block = builder.append_basic_block("loop")
        builder.branch(block)
        builder.position_at_end(block)
        index = builder.phi(_I64)
        phis = [builder.phi(value.type) for value in carried]
        after = body(index, phis)
        following = builder.add(index, _number(1))
        end = builder.block
        done = builder.append_basic_block("done")
        builder.cbranch(builder.icmp_signed("<", following, count), block, done)
        index.add_incoming(_number(0), before)
        index.add_incoming(following, end)
        for phi, first, last in zip(phis, carried, after, strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(last, end)
        builder.position_at_end(done)
        return after


def row_tile(rows: int, vectors: int) -> Any:
    """A tile of ``rows`` rows by ``vectors`` vectors of output channels.

    Row i begins at ``arena[base + offsets[first + i]]``; its inputs are ``run_count`` runs of ``run_length`` values,
    the k-th of them ``links[runs + k]`` further on. Weights stand at ``weights[weight:]``, ``vectors`` vectors for
    each input. The sums go to ``out[place + i * pitch:]``.
    """

    @intrinsic
    def tile(
        typing_context: Any, arena: Any, base: Any, offsets: Any, first: Any, links: Any, runs: Any, run_count: Any,
        run_length: Any, weights: Any, weight: Any, out: Any, place: Any, pitch: Any,
    ) -> Any:  # fmt: skip
        signature = types.void(
            arena, base, offsets, first, links, runs, run_count, run_length, weights, weight, out, place, pitch
        )

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            emit = _Emitter(context, builder, signature, args)
            start = builder.gep(emit.data(0), [args[1]])
            table = builder.gep(emit.data(2), [args[3]])
            lines = [builder.gep(start, [builder.load(builder.gep(table, [_number(i)]))]) for i in range(rows)]
            run_table = builder.gep(emit.data(4), [args[5]])

            def one_run(run: Any, carried: list[Any]) -> list[Any]:
                offset = builder.load(builder.gep(run_table, [run]))
                here = [builder.gep(line, [offset]) for line in lines]

                def one_input(place: Any, carried: list[Any]) -> list[Any]:
                    pointer, *sums = carried
                    columns = [emit.load(builder.gep(pointer, [_number(v * LANES)])) for v in range(vectors)]
                    after = []
                    for i in range(rows):
                        value = emit.spread(builder.gep(here[i], [place]))
                        for v in range(vectors):
                            after.append(builder.call(emit.fma, [value, columns[v], sums[i * vectors + v]]))
                    return [builder.gep(pointer, [_number(vectors * LANES)]), *after]

                return emit.loop(args[7], carried, one_input)

            zero = ir.Constant(_VECTOR, [0.0] * LANES)
            packed = builder.gep(emit.data(8), [args[9]])
            _, *sums = emit.loop(args[6], [packed, *[zero] * (rows * vectors)], one_run)
            target = builder.gep(emit.data(10), [args[11]])
            for i in range(rows):
                row = builder.gep(target, [builder.mul(args[12], _number(i))])
                for v in range(vectors):
                    emit.store(sums[i * vectors + v], builder.gep(row, [_number(v * LANES)]))
            return context.get_dummy_value()

        return signature, generate

    return tile


def channel_tile(vectors: int) -> Any:
    """A tile of a depthwise convolution: ``vectors`` vectors of channels at one position.

    Tap k reads ``arena[start + links[taps + k]:]`` and ``weights[weight + k * pitch:]``.
    """

    @intrinsic
    def tile(
        typing_context: Any, arena: Any, start: Any, links: Any, taps: Any, tap_count: Any, weights: Any, weight: Any,
        pitch: Any, out: Any, place: Any,
    ) -> Any:  # fmt: skip
        signature = types.void(arena, start, links, taps, tap_count, weights, weight, pitch, out, place)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            emit = _Emitter(context, builder, signature, args)
            values = builder.gep(emit.data(0), [args[1]])
            table = builder.gep(emit.data(2), [args[3]])

            def one_tap(tap: Any, carried: list[Any]) -> list[Any]:
                pointer, *sums = carried
                here = builder.gep(values, [builder.load(builder.gep(table, [tap]))])
                after = []
                for v in range(vectors):
                    place = [_number(v * LANES)]
                    after.append(
                        builder.call(
                            emit.fma,
                            [emit.load(builder.gep(here, place)), emit.load(builder.gep(pointer, place)), sums[v]],
                        )
                    )
                return [builder.gep(pointer, [args[7]]), *after]

            zero = ir.Constant(_VECTOR, [0.0] * LANES)
            packed = builder.gep(emit.data(5), [args[6]])
            _, *sums = emit.loop(args[4], [packed, *[zero] * vectors], one_tap)
            target = builder.gep(emit.data(8), [args[9]])
            for v in range(vectors):
                emit.store(sums[v], builder.gep(target, [_number(v * LANES)]))
            return context.get_dummy_value()

        return signature, generate

    return tile
