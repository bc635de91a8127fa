"""Blocks of multiply-accumulates, in vector code.

A *tile* computes some rows times some vectors of output channels and keeps all sums in registers. It reads its rows
where they lie in the arena, so that nothing is gathered, and weights packed so that they are read once, in order. Each
sum is taken over the inputs one after the other with fused multiply-adds, in the same order whatever rows stand
beside it: a value computed alone equals, to the bit, the one computed with the whole picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from deltafine.runtime.kernels.vectors import LANES, VECTOR, WIDE, Emitter, number

VECTORS = (4, 2, 1) if WIDE else (2, 1)
"""Widths of tiles, in vectors; a layer takes the one that wastes least."""

ROWS = {4: 6, 2: 8, 1: 8} if WIDE else {2: 6, 1: 8}
"""Rows of the largest tile of each width: as many sums as there are registers."""


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

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
            emit = Emitter(context, builder, signature, args)
            start = builder.gep(emit.data(0), [args[1]])
            table = builder.gep(emit.data(2), [args[3]])
            lines = [builder.gep(start, [builder.load(builder.gep(table, [number(i)]))]) for i in range(rows)]
            run_table = builder.gep(emit.data(4), [args[5]])

            def one_run(run: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
                offset = builder.load(builder.gep(run_table, [run]))
                here = [builder.gep(line, [offset]) for line in lines]

                def one_input(place: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
                    pointer, *sums = carried
                    columns = [emit.load(builder.gep(pointer, [number(v * LANES)])) for v in range(vectors)]
                    after = []
                    for i in range(rows):
                        value = emit.spread(builder.load(builder.gep(here[i], [place])))
                        for v in range(vectors):
                            after.append(emit.call("fma", value, columns[v], sums[i * vectors + v]))
                    return [builder.gep(pointer, [number(vectors * LANES)]), *after]

                return emit.loop(args[7], carried, one_input)

            zero = ir.Constant(VECTOR, [0.0] * LANES)
            packed = builder.gep(emit.data(8), [args[9]])
            _, *sums = emit.loop(args[6], [packed, *[zero] * (rows * vectors)], one_run)
            target = builder.gep(emit.data(10), [args[11]])
            for i in range(rows):
                row = builder.gep(target, [builder.mul(args[12], number(i))])
                for v in range(vectors):
                    emit.store(sums[i * vectors + v], builder.gep(row, [number(v * LANES)]))
            return context.get_dummy_value()

        return signature, generate

    return tile


def channel_tile(taps: int) -> Any:
    """A depthwise convolution of ``taps`` taps: one vector of channels at ``rows`` positions, at least one.

    Position i begins at ``arena[base + offsets[first + i]]``, its k-th tap reads ``links[table + k]`` further on and
    ``weights[weight + k * weight_pitch:]``, which stay in registers. The sums go to ``out[place + i * pitch:]``.
    """

    @intrinsic
    def tile(
        typing_context: Any, arena: Any, base: Any, offsets: Any, first: Any, rows: Any, links: Any, table: Any,
        weights: Any, weight: Any, weight_pitch: Any, out: Any, place: Any, pitch: Any,
    ) -> Any:  # fmt: skip
        signature = types.void(
            arena, base, offsets, first, rows, links, table, weights, weight, weight_pitch, out, place, pitch
        )

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
            emit = Emitter(context, builder, signature, args)
            start = builder.gep(emit.data(0), [args[1]])
            begins = builder.gep(emit.data(2), [args[3]])
            tap_table = builder.gep(emit.data(5), [args[6]])
            packed = builder.gep(emit.data(7), [args[8]])
            target = builder.gep(emit.data(10), [args[11]])
            further = [builder.load(builder.gep(tap_table, [number(k)])) for k in range(taps)]
            factors = [
                emit.load(builder.gep(packed, [builder.mul(args[9], number(k))])) for k in range(taps)
            ]  # fmt: skip

            def one_row(row: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
                here = builder.gep(start, [builder.load(builder.gep(begins, [row]))])
                total = ir.Constant(VECTOR, [0.0] * LANES)
                for distance, factor in zip(further, factors, strict=True):
                    total = emit.call("fma", emit.load(builder.gep(here, [distance])), factor, total)
                emit.store(total, builder.gep(target, [builder.mul(args[12], row)]))
                return []

            emit.loop(args[4], [], one_row)
            return context.get_dummy_value()

        return signature, generate

    return tile


def long_channel_tile() -> Any:
    """A depthwise convolution of any number of taps: one vector of channels at one position.

    Tap k reads ``arena[start + links[taps + k]:]`` and ``weights[weight + k * pitch:]``.
    """

    @intrinsic
    def tile(
        typing_context: Any, arena: Any, start: Any, links: Any, taps: Any, tap_count: Any, weights: Any, weight: Any,
        pitch: Any, out: Any, place: Any,
    ) -> Any:  # fmt: skip
        signature = types.void(arena, start, links, taps, tap_count, weights, weight, pitch, out, place)

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
            emit = Emitter(context, builder, signature, args)
            values = builder.gep(emit.data(0), [args[1]])
            table = builder.gep(emit.data(2), [args[3]])

            def one_tap(tap: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
                pointer, total = carried
                here = builder.gep(values, [builder.load(builder.gep(table, [tap]))])
                total = emit.call("fma", emit.load(here), emit.load(pointer), total)
                return [builder.gep(pointer, [args[7]]), total]

            zero = ir.Constant(VECTOR, [0.0] * LANES)
            packed = builder.gep(emit.data(5), [args[6]])
            _, total = emit.loop(args[4], [packed, zero], one_tap)
            emit.store(total, builder.gep(emit.data(8), [args[9]]))
            return context.get_dummy_value()

        return signature, generate

    return tile
