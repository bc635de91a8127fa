"""The end of a row in vector code: shift, rectify, apply an event rule, keep what is sent and count what changed.

``EventRule.advance`` is the definition of each rule. Whole vectors are read and written; what belongs to the next row
is written back as it was.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from deltafine.runtime.kernels.vectors import LANES, VECTOR, Emitter, number

NONE, QUANTIZE, ELEMENT, PIXEL = "none", "quantize", "element", "pixel"
_ZERO = ir.Constant(VECTOR, [0.0] * LANES)


def _vectors_of(emit: Emitter, length: Any) -> Any:
    return emit.builder.sdiv(emit.builder.add(length, number(LANES - 1)), number(LANES))


def _clipped(emit: Emitter, x: Any, least: Any, most: Any) -> Any:
    builder = emit.builder
    x = builder.select(builder.fcmp_ordered("<", x, least), least, x)
    return builder.select(builder.fcmp_ordered(">", x, most), most, x)


def _sent(emit: Emitter, rule: str, x: Any, kept: Any, step: Any) -> Any:
    """What a rule holds after seeing ``x``."""
    builder = emit.builder
    if rule == QUANTIZE:
        return builder.fmul(emit.call("rint", builder.fdiv(x, step)), step)
    if rule == ELEMENT:
        small = builder.fcmp_ordered("<", emit.call("fabs", builder.fsub(x, kept)), step)
        return builder.select(small, kept, x)
    return x


def keep_row(rule: str) -> Any:
    """Apply a rule to ``clip(values[place:] + shift, least, most)`` and keep it at ``arena[begin:]``.

    ``weights[shift:]`` are the shifts, ``weights[steps:]`` the steps of ``channels`` values. Returns how many changed.
    """

    @intrinsic
    def keep(
        typing_context: Any, values: Any, place: Any, weights: Any, shift: Any, least: Any, most: Any, steps: Any,
        arena: Any, begin: Any, channels: Any,
    ) -> Any:  # fmt: skip
        signature = types.int64(values, place, weights, shift, least, most, steps, arena, begin, channels)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            emit = Emitter(context, builder, signature, args)
            row, target = builder.gep(emit.data(0), [args[1]]), builder.gep(emit.data(7), [args[8]])
            shifts, all_steps = (builder.gep(emit.data(2), [args[place]]) for place in (3, 6))
            lower, upper = emit.spread(args[4]), emit.spread(args[5])

            def one_vector(index: Any, carried: list[Any]) -> list[Any]:
                at = builder.mul(index, number(LANES))
                here = builder.gep(target, [at])
                x = builder.fadd(emit.load(builder.gep(row, [at])), emit.load(builder.gep(shifts, [at])))
                kept = emit.load(here)
                step = emit.load(builder.gep(all_steps, [at]))
                new = _sent(emit, rule, _clipped(emit, x, lower, upper), kept, step)
                mine = emit.lanes_below(builder.sub(args[9], at))
                changed = builder.and_(mine, builder.fcmp_unordered("!=", new, kept))
                emit.store(builder.select(mine, new, kept), here)
                return [builder.add(carried[0], emit.count_lanes(changed))]

            (count,) = emit.loop(_vectors_of(emit, args[9]), [number(0)], one_vector)
            return count

        return signature, generate

    return keep


@intrinsic
def squared_change(
    typing_context: Any, values: Any, place: Any, weights: Any, shift: Any, least: Any, most: Any, steps: Any,
    arena: Any, begin: Any, channels: Any,
) -> Any:  # fmt: skip
    """Sum over the channels of the squared change in steps, for the arguments of ``keep_row``."""
    signature = types.float32(values, place, weights, shift, least, most, steps, arena, begin, channels)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Emitter(context, builder, signature, args)
        row, kept = builder.gep(emit.data(0), [args[1]]), builder.gep(emit.data(7), [args[8]])
        shifts, all_steps = (builder.gep(emit.data(2), [args[place]]) for place in (3, 6))
        lower, upper = emit.spread(args[4]), emit.spread(args[5])

        def one_vector(index: Any, carried: list[Any]) -> list[Any]:
            at = builder.mul(index, number(LANES))
            x = builder.fadd(emit.load(builder.gep(row, [at])), emit.load(builder.gep(shifts, [at])))
            change = builder.fsub(_clipped(emit, x, lower, upper), emit.load(builder.gep(kept, [at])))
            change = builder.fdiv(change, emit.load(builder.gep(all_steps, [at])))
            change = builder.select(emit.lanes_below(builder.sub(args[9], at)), change, _ZERO)
            return [builder.fadd(carried[0], builder.fmul(change, change))]

        (total,) = emit.loop(_vectors_of(emit, args[9]), [_ZERO], one_vector)
        return emit.total(total)

    return signature, generate


def values_to_send(rule: str) -> Any:
    """How many of ``values[place:]``, scaled and shifted, a rule would send; nothing is kept.

    ``weights[scale:]``, ``weights[shift:]`` and ``weights[steps:]`` hold a number for each of the ``length`` values.
    What would be held goes to ``out``. By the pixel those that moved by a step are counted, and ``out`` gets them all.
    """

    @intrinsic
    def count(
        typing_context: Any, values: Any, place: Any, weights: Any, scale: Any, shift: Any, steps: Any, arena: Any,
        begin: Any, length: Any, out: Any,
    ) -> Any:  # fmt: skip
        signature = types.int64(values, place, weights, scale, shift, steps, arena, begin, length, out)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            emit = Emitter(context, builder, signature, args)
            row, kept = builder.gep(emit.data(0), [args[1]]), builder.gep(emit.data(6), [args[7]])
            scales, shifts, all_steps = (builder.gep(emit.data(2), [args[place]]) for place in (3, 4, 5))
            result = emit.data(9)

            def one_vector(index: Any, carried: list[Any]) -> list[Any]:
                at = [builder.mul(index, number(LANES))]
                x = builder.fmul(emit.load(builder.gep(row, at)), emit.load(builder.gep(scales, at)))
                x = builder.fadd(x, emit.load(builder.gep(shifts, at)))
                old = emit.load(builder.gep(kept, at))
                held = _sent(emit, ELEMENT if rule == PIXEL else rule, x, old, emit.load(builder.gep(all_steps, at)))
                mine = emit.lanes_below(builder.sub(args[8], at[0]))
                changed = builder.and_(mine, builder.fcmp_unordered("!=", held, old))
                emit.store(x if rule == PIXEL else held, builder.gep(result, at))
                return [builder.add(carried[0], emit.count_lanes(changed))]

            (total,) = emit.loop(_vectors_of(emit, args[8]), [number(0)], one_vector)
            return total

        return signature, generate

    return count


@intrinsic
def squares(
    typing_context: Any, values: Any, weights: Any, steps: Any, arena: Any, begin: Any, length: Any
) -> Any:  # fmt: skip
    """Behind the first ``length`` values, the squares of their changes from ``arena[begin:]``, in their steps.

    The steps are ``weights[steps:]``; float32, and up to a vector more is written.
    """
    signature = types.void(values, weights, steps, arena, begin, length)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Emitter(context, builder, signature, args)
        values, kept = emit.data(0), builder.gep(emit.data(3), [args[4]])
        all_steps, target = builder.gep(emit.data(1), [args[2]]), builder.gep(values, [args[5]])

        def one_vector(index: Any, carried: list[Any]) -> list[Any]:
            at = [builder.mul(index, number(LANES))]
            change = builder.fsub(emit.load(builder.gep(values, at)), emit.load(builder.gep(kept, at)))
            change = builder.fdiv(change, emit.load(builder.gep(all_steps, at)))
            emit.store(builder.fmul(change, change), builder.gep(target, at))
            return []

        emit.loop(_vectors_of(emit, args[5]), [], one_vector)
        return context.get_dummy_value()

    return signature, generate
