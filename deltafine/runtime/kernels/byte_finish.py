"""The end of an operation on bytes: sums made levels, the event rule, and what of it changed.

``deltafine.runtime.int8.byte_plan`` says how sums become levels, and what the rules are in levels. Whole vectors are
read and written; what belongs to the next row is written back as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from deltafine.runtime.kernels.byte_rows import Block, keep_bytes, over_row, scaled_sums
from deltafine.runtime.kernels.byte_vectors import BYTES, I16, ByteEmitter
from deltafine.runtime.kernels.rules import ELEMENT, PIXEL
from deltafine.runtime.kernels.vectors import I8, I32, I64, number

MULTIPLES = "multiples"
"""A rule that sends whole numbers of thresholds, which are several levels."""


class _ByteRow(NamedTuple):
    """Where things of one row stand."""

    position: ir.Value
    sums: ir.Value
    kept: ir.Value
    thresholds: ir.Value


def send_bytes(rule: str, by_table: bool) -> Any:
    """Make levels of rows of sums, apply a rule; keep, mark and count what is sent.

    Of ``rows`` rows, at least one, number i stands at ``sums[i * pitch:]``: ``blocks`` whole vectors of bytes, and
    ``rest`` more channels in a vector of ``tail`` bytes. It goes to ``levels[targets[first + i]:]``, its mark to
    ``masks[mask + active[first + i]]``. Its constants stand at ``whole[bias:]``, ``factors[factor:]`` and
    ``whole[multiple:]``, its thresholds at ``near[threshold + active[first + i] * threshold_pitch:]`` for ELEMENT, at
    ``far[...]`` for PIXEL, which sends what comes to ``least`` or more. ``by_table``, levels are places in
    ``tables[table:]``. In a fresh state, whose rule must not hold values, all has changed. Returns two numbers of 32
    bits: how many rows changed, above it how many values.
    """

    @intrinsic
    def send(
        typing_context: Any, sums: Any, pitch: Any, rows: Any, blocks: Any, tail: Any, rest: Any, whole: Any,
        bias: Any, multiple: Any, factors: Any, factor: Any, zero: Any, low: Any, high: Any, near: Any, far: Any,
        threshold: Any, threshold_pitch: Any, least: Any, cap: Any, levels: Any, targets: Any, active: Any, first: Any,
        fresh: Any, masks: Any, mask: Any, counts: Any, line: Any, tables: Any, table: Any,
    ) -> Any:  # fmt: skip
        signature = types.int64(
            sums, pitch, rows, blocks, tail, rest, whole, bias, multiple, factors, factor, zero, low, high, near, far,
            threshold, threshold_pitch, least, cap, levels, targets, active, first, fresh, masks, mask, counts, line,
            tables, table,
        )  # fmt: skip

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
            (found,) = _ByteRows(ByteEmitter(context, builder, signature, args), rule, by_table).send()
            return found

        return signature, generate

    return send


class _ByteRows:
    """The code of one call of ``send_bytes``, whose arguments it takes."""

    def __init__(self, emit: ByteEmitter, rule: str, by_table: bool) -> None:
        self.emit, self.rule, self.by_table, self.builder = emit, rule, by_table, emit.builder
        (
            _, self.pitch, self.count, blocks, tail, rest, _, bias, multiple, _, factor, self.zero,
            self.low, self.high, _, _, self.threshold, self.threshold_pitch, self.least, self.cap, _, _, _, first,
            self.fresh, _, self.mask, _, _, _, table,
        ) = emit.args  # fmt: skip
        whole = emit.data(6)
        self.bias, self.multiple = (emit.at(whole, place) for place in (bias, multiple))
        self.sums, self.factors = emit.data(0), emit.at(emit.data(9), factor)
        self.limits = emit.data(15 if rule == PIXEL else 14)
        self.levels, self.marks, self.numbers, self.line = (emit.data(place) for place in (20, 25, 27, 28))
        self.targets, self.active = (emit.at(emit.data(place), first) for place in (21, 22))
        self.table, self.size = emit.at(emit.data(29), table), (blocks, tail, rest)
        self.channels = self.builder.add(self.builder.mul(blocks, number(BYTES)), rest)

    def send(self) -> list[ir.Value]:
        """All rows: the packed numbers."""

        def one(i: ir.Value, found: list[ir.Value]) -> list[ir.Value]:
            row = self._row(i)
            if self.rule != PIXEL:
                return self._note(row, found, over_row(self.emit, self.size, self._made_and_kept(row)))
            total = over_row(self.emit, self.size, self._made_and_counted(row))
            far = self.builder.icmp_signed(">=", total, self.least)

            def keep() -> list[ir.Value]:
                return self._note(row, found, over_row(self.emit, self.size, self._kept(row)))

            self._mark(row, number(0), ir.Constant(ir.IntType(1), 0))
            return self.emit.where(far, found, keep)

        return self.emit.loop(self.count, [number(0)], one)

    def _row(self, i: ir.Value) -> _ByteRow:
        builder, emit = self.builder, self.emit
        position = builder.load(emit.at(self.active, i))
        distance = builder.add(self.threshold, builder.mul(position, self.threshold_pitch))
        return _ByteRow(
            position,
            emit.at(self.sums, builder.mul(i, self.pitch)),
            emit.at(self.levels, builder.load(emit.at(self.targets, i))),
            emit.at(self.limits, distance),
        )

    def _made(self, emit: ByteEmitter, row: _ByteRow, at: ir.Value) -> ir.Value:
        """A vector of levels, of the sums from channel ``at`` on."""
        builder = self.builder
        zero = emit.everywhere(builder.trunc(self.zero, I32), emit.of_numbers)
        numbers = []
        for v in range(4):
            scaled = scaled_sums(emit, row.sums, self.bias, self.factors, at, v)
            level = builder.fptosi(emit.call("rint", scaled), emit.of_numbers)
            if self.rule == MULTIPLES:
                here = builder.add(at, number(v * emit.width // 4))
                level = builder.mul(level, emit.read(emit.at(self.multiple, here), emit.of_numbers))
            numbers.append(builder.add(level, zero))
        if self.by_table:
            return emit.looked_up(self.table, [emit.between(one, self.low, self.high) for one in numbers])
        low, high = (emit.everywhere(builder.trunc(end, I8), emit.of_bytes) for end in (self.low, self.high))
        return emit.smaller(emit.larger(emit.packed(numbers), low), high)

    def _made_and_kept(self, row: _ByteRow) -> Block:
        def block(emit: ByteEmitter, at: ir.Value, mine: ir.Value | None) -> ir.Value:
            new, old = self._made(emit, row, at), emit.read(emit.at(row.kept, at), emit.of_bytes)
            if self.rule == ELEMENT:
                least = emit.read(emit.at(row.thresholds, at), emit.of_bytes)
                small = self.builder.icmp_unsigned("<", emit.distance(new, old), least)
                new = self.builder.select(small, old, new)
            return keep_bytes(emit, new, emit.at(row.kept, at), mine)

        return block

    def _made_and_counted(self, row: _ByteRow) -> Block:
        def block(emit: ByteEmitter, at: ir.Value, mine: ir.Value | None) -> ir.Value:
            new, old = self._made(emit, row, at), emit.read(emit.at(row.kept, at), emit.of_bytes)
            emit.write(new, emit.at(self.line, at))
            change = emit.distance(new, old)
            if mine is not None:
                change = self.builder.select(mine, change, emit.constant_of(0, emit.of_bytes))
            factors = emit.read(emit.at(row.thresholds, at), ir.VectorType(I16, emit.width))
            return emit.sum_of_squares(change, factors, self.cap)

        return block

    def _kept(self, row: _ByteRow) -> Block:
        def block(emit: ByteEmitter, at: ir.Value, mine: ir.Value | None) -> ir.Value:
            new = emit.read(emit.at(self.line, at), emit.of_bytes)
            return keep_bytes(emit, new, emit.at(row.kept, at), mine)

        return block

    def _note(self, row: _ByteRow, found: list[ir.Value], differing: ir.Value) -> list[ir.Value]:
        builder = self.builder
        differing = builder.select(self.fresh, self.channels, differing)
        changed = builder.icmp_signed(">", differing, number(0))
        self._mark(row, differing, changed)
        packed = builder.or_(builder.zext(changed, I64), builder.shl(differing, number(32)))
        return [builder.add(found[0], packed)]

    def _mark(self, row: _ByteRow, differing: ir.Value, changed: ir.Value) -> None:
        place = self.builder.add(self.mask, row.position)
        self.builder.store(self.builder.zext(changed, I8), self.emit.at(self.marks, place))
        self.builder.store(self.builder.trunc(differing, I32), self.emit.at(self.numbers, place))
