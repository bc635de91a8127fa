"""Rows of bytes: made of sums or of numbers, made numbers, copied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from deltafine.runtime.kernels.byte_vectors import BYTES, WIDTHS, ByteEmitter
from deltafine.runtime.kernels.vectors import F32, number

MOST = 255
Block = Callable[[ByteEmitter, ir.Value, ir.Value | None], ir.Value]


def over_row(emit: ByteEmitter, size: tuple[ir.Value, ir.Value, ir.Value], block: Block) -> ir.Value:
    """Sum of ``block(emit, at, mine)`` over the vectors of a row; of the last, only the lanes ``mine``.

    ``size``: whole vectors, bytes of the one for the rest, and how many the rest is.
    """
    builder, (blocks, tail, rest) = emit.builder, size

    def one(index: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        return [builder.add(sums[0], block(emit, builder.mul(index, number(BYTES)), None))]

    some = builder.icmp_signed(">", blocks, number(0))
    (total,) = emit.where(some, [number(0)], lambda: emit.loop(blocks, [number(0)], one))
    at_rest = builder.mul(blocks, number(BYTES))
    for width in WIDTHS:
        own = emit.of_width(width)

        def last(own: ByteEmitter = own, total: ir.Value = total) -> list[ir.Value]:
            return [builder.add(total, block(own, at_rest, own.bytes_below(rest)))]

        (total,) = emit.where(builder.icmp_signed("==", tail, number(width)), [total], last)
    return total


def scaled_sums(
    emit: ByteEmitter, sums: ir.Value, bias: ir.Value, factors: ir.Value, at: ir.Value, vector: int
) -> ir.Value:
    """One of four vectors of numbers, of the sums from channel ``at`` on."""
    builder, of_floats = emit.builder, ir.VectorType(F32, emit.width // 4)
    here = builder.add(at, number(vector * emit.width // 4))
    total = builder.add(*(emit.read(emit.at(array, here), emit.of_numbers) for array in (sums, bias)))
    return builder.fmul(builder.sitofp(total, of_floats), emit.read(emit.at(factors, here), of_floats))


def keep_bytes(emit: ByteEmitter, new: ir.Value, kept: ir.Value, mine: ir.Value | None) -> ir.Value:
    """Keep a vector, or only the lanes ``mine``; returns how many of its bytes changed."""
    builder, old = emit.builder, emit.read(kept, emit.of_bytes)
    changed = builder.icmp_unsigned("!=", new, old)
    if mine is not None:
        changed, new = builder.and_(changed, mine), builder.select(mine, new, old)
    emit.write(new, kept)
    return emit.count_true(changed)


@intrinsic
def numbers_of_sums(
    typing_context: Any, sums: Any, pitch: Any, rows: Any, blocks: Any, tail: Any, rest: Any, whole: Any, bias: Any,
    factors: Any, factor: Any, scratch: Any,
) -> Any:  # fmt: skip
    """``float32(sum + bias) * factor`` of ``rows`` rows, at least one: row i to ``scratch[i * pitch:]``, in order.

    The rest is as in ``send_bytes``. Whole vectors are written, and ``pitch`` has room for them.
    """
    signature = types.void(sums, pitch, rows, blocks, tail, rest, whole, bias, factors, factor, scratch)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        wide = ByteEmitter(context, builder, signature, args)
        _, pitch, rows, blocks, tail, rest, _, bias, _, factor, _ = args
        biases, factors = wide.at(wide.data(6), bias), wide.at(wide.data(8), factor)

        def one_row(row: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
            own, target = (wide.at(wide.data(place), builder.mul(row, pitch)) for place in (0, 10))

            def block(emit: ByteEmitter, at: ir.Value, mine: ir.Value | None) -> ir.Value:
                for v in range(4):
                    emit.write_numbers(scaled_sums(emit, own, biases, factors, at, v), emit.at(target, at), v)
                return number(0)

            over_row(wide, (blocks, tail, rest), block)
            return []

        wide.loop(rows, [], one_row)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def quantise_row(
    typing_context: Any, arena: Any, begin: Any, levels: Any, to: Any, blocks: Any, tail: Any, rest: Any, per_unit: Any,
    zero: Any,
) -> Any:  # fmt: skip
    """Levels of the row of numbers ``arena[begin:]`` at ``levels[to:]``; how many changed."""
    signature = types.int64(arena, begin, levels, to, blocks, tail, rest, per_unit, zero)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        wide = ByteEmitter(context, builder, signature, args)
        source, target = wide.at(wide.data(0), args[1]), wide.at(wide.data(2), args[3])

        def block(emit: ByteEmitter, at: ir.Value, mine: ir.Value | None) -> ir.Value:
            per_unit, zero = emit.spread(args[7]), emit.spread(args[8])
            least, most = emit.constant(0), emit.constant(MOST)
            numbers = []
            for v in range(4):
                x = emit.read_numbers(emit.at(source, at), v)
                level = builder.fadd(emit.call("rint", builder.fmul(x, per_unit)), zero)
                level = builder.select(builder.fcmp_ordered(">", level, least), level, least)  # of NaN, 0
                level = builder.select(builder.fcmp_ordered(">", level, most), most, level)
                numbers.append(builder.fptosi(level, emit.of_numbers))
            return keep_bytes(emit, emit.packed(numbers), emit.at(target, at), mine)

        return over_row(wide, (args[4], args[5], args[6]), block)

    return signature, generate


@intrinsic
def copy_row(typing_context: Any, levels: Any, source: Any, target: Any, length: Any) -> Any:
    """Copy bytes within an array; how many differ from what was there."""
    signature = types.int64(levels, source, target, length)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        emit = ByteEmitter(context, builder, signature, args)
        source, target = (emit.at(emit.data(0), args[place]) for place in (1, 2))
        blocks = builder.sdiv(args[3], number(BYTES))
        rest = builder.sub(args[3], builder.mul(blocks, number(BYTES)))

        def block(emit: ByteEmitter, at: ir.Value, mine: ir.Value | None) -> ir.Value:
            return keep_bytes(emit, emit.read(emit.at(source, at), emit.of_bytes), emit.at(target, at), mine)

        some = builder.icmp_signed(">", rest, number(0))
        tail = builder.select(some, number(BYTES), number(0))
        return over_row(emit, (blocks, tail, rest), block)

    return signature, generate
