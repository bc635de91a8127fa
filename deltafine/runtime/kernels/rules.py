"""Event rules in vector code: what is sent is kept and counted, row by row.

``EventRule.advance`` is the definition of each rule. Whole vectors are read and written; what belongs to the next row
is written back as it was.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from deltafine.runtime.kernels.vectors import F32, I32, I64, LANES, Emitter, number

_Add = Callable[[ir.Value, ir.Value], ir.Value]
_One = Callable[[Emitter, ir.Value, ir.Value | None], ir.Value]
"""What is summed up of the vector at a place, of these lanes or of all."""
_Total = Callable[[Emitter, ir.Value], ir.Value]

NONE, QUANTIZE, ELEMENT, PIXEL = "none", "quantize", "element", "pixel"


def _clipped(emit: Emitter, x: ir.Value, least: ir.Value, most: ir.Value) -> ir.Value:
    builder = emit.builder
    x = builder.select(builder.fcmp_ordered("<", x, least), least, x)
    return builder.select(builder.fcmp_ordered(">", x, most), most, x)


def sent_value(emit: Emitter, rule: str, x: ir.Value, kept: ir.Value, threshold: ir.Value) -> ir.Value:
    """What a rule holds after seeing ``x``, if it is sent."""
    builder = emit.builder
    if rule == QUANTIZE:
        return builder.fmul(emit.call("rint", builder.fdiv(x, threshold)), threshold)
    if rule == ELEMENT:
        small = builder.fcmp_ordered("<", emit.call("fabs", builder.fsub(x, kept)), threshold)
        return builder.select(small, kept, x)
    return x


LOW_BITS = (1 << 32) - 1

HALF, ONE, TWO, FOUR, WHOLE, ANY = "half", "one", "two", "four", "whole", "any"
"""Vectors that a row fills: half of one at most, one, two, four, any number of whole ones, or any number."""
FIXED = {HALF: 1, ONE: 1, TWO: 2, FOUR: 4}
"""Vectors of rows that are short enough to be written back, as they were, where they are not sent."""


def send_rows(rule: str, size: str) -> Any:
    """Apply a rule to rows of values; keep, mark and count what is sent.

    Of ``rows`` rows, number i stands at ``values[i * pitch:]``. With ``weights[shift:]`` added and clipped to ``least``
    and ``most`` it goes to ``arena[targets[first + i]:]``, its mark to ``masks[mask + active[first + i]]``. Its
    thresholds are ``limits[thresholds + active[first + i] * threshold_pitch:]``. In a fresh state, whose rule must not
    hold values, all has changed. Returns two numbers of 32 bits: how many rows changed, and above it how many values.
    """

    @intrinsic
    def send(
        typing_context: Any, values: Any, pitch: Any, rows: Any, weights: Any, shift: Any, least: Any, most: Any,
        limits: Any, thresholds: Any, threshold_pitch: Any, arena: Any, targets: Any, active: Any, first: Any,
        channels: Any, fresh: Any, masks: Any, mask: Any, counts: Any,
    ) -> Any:  # fmt: skip
        signature = types.int64(
            values, pitch, rows, weights, shift, least, most, limits, thresholds, threshold_pitch, arena, targets,
            active, first, channels, fresh, masks, mask, counts,
        )  # fmt: skip

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
            code = _Rows(Emitter(context, builder, signature, args), rule, size)
            some = builder.icmp_signed(">", code.count, number(0))
            (found,) = code.wide.where(some, [number(0)], code.send)
            return found

        return signature, generate

    return send


class _Row(NamedTuple):
    """Where things of one row stand."""

    position: ir.Value
    values: ir.Value
    target: ir.Value
    thresholds: ir.Value


class _Rows:
    """The code of one call of ``send_rows``, whose arguments it takes."""

    def __init__(self, emit: Emitter, rule: str, size: str) -> None:
        self.rule, self.size = rule, size
        self.wide, self.narrow, self.builder = emit, emit.halved, emit.builder
        (
            _, self.pitch, self.count, _, shift, self.least, self.most, _, self.thresholds, self.threshold_pitch, _, _,
            _, first, self.channels, self.fresh, _, self.mask, _,
        ) = emit.args  # fmt: skip
        self.scratch, self.arena, self.marks, self.numbers = (emit.data(place) for place in (0, 10, 16, 18))
        self.shifts, self.limits = self.builder.gep(emit.data(3), [shift]), emit.data(7)
        self.targets, self.active = (self.builder.gep(emit.data(place), [first]) for place in (11, 12))
        self.vectors = self.builder.sdiv(self.channels, number(LANES))
        self.of_row = self.narrow.lanes_below(self.channels)
        self.least_total = self.builder.sitofp(self.channels, F32)  # of a root mean square of 1

    def send(self) -> list[ir.Value]:
        """All rows, at least one: the packed numbers."""

        def one(i: ir.Value, found: list[ir.Value]) -> list[ir.Value]:
            row = self._row(i)
            if self.rule != PIXEL:
                return self._keep_row(row, found)
            if self.size in FIXED:  # which it will be is hard to guess, and a branch on it would often go wrong
                return self._keep_row(row, found, self._lanes_to_send(row))
            total = self._sum(ir.Constant(F32, 0), self.builder.fadd, self._squares(row), Emitter.total)
            far = self.builder.fcmp_unordered(">=", total, self.least_total)
            return self.wide.where(far, found, lambda: self._keep_row(row, found))

        return self.wide.loop(self.count, [number(0)], one)

    def _row(self, i: ir.Value) -> _Row:
        builder = self.builder
        position = builder.load(builder.gep(self.active, [i]))
        return _Row(
            position,
            builder.gep(self.scratch, [builder.mul(i, self.pitch)]),
            builder.gep(self.arena, [builder.load(builder.gep(self.targets, [i]))]),
            builder.gep(self.limits, [builder.add(self.thresholds, builder.mul(position, self.threshold_pitch))]),
        )

    def _values(self, emit: Emitter, row: _Row, at: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
        """What is new, what was kept, and the thresholds."""
        builder = self.builder
        x, shift, kept, threshold = (
            emit.load(builder.gep(array, [at])) for array in (row.values, self.shifts, row.target, row.thresholds)
        )
        return _clipped(emit, builder.fadd(x, shift), emit.spread(self.least), emit.spread(self.most)), kept, threshold

    def _squares(self, row: _Row) -> _One:
        """Squares of changes in thresholds."""

        def squares(emit: Emitter, at: ir.Value, mine: ir.Value | None) -> ir.Value:
            x, kept, threshold = self._values(emit, row, at)
            change = self.builder.fdiv(self.builder.fsub(x, kept), threshold)
            change = change if mine is None else self.builder.select(mine, change, emit.constant(0))
            return self.builder.fmul(change, change)

        return squares

    def _lanes_to_send(self, row: _Row) -> ir.Value:
        """All lanes of a row that is sent, none of another."""
        emit = self.narrow if self.size == HALF else self.wide
        totals = self._sum(ir.Constant(F32, 0), self.builder.fadd, self._squares(row), Emitter.total_everywhere)
        return self.builder.fcmp_unordered(">=", totals, emit.spread(self.least_total))

    def _keep_row(self, row: _Row, found: list[ir.Value], lanes: ir.Value | None = None) -> list[ir.Value]:
        """Keep what a rule sends of a row, in these ``lanes`` or all, mark and count it."""
        builder = self.builder

        def keep(emit: Emitter, at: ir.Value, mine: ir.Value | None) -> ir.Value:
            x, kept, threshold = self._values(emit, row, at)
            new = sent_value(emit, self.rule, x, kept, threshold)
            changed = builder.fcmp_unordered("!=", new, kept)
            for chosen in filter(None, (mine, lanes)):
                changed, new = builder.and_(chosen, changed), builder.select(chosen, new, kept)
            emit.store(new, builder.gep(row.target, [at]))
            return emit.count_lanes(changed)

        differing = self._sum(number(0), builder.add, keep, lambda emit, count: count)
        differing = builder.select(self.fresh, self.channels, differing)
        changed = builder.icmp_signed(">", differing, number(0))
        place = [builder.add(self.mask, row.position)]
        builder.store(builder.zext(changed, ir.IntType(8)), builder.gep(self.marks, place))
        builder.store(builder.trunc(differing, I32), builder.gep(self.numbers, place))
        packed = builder.or_(builder.zext(changed, I64), builder.shl(differing, number(32)))
        return [builder.add(found[0], packed)]

    def _sum(self, zero: ir.Value, add: _Add, one: _One, total_of: _Total) -> ir.Value:
        """Sum of ``one(emit, at, mine)`` over the vectors of a row, see ``_over_row``."""
        if self.size in FIXED:
            emit, mine = (self.narrow, self.of_row) if self.size == HALF else (self.wide, None)
            vectors = [one(emit, number(vector * LANES), mine) for vector in range(FIXED[self.size])]
            return total_of(emit, functools.reduce(add, vectors))
        if self.size == WHOLE:
            return total_of(self.wide, _over_vectors(self.wide, self.vectors, add, one))
        return _over_row(self.wide, self.channels, zero, add, one, total_of)


def _over_vectors(emit: Emitter, count: ir.Value, add: _Add, one: _One) -> ir.Value:
    """Sum of ``one(emit, at, None)`` over so many whole vectors, at least one."""
    builder = emit.builder
    first = one(emit, number(0), None)

    def following(index: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        at = builder.mul(builder.add(index, number(1)), number(LANES))
        return [add(sums[0], one(emit, at, None))]

    more = builder.sub(count, number(1))
    (total,) = emit.where(
        builder.icmp_signed(">", more, number(0)), [first], lambda: emit.loop(more, [first], following)
    )
    return total


def _over_row(emit: Emitter, length: ir.Value, zero: ir.Value, add: _Add, one: _One, total_of: _Total) -> ir.Value:
    """Sum of ``one(emit, at, mine)`` over the vectors of a row; of the last, only the lanes ``mine`` belong to it.

    ``total_of(emit, sum)`` makes a number of it. A rest that fits into half a vector is done by one: what was written
    for a row would else be waited for by the next, which lies right behind it.
    """
    builder = emit.builder
    whole = builder.sdiv(length, number(LANES))
    at_rest = builder.mul(whole, number(LANES))
    rest = builder.sub(length, at_rest)

    def all_whole() -> list[ir.Value]:
        return [total_of(emit, _over_vectors(emit, whole, add, one))]

    def last(narrow: Emitter) -> Callable[[], list[ir.Value]]:
        return lambda: [add(total, total_of(narrow, one(narrow, at_rest, narrow.lanes_below(rest))))]

    (total,) = emit.where(builder.icmp_signed(">", whole, number(0)), [zero], all_whole)
    half = number(LANES // 2)
    (total,) = emit.where(builder.icmp_signed(">", rest, half), [total], last(emit))
    fits = builder.and_(builder.icmp_signed(">", rest, number(0)), builder.icmp_signed("<=", rest, half))
    (total,) = emit.where(fits, [total], last(emit.halved))
    return total
