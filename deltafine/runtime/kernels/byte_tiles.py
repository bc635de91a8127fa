"""Inner loops of products of bytes: as many sums as fit into the registers are added up at once.

Sums are 32-bit numbers. Those of as many channels as a vector has bytes stand in four vectors, in the order of
``deltafine.runtime.kernels.byte_vectors``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from deltafine.runtime.kernels.byte_vectors import BYTES, INSTRUCTIONS, ByteEmitter
from deltafine.runtime.kernels.vectors import I32, number

ROWS = 6 if BYTES == 64 else 3 if INSTRUCTIONS == "short dots" else 2
"""Of the largest tile: as many sums as there are registers."""


def byte_row_tile(rows: int, width: int) -> Any:
    """A tile of ``rows`` rows by ``width`` output channels.

    Row i begins at ``levels[base + offsets[first + i]]``; its inputs are ``run_count`` runs of ``quads`` times four
    bytes, the k-th of them ``links[runs + k]`` further on. Weights stand at ``weights[weight:]``, four vectors for each
    four inputs. The sums go to ``sums[place + i * pitch:]``.
    """

    @intrinsic
    def tile(
        typing_context: Any, levels: Any, base: Any, offsets: Any, first: Any, links: Any, runs: Any, run_count: Any,
        quads: Any, weights: Any, weight: Any, sums: Any, place: Any, pitch: Any,
    ) -> Any:  # fmt: skip
        signature = types.void(
            levels, base, offsets, first, links, runs, run_count, quads, weights, weight, sums, place, pitch
        )

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
            emit = ByteEmitter(context, builder, signature, args, width)
            start = emit.at(emit.data(0), args[1])
            table = emit.at(emit.data(2), args[3])
            lines = [emit.at(start, builder.load(emit.at(table, i))) for i in range(rows)]
            run_table = emit.at(emit.data(4), args[5])

            def one_run(run: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
                offset = builder.load(emit.at(run_table, run))
                here = [emit.at(line, offset) for line in lines]

                def four_inputs(place: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
                    pointer, *sums = carried
                    columns = [emit.read(emit.at(pointer, v * width), emit.of_bytes) for v in range(4)]
                    after = []
                    for i in range(rows):
                        four = emit.read(emit.at(here[i], builder.mul(place, number(4))), I32)
                        spread = builder.bitcast(emit.everywhere(four, emit.of_numbers), emit.of_bytes)
                        after += [emit.dot(sums[4 * i + v], spread, columns[v]) for v in range(4)]
                    return [emit.at(pointer, 4 * width), *after]

                return emit.loop(args[7], carried, four_inputs)

            zero = emit.constant_of(0, emit.of_numbers)
            packed = emit.at(emit.data(8), args[9])
            _, *sums = emit.loop(args[6], [packed, *[zero] * (4 * rows)], one_run)
            target = emit.at(emit.data(10), args[11])
            for i in range(rows):
                row = emit.at(target, builder.mul(args[12], number(i)))
                for v in range(4):
                    emit.write(sums[4 * i + v], emit.at(row, v * width // 4))
            return context.get_dummy_value()

        return signature, generate

    return tile


def byte_channel_tile(taps: int, width: int) -> Any:
    """A depthwise convolution: ``width`` channels at ``rows`` positions, at least one.

    Position i begins at ``levels[base + offsets[first + i]]``, its k-th tap reads ``links[table + k]`` further on.
    Weights stand at ``weights[weight:]``, four vectors for each four taps. The sums go to ``sums[place + i * pitch:]``.
    There are ``taps`` taps; if that is 0, ``quads`` times four, of which those that are none have weights of 0.
    """

    @intrinsic
    def tile(
        typing_context: Any, levels: Any, base: Any, offsets: Any, first: Any, rows: Any, links: Any, table: Any,
        quads: Any, weights: Any, weight: Any, sums: Any, place: Any, pitch: Any,
    ) -> Any:  # fmt: skip
        signature = types.void(
            levels, base, offsets, first, rows, links, table, quads, weights, weight, sums, place, pitch
        )

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
            emit = ByteEmitter(context, builder, signature, args, width)
            start = emit.at(emit.data(0), args[1])
            begins = emit.at(emit.data(2), args[3])
            table = emit.at(emit.data(5), args[6])
            packed = emit.at(emit.data(8), args[9])
            target = emit.at(emit.data(10), args[11])
            further = [builder.load(emit.at(table, k)) for k in range(taps)]
            count = -(-taps // 4)
            factors = [emit.read(emit.at(packed, v * width), emit.of_bytes) for v in range(4 * count)]
            zero = emit.constant_of(0, emit.of_bytes)
            nothing = [emit.constant_of(0, emit.of_numbers)] * 4

            def added(totals: list[ir.Value], read: list[ir.Value], factors: list[ir.Value]) -> list[ir.Value]:
                mixed = emit.side_by_side(read)
                return [emit.dot(*three) for three in zip(totals, mixed, factors, strict=True)]

            def one_quad(here: ir.Value) -> Callable[[ir.Value, list[ir.Value]], list[ir.Value]]:
                def add(quad: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
                    links = emit.at(table, builder.mul(quad, number(4)))
                    read = [emit.read(emit.at(here, builder.load(emit.at(links, k))), emit.of_bytes) for k in range(4)]
                    own = emit.at(packed, builder.mul(quad, number(4 * width)))
                    return added(totals, read, [emit.read(emit.at(own, v * width), emit.of_bytes) for v in range(4)])

                return add

            def one_row(row: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
                here = emit.at(start, builder.load(emit.at(begins, row)))
                totals = nothing
                for quad in range(count):
                    read = [emit.read(emit.at(here, one), emit.of_bytes) for one in further[4 * quad : 4 * quad + 4]]
                    totals = added(totals, [*read, *[zero] * (4 - len(read))], factors[4 * quad : 4 * quad + 4])
                if not taps:
                    totals = emit.loop(args[7], totals, one_quad(here))
                line = emit.at(target, builder.mul(args[12], row))
                for v in range(4):
                    emit.write(totals[v], emit.at(line, v * width // 4))
                return []

            emit.loop(args[4], [], one_row)
            return context.get_dummy_value()

        return signature, generate

    return tile


def lane_tile(quads: int, width: int) -> Any:
    """A convolution of groups of ``4 * quads`` channels, as many in as out: ``width`` channels at ``rows`` positions.

    Groups lie within 16 bytes. Position i begins at ``levels[base + offsets[first + i]]``; its ``taps`` taps are
    ``links[table:]`` further on. Weights stand at ``weights[weight:]``, for each tap, and each four inputs of a group,
    four vectors. The sums go to ``sums[place + i * pitch:]``.
    """

    @intrinsic
    def tile(
        typing_context: Any, levels: Any, base: Any, offsets: Any, first: Any, rows: Any, links: Any, table: Any,
        taps: Any, weights: Any, weight: Any, sums: Any, place: Any, pitch: Any,
    ) -> Any:  # fmt: skip
        signature = types.void(
            levels, base, offsets, first, rows, links, table, taps, weights, weight, sums, place, pitch
        )

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
            emit = ByteEmitter(context, builder, signature, args, width)
            start, begins = emit.at(emit.data(0), args[1]), emit.at(emit.data(2), args[3])
            further, packed = emit.at(emit.data(5), args[6]), emit.at(emit.data(8), args[9])
            target = emit.at(emit.data(10), args[11])

            def one_row(row: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
                here = emit.at(start, builder.load(emit.at(begins, row)))

                def one_tap(tap: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
                    pointer, *totals = carried
                    read = emit.read(emit.at(here, builder.load(emit.at(further, tap))), emit.of_bytes)
                    fours = [emit.four_everywhere(read, four) for four in range(4)]
                    for quad in range(quads):
                        for v in range(4):
                            own = emit.read(emit.at(pointer, (4 * quad + v) * width), emit.of_bytes)
                            totals[v] = emit.dot(totals[v], fours[v // quads * quads + quad], own)
                    return [emit.at(pointer, 4 * quads * width), *totals]

                nothing = [emit.constant_of(0, emit.of_numbers)] * 4
                _, *totals = emit.loop(args[7], [packed, *nothing], one_tap)
                line = emit.at(target, builder.mul(args[12], row))
                for v in range(4):
                    emit.write(totals[v], emit.at(line, v * width // 4))
                return []

            emit.loop(args[4], [], one_row)
            return context.get_dummy_value()

        return signature, generate

    return tile


def window_tile(largest: bool, width: int) -> Any:
    """Sums, or the largest, of bytes at several places: ``width`` channels at ``rows`` positions, at least one.

    Position i begins at ``levels[base + offsets[first + i]]``; the others are ``links[table:][:taps]`` further on.
    """

    @intrinsic
    def tile(
        typing_context: Any, levels: Any, base: Any, offsets: Any, first: Any, rows: Any, links: Any, table: Any,
        taps: Any, sums: Any, place: Any, pitch: Any,
    ) -> Any:  # fmt: skip
        signature = types.void(levels, base, offsets, first, rows, links, table, taps, sums, place, pitch)

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
            emit = ByteEmitter(context, builder, signature, args, width)
            start = emit.at(emit.data(0), args[1])
            begins = emit.at(emit.data(2), args[3])
            further = emit.at(emit.data(5), args[6])
            target = emit.at(emit.data(8), args[9])

            def one_row(row: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
                here = emit.at(start, builder.load(emit.at(begins, row)))

                def one_tap(tap: ir.Value, found: list[ir.Value]) -> list[ir.Value]:
                    value = emit.read(emit.at(here, builder.load(emit.at(further, tap))), emit.of_bytes)
                    if largest:
                        return [emit.larger(value, found[0])]
                    return [builder.add(one, more) for one, more in zip(found, emit.numbers(value), strict=True)]

                nothing = (
                    [emit.constant_of(0, emit.of_bytes)] if largest else [emit.constant_of(0, emit.of_numbers)] * 4
                )
                found = emit.loop(args[7], nothing, one_tap)
                line = emit.at(target, builder.mul(args[10], row))
                for v, vector in enumerate(emit.numbers(found[0]) if largest else found):
                    emit.write(vector, emit.at(line, v * width // 4))
                return []

            emit.loop(args[4], [], one_row)
            return context.get_dummy_value()

        return signature, generate

    return tile


def times_tile(width: int, product: bool) -> Any:
    """Bytes times a number, added to sums unless they ``begin``: ``width`` channels at ``rows`` positions.

    Of a ``product``, bytes less a number, and the sums are multiplied with them. Position i is at
    ``levels[base + offsets[first + i]]``, its sums at ``sums[place + i * pitch:]``.
    """

    @intrinsic
    def tile(
        typing_context: Any, levels: Any, base: Any, offsets: Any, first: Any, rows: Any, times: Any, begin: Any,
        sums: Any, place: Any, pitch: Any,
    ) -> Any:  # fmt: skip
        signature = types.void(levels, base, offsets, first, rows, times, begin, sums, place, pitch)

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
            emit = ByteEmitter(context, builder, signature, args, width)
            start = emit.at(emit.data(0), args[1])
            places = emit.at(emit.data(2), args[3])
            target = emit.at(emit.data(7), args[8])
            factor = emit.everywhere(builder.trunc(args[5], I32), emit.of_numbers)
            nothing = emit.constant_of(1 if product else 0, emit.of_numbers)

            def one_row(row: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
                here = emit.at(start, builder.load(emit.at(places, row)))
                line = emit.at(target, builder.mul(args[9], row))
                for v, value in enumerate(emit.numbers(emit.read(here, emit.of_bytes))):
                    there = emit.at(line, v * width // 4)
                    old = builder.select(args[6], nothing, emit.read(there, emit.of_numbers))
                    new = (
                        builder.mul(old, builder.sub(value, factor))
                        if product
                        else builder.add(old, builder.mul(value, factor))
                    )
                    emit.write(new, there)
                return []

            emit.loop(args[4], [], one_row)
            return context.get_dummy_value()

        return signature, generate

    return tile
