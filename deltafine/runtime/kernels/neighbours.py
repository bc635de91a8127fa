"""Event rules in vector code for neighbours in a frame, whose few channels do not fill a vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from deltafine.runtime.kernels.rules import PIXEL, sent_value
from deltafine.runtime.kernels.vectors import I8, LANES, Emitter, number


def may_send(rule: str, channels: int) -> Any:
    """Whether a rule could send any of ``LANES`` neighbours, not 0 if so; nothing is kept.

    Of numbers, ``frame[flat:] * weights[scale:] + weights[shift:]``, with thresholds ``limits[thresholds:]`` and state
    ``arena[begin:]``, it is the rule itself for single values. Bytes are compared with those that were ``sent[flat:]``:
    what is less than ``levels[level:]`` away cannot be sent, of what is further away most is.
    """

    @intrinsic
    def look(
        typing_context: Any, frame: Any, flat: Any, weights: Any, scale: Any, shift: Any, limits: Any, thresholds: Any,
        arena: Any, begin: Any, sent: Any, levels: Any, level: Any,
    ) -> Any:  # fmt: skip
        signature = types.int64(
            frame, flat, weights, scale, shift, limits, thresholds, arena, begin, sent, levels, level
        )

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
            emit = Emitter(context, builder, signature, args)
            row, kept, bytes_sent, far = (
                builder.gep(emit.data(array), [args[first]]) for array, first in ((0, 1), (7, 8), (9, 1), (10, 11))
            )
            scales, shifts, thresholds = _of_a_line(emit)

            def one_vector(at: list[ir.Value]) -> ir.Value:
                if row.type.pointee == I8:
                    value, other, least = (emit.load_bytes(builder.gep(array, at)) for array in (row, bytes_sent, far))
                    above = builder.icmp_unsigned(">", value, other)
                    distance = builder.select(above, builder.sub(value, other), builder.sub(other, value))
                    return builder.icmp_unsigned(">=", distance, least)
                x = _scaled(emit, row, scales, shifts, at)
                old = emit.load(builder.gep(kept, at))
                held = sent_value(emit, rule, x, old, emit.load(builder.gep(thresholds, at)))
                return builder.fcmp_unordered("!=", held, old)

            some = one_vector([number(0)])
            for vector in range(1, channels):
                some = builder.or_(some, one_vector([number(vector * LANES)]))
            return emit.bits(some)

        return signature, generate

    return look


def send_neighbours(rule: str, channels: int) -> Any:
    """Apply a rule to ``LANES`` neighbours in a frame, of few channels; keep, mark and count what is sent.

    For ``frame[flat:] * weights[scale:] + weights[shift:]`` with thresholds ``limits[thresholds:]`` and state
    ``arena[begin:]``, and ``sent[flat:]`` where the frame is bytes. The first ``count`` neighbours are there, their
    marks at ``masks[mask:]``. In a fresh state the rule has to be NONE, and all has changed. Returns two numbers of 32
    bits: which neighbours changed, as bits, above it how many values.
    """

    @intrinsic
    def send(
        typing_context: Any, frame: Any, flat: Any, weights: Any, scale: Any, shift: Any, limits: Any, thresholds: Any,
        arena: Any, begin: Any, sent: Any, count: Any, fresh: Any, masks: Any, mask: Any, counts: Any,
    ) -> Any:  # fmt: skip
        signature = types.int64(
            frame, flat, weights, scale, shift, limits, thresholds, arena, begin, sent, count, fresh, masks, mask,
            counts,
        )  # fmt: skip

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
            emit = Emitter(context, builder, signature, args)
            row, kept = builder.gep(emit.data(0), [args[1]]), builder.gep(emit.data(7), [args[8]])
            scales, shifts, thresholds = _of_a_line(emit)
            news, olds, squares = [], [], []
            for vector in range(channels):
                at = [number(vector * LANES)]
                x = _scaled(emit, row, scales, shifts, at)
                old, threshold = emit.load(builder.gep(kept, at)), emit.load(builder.gep(thresholds, at))
                if rule == PIXEL:
                    change = builder.fdiv(builder.fsub(x, old), threshold)
                    squares.append(builder.fmul(change, change))
                news.append(sent_value(emit, rule, x, old, threshold))
                olds.append(old)
            mine = emit.lanes_below(args[10])
            of_bytes = (row, builder.gep(emit.data(9), [args[1]])) if row.type.pointee == I8 else None

            def keep() -> list[ir.Value]:
                return [_keep_neighbours(emit, kept, news, olds, mine, args[11], (args[13], 12, 14), of_bytes)]

            if rule != PIXEL:
                return keep()[0]
            least = emit.constant(channels)  # of a root mean square of 1
            mine = builder.and_(mine, builder.fcmp_unordered(">=", _sum(emit, emit.apart(squares)), least))
            (found,) = emit.where(builder.icmp_unsigned("!=", emit.bits(mine), number(0)), [number(0)], keep)
            return found

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

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
            emit = Emitter(context, builder, signature, args)
            row, kept = (builder.gep(emit.data(3), [args[place]]) for place in (4, 5))
            scales, shifts = (builder.gep(emit.data(0), [args[place]]) for place in (1, 2))
            news, olds = [], []
            for vector in range(channels):
                at = [number(vector * LANES)]
                news.append(_scaled(emit, row, scales, shifts, at))
                olds.append(emit.load(builder.gep(kept, at)))
            sent = builder.bitcast(builder.trunc(args[6], ir.IntType(LANES)), ir.VectorType(ir.IntType(1), LANES))
            return _keep_neighbours(emit, kept, news, olds, sent, args[7], (args[9], 8, 10))

        return signature, generate

    return rescale


def _of_a_line(emit: Emitter) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Scales, shifts and thresholds, as the arguments 2 to 6 say where they stand."""
    scales, shifts, thresholds = (
        emit.builder.gep(emit.data(array), [emit.args[place]]) for array, place in ((2, 3), (2, 4), (5, 6))
    )
    return scales, shifts, thresholds


def _scaled(emit: Emitter, row: ir.Value, scales: ir.Value, shifts: ir.Value, at: list[ir.Value]) -> ir.Value:
    """A vector of values, scaled and shifted."""
    values, scale, shift = (emit.load(emit.builder.gep(array, at)) for array in (row, scales, shifts))
    return emit.builder.fadd(emit.builder.fmul(values, scale), shift)


def _sum(emit: Emitter, vectors: list[ir.Value]) -> ir.Value:
    total, *others = vectors
    for other in others:
        total = emit.builder.fadd(total, other)
    return total


def _keep_neighbours(
    emit: Emitter, kept: ir.Value, news: list[ir.Value], olds: list[ir.Value], sent: ir.Value, fresh: ir.Value,
    marks: tuple[ir.Value, int, int], of_bytes: tuple[ir.Value, ir.Value] | None = None,
) -> ir.Value:  # fmt: skip
    """Keep the neighbours that are ``sent``, a lane for each, and mark those that changed.

    ``marks``: at which place, and which arguments are ``masks`` and ``counts``. ``of_bytes``: where the frame's bytes
    stand, and where those that were sent are kept.
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
        if of_bytes is not None:
            source, target = (builder.gep(array, [number(vector * LANES)]) for array in of_bytes)
            emit.store_bytes(builder.select(lanes, emit.load_bytes(source), emit.load_bytes(target)), target)
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
