"""Event rules in vector code: what is sent is kept and counted, row by row or for neighbours in a frame.

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


def _sent(emit: Emitter, rule: str, x: Any, kept: Any, step: Any) -> Any:
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
                    new = _sent(emit, rule, x, kept, step)
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


def values_to_send(rule: str) -> Any:
    """Which of up to 64 ``values[place:]``, scaled and shifted, a rule would send, as bits; nothing is kept.

    ``weights[scale:]``, ``weights[shift:]`` and ``weights[steps:]`` hold a number for each of the ``length`` values.
    """

    @intrinsic
    def choose(
        typing_context: Any, values: Any, place: Any, weights: Any, scale: Any, shift: Any, steps: Any, arena: Any,
        begin: Any, length: Any,
    ) -> Any:  # fmt: skip
        signature = types.int64(values, place, weights, scale, shift, steps, arena, begin, length)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            emit = Emitter(context, builder, signature, args)
            row, kept = builder.gep(emit.data(0), [args[1]]), builder.gep(emit.data(6), [args[7]])
            scales, shifts, all_steps = (builder.gep(emit.data(2), [args[place]]) for place in (3, 4, 5))

            def one_vector(index: Any, carried: list[Any]) -> list[Any]:
                first = builder.mul(index, number(LANES))
                at = [first]
                x = builder.fmul(emit.load(builder.gep(row, at)), emit.load(builder.gep(scales, at)))
                x = builder.fadd(x, emit.load(builder.gep(shifts, at)))
                old = emit.load(builder.gep(kept, at))
                held = _sent(emit, rule, x, old, emit.load(builder.gep(all_steps, at)))
                sent = builder.fcmp_unordered("!=", held, old)
                return [builder.or_(carried[0], builder.shl(emit.bits(sent), first))]

            vectors = builder.sdiv(builder.add(args[8], number(LANES - 1)), number(LANES))
            (found,) = emit.loop(vectors, [number(0)], one_vector)
            return builder.and_(found, builder.lshr(number(-1), builder.sub(number(64), args[8])))

        return signature, generate

    return choose


def send_neighbours(rule: str, channels: int) -> Any:
    """Apply a rule to ``LANES`` neighbours in a frame, of few channels; keep, mark and count what is sent.

    For ``frame[flat:] * weights[scale:] + weights[shift:]`` with steps ``weights[steps:]`` and state ``arena[begin:]``.
    The first ``count`` neighbours are there, their marks at ``masks[mask:]``. In a fresh state the rule has to be NONE,
    and all has changed. Returns two numbers of 32 bits: which neighbours changed, as bits, above it how many values.
    """

    @intrinsic
    def send(
        typing_context: Any, frame: Any, flat: Any, weights: Any, scale: Any, shift: Any, steps: Any, arena: Any,
        begin: Any, count: Any, fresh: Any, masks: Any, mask: Any, counts: Any,
    ) -> Any:  # fmt: skip
        signature = types.int64(
            frame, flat, weights, scale, shift, steps, arena, begin, count, fresh, masks, mask, counts
        )

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            emit = Emitter(context, builder, signature, args)
            row, kept = builder.gep(emit.data(0), [args[1]]), builder.gep(emit.data(6), [args[7]])
            scales, shifts, all_steps = (builder.gep(emit.data(2), [args[place]]) for place in (3, 4, 5))
            news, olds, squares = [], [], []
            for vector in range(channels):
                at = [number(vector * LANES)]
                x = builder.fmul(emit.load(builder.gep(row, at)), emit.load(builder.gep(scales, at)))
                x = builder.fadd(x, emit.load(builder.gep(shifts, at)))
                old, step = emit.load(builder.gep(kept, at)), emit.load(builder.gep(all_steps, at))
                if rule == PIXEL:
                    change = builder.fdiv(builder.fsub(x, old), step)
                    squares.append(builder.fmul(change, change))
                news.append(_sent(emit, rule, x, old, step))
                olds.append(old)
            sent = emit.lanes_below(args[8])
            if rule == PIXEL:
                least = emit.constant(channels)  # of a root mean square of 1
                sent = builder.and_(sent, builder.fcmp_unordered(">=", _sum(emit, emit.apart(squares)), least))
            return _keep_neighbours(emit, kept, news, olds, sent, args[9], (args[11], 10, 12))

        return signature, generate

    return send


def rescale_neighbours(channels: int) -> Any:
    """Rescale those of ``LANES`` neighbours that changed, given as bits, from ``arena[begin:]`` to ``arena[to:]``.

    ``weights[scale:]`` and ``weights[shift:]`` are repeated for each of them; the rest is as in ``send_neighbours``.
    """

    @intrinsic
    def rescale(
        typing_context: Any, weights: Any, scale: Any, shift: Any, arena: Any, begin: Any, to: Any, bits: Any,
        fresh: Any, masks: Any, mask: Any, counts: Any,
    ) -> Any:  # fmt: skip
        signature = types.int64(weights, scale, shift, arena, begin, to, bits, fresh, masks, mask, counts)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            emit = Emitter(context, builder, signature, args)
            row, kept = (builder.gep(emit.data(3), [args[place]]) for place in (4, 5))
            scales, shifts = (builder.gep(emit.data(0), [args[place]]) for place in (1, 2))
            news, olds = [], []
            for vector in range(channels):
                at = [number(vector * LANES)]
                x = builder.fmul(emit.load(builder.gep(row, at)), emit.load(builder.gep(scales, at)))
                news.append(builder.fadd(x, emit.load(builder.gep(shifts, at))))
                olds.append(emit.load(builder.gep(kept, at)))
            sent = builder.bitcast(builder.trunc(args[6], ir.IntType(LANES)), ir.VectorType(ir.IntType(1), LANES))
            return _keep_neighbours(emit, kept, news, olds, sent, args[7], (args[9], 8, 10))

        return signature, generate

    return rescale


def _sum(emit: Emitter, vectors: list[Any]) -> Any:
    total, *others = vectors
    for other in others:
        total = emit.builder.fadd(total, other)
    return total


def _keep_neighbours(
    emit: Emitter, kept: Any, news: list[Any], olds: list[Any], sent: Any, fresh: Any, marks: tuple[Any, int, int]
) -> Any:
    """Keep the neighbours that are ``sent``, a lane for each, and mark those that changed.

    ``marks``: at which place, and which arguments are ``masks`` and ``counts``.
    """
    builder = emit.builder
    mask, masks, counts = marks
    anew = emit.spread(fresh)
    one, none = emit.constant(1), emit.constant(0)
    differing, elements = [], number(0)
    for vector, (new, old, mine) in enumerate(zip(news, olds, emit.together(sent, len(news)), strict=True)):
        emit.store(builder.select(mine, new, old), builder.gep(kept, [number(vector * LANES)]))
        lanes = builder.and_(mine, builder.or_(anew, builder.fcmp_unordered("!=", new, old)))
        elements = builder.add(elements, emit.count_lanes(lanes))
        differing.append(builder.select(lanes, one, none))
    total = _sum(emit, emit.apart(differing))
    changed = builder.fcmp_ordered(">", total, none)
    for array, size, value in (
        (masks, 8, builder.zext(changed, ir.VectorType(ir.IntType(8), LANES))),
        (counts, 32, builder.fptosi(total, ir.VectorType(ir.IntType(32), LANES))),
    ):
        place = builder.gep(emit.data(array), [mask])
        place = builder.bitcast(place, ir.VectorType(ir.IntType(size), LANES).as_pointer())
        before = builder.load(place, align=size // 8)
        builder.store(builder.select(changed, value, before), place, align=size // 8)
    return builder.or_(emit.bits(changed), builder.shl(elements, number(32)))
