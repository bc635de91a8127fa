"""Event rules in vector code: what is sent is kept and counted, row by row.

``EventRule.advance`` is the definition of each rule. Whole vectors are read and written; what belongs to the next row
is written back as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from deltafine.runtime.kernels.vectors import F32, I32, I64, LANES, Emitter, number

NONE, QUANTIZE, ELEMENT, PIXEL = "none", "quantize", "element", "pixel"


def _clipped(emit: Emitter, x: Any, least: Any, most: Any) -> Any:
    builder = emit.builder
    x = builder.select(builder.fcmp_ordered("<", x, least), least, x)
    return builder.select(builder.fcmp_ordered(">", x, most), most, x)


def sent_value(emit: Emitter, rule: str, x: Any, kept: Any, step: Any) -> Any:
    """What a rule holds after seeing ``x``, if its unit is sent."""
    builder = emit.builder
    if rule == QUANTIZE:
        return builder.fmul(emit.call("rint", builder.fdiv(x, step)), step)
    if rule == ELEMENT:
        small = builder.fcmp_ordered("<", emit.call("fabs", builder.fsub(x, kept)), step)
        return builder.select(small, kept, x)
    return x


LOW_BITS = (1 << 32) - 1

HALF, WHOLE, ANY = "half", "whole", "any"
"""Vectors that a row fills: half of one at most, whole ones, or any number."""


def send_rows(rule: str, size: str) -> Any:
    """Apply a rule to rows of values; keep, mark and count what is sent.

    Of ``rows`` rows, number i stands at ``values[i * pitch:]``. With ``weights[shift:]`` added and clipped to ``least``
    and ``most`` it goes to ``arena[targets[first + i]:]``, its mark to ``masks[mask + active[first + i]]``. Its steps
    are ``weights[steps + active[first + i] * step_pitch:]``. In a fresh state, whose rule must not hold values, all has
    changed. Returns two numbers of 32 bits: how many rows changed, and above it how many values.
    """

    @intrinsic
    def send(
        typing_context: Any, values: Any, pitch: Any, rows: Any, weights: Any, shift: Any, least: Any, most: Any,
        steps: Any, step_pitch: Any, arena: Any, targets: Any, active: Any, first: Any, channels: Any, fresh: Any,
        masks: Any, mask: Any, counts: Any,
    ) -> Any:  # fmt: skip
        signature = types.int64(
            values, pitch, rows, weights, shift, least, most, steps, step_pitch, arena, targets, active, first,
            channels, fresh, masks, mask, counts,
        )  # fmt: skip

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            wide = Emitter(context, builder, signature, args)
            scratch, arena, marks, numbers = wide.data(0), wide.data(9), wide.data(15), wide.data(17)
            shifts = builder.gep(wide.data(3), [args[4]])
            targets, active = (builder.gep(wide.data(place), [args[12]]) for place in (10, 11))
            channels = args[13]
            vectors = builder.sdiv(channels, number(LANES))
            narrow = wide.halved
            of_row = narrow.lanes_below(channels)

            def over_row(zero: Any, add: Any, one: Any, total_of: Any) -> Any:
                if size == HALF:
                    return total_of(narrow, one(narrow, number(0), of_row))
                if size == WHOLE:
                    return total_of(wide, _over_vectors(wide, vectors, add, one))
                return _over_row(wide, channels, zero, add, one, total_of)

            def one_row(i: Any, carried: list[Any]) -> list[Any]:
                position = builder.load(builder.gep(active, [i]))
                row = builder.gep(scratch, [builder.mul(i, args[1])])
                target = builder.gep(arena, [builder.load(builder.gep(targets, [i]))])
                all_steps = builder.gep(
                    wide.data(3), [builder.add(args[7], builder.mul(position, args[8]))]
                )  # fmt: skip

                def values_at(emit: Emitter, at: Any) -> tuple[Any, Any, Any]:
                    x = builder.fadd(emit.load(builder.gep(row, [at])), emit.load(builder.gep(shifts, [at])))
                    kept = emit.load(builder.gep(target, [at]))
                    step = emit.load(builder.gep(all_steps, [at]))
                    return _clipped(emit, x, emit.spread(args[5]), emit.spread(args[6])), kept, step

                def squares(emit: Emitter, at: Any, mine: Any) -> Any:
                    x, kept, step = values_at(emit, at)
                    change = builder.fdiv(builder.fsub(x, kept), step)
                    change = change if mine is None else builder.select(mine, change, emit.constant(0))
                    return builder.fmul(change, change)

                def keep(emit: Emitter, at: Any, mine: Any) -> Any:
                    x, kept, step = values_at(emit, at)
                    new = sent_value(emit, rule, x, kept, step)
                    changed = builder.fcmp_unordered("!=", new, kept)
                    if mine is not None:
                        changed, new = builder.and_(mine, changed), builder.select(mine, new, kept)
                    emit.store(new, builder.gep(target, [at]))
                    return emit.count_lanes(changed)

                def keep_row() -> list[Any]:
                    differing = over_row(number(0), builder.add, keep, lambda emit, count: count)
                    differing = builder.select(args[14], channels, differing)
                    changed = builder.icmp_signed(">", differing, number(0))
                    place = [builder.add(args[16], position)]
                    builder.store(builder.zext(changed, ir.IntType(8)), builder.gep(marks, place))
                    builder.store(builder.trunc(differing, I32), builder.gep(numbers, place))
                    packed = builder.or_(builder.zext(changed, I64), builder.shl(differing, number(32)))
                    return [builder.add(carried[0], packed)]

                if rule != PIXEL:
                    return keep_row()
                total = over_row(ir.Constant(F32, 0), builder.fadd, squares, Emitter.total)
                least_total = builder.sitofp(channels, F32)  # of a root mean square of 1
                return wide.where(builder.fcmp_unordered(">=", total, least_total), carried, keep_row)

            (found,) = wide.where(
                builder.icmp_signed(">", args[2], number(0)),
                [number(0)],
                lambda: wide.loop(args[2], [number(0)], one_row),
            )
            return found

        return signature, generate

    return send


def _over_vectors(emit: Emitter, count: Any, add: Any, one: Callable[[Emitter, Any, Any], Any]) -> Any:
    """Sum of ``one(emit, at, None)`` over so many whole vectors, at least one."""
    builder = emit.builder
    first = one(emit, number(0), None)

    def following(index: Any, sums: list[Any]) -> list[Any]:
        at = builder.mul(builder.add(index, number(1)), number(LANES))
        return [add(sums[0], one(emit, at, None))]

    more = builder.sub(count, number(1))
    (total,) = emit.where(
        builder.icmp_signed(">", more, number(0)), [first], lambda: emit.loop(more, [first], following)
    )
    return total


def _over_row(
    emit: Emitter, length: Any, zero: Any, add: Any, one: Callable[[Emitter, Any, Any], Any],
    total_of: Callable[[Emitter, Any], Any],
) -> Any:  # fmt: skip
    """Sum of ``one(emit, at, mine)`` over the vectors of a row; of the last, only the lanes ``mine`` belong to it.

    ``total_of(emit, sum)`` makes a number of it. A rest that fits into half a vector is done by one: what was written
    for a row would else be waited for by the next, which lies right behind it.
    """
    builder = emit.builder
    whole = builder.sdiv(length, number(LANES))
    at_rest = builder.mul(whole, number(LANES))
    rest = builder.sub(length, at_rest)

    def all_whole() -> list[Any]:
        return [total_of(emit, _over_vectors(emit, whole, add, one))]

    def last(narrow: Emitter) -> Callable[[], list[Any]]:
        return lambda: [add(total, total_of(narrow, one(narrow, at_rest, narrow.lanes_below(rest))))]

    (total,) = emit.where(builder.icmp_signed(">", whole, number(0)), [zero], all_whole)
    half = number(LANES // 2)
    (total,) = emit.where(builder.icmp_signed(">", rest, half), [total], last(emit))
    fits = builder.and_(builder.icmp_signed(">", rest, number(0)), builder.icmp_signed("<=", rest, half))
    (total,) = emit.where(fits, [total], last(emit.halved))
    return total
