"""The end of an operation on bytes: sums made levels, the event rule, and what of it changed.

``deltafine.runtime.int8.byte_plan`` says how sums become levels, and what the rules are in levels. Whole vectors are
read and written; what belongs to the next row is written back as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from deltafine.runtime.kernels.byte_vectors import BYTES, I16, WIDTHS, ByteEmitter
from deltafine.runtime.kernels.rules import ELEMENT, PIXEL
from deltafine.runtime.kernels.vectors import F32, I8, I32, I64, number

MULTIPLES = "multiples"
"""A rule that sends whole numbers of thresholds, which are several levels."""

_Block = Callable[[ByteEmitter, ir.Value, ir.Value | None], ir.Value]


class _ByteRow(NamedTuple):
    """Where things of one row stand."""

    position: ir.Value
    sums: ir.Value
    kept: ir.Value
    thresholds: ir.Value


def send_bytes(rule: str) -> Any:
    """Make levels of rows of sums, apply a rule; keep, mark and count what is sent.

    Of ``rows`` rows, at least one, number i stands at ``sums[i * pitch:]``: ``blocks`` whole vectors of bytes, and
    ``rest`` more channels in a vector of ``tail`` bytes. It goes to ``levels[targets[first + i]:]``, its mark to
    ``masks[mask + active[first + i]]``. Its constants stand at ``whole[bias:]``, ``factors[factor:]`` and
    ``whole[multiple:]``, its thresholds at ``limits[threshold + active[first + i] * threshold_pitch:]``: bytes for
    ELEMENT, 16-bit factors for PIXEL, which sends what comes to ``least`` or more. In a fresh state, whose rule must
    not hold values, all has changed. Returns two numbers of 32 bits: how many rows changed, above it how many values.
    """

    @intrinsic
    def send(
        typing_context: Any, sums: Any, pitch: Any, rows: Any, blocks: Any, tail: Any, rest: Any, whole: Any,
        bias: Any, multiple: Any, factors: Any, factor: Any, zero: Any, low: Any, high: Any, limits: Any,
        threshold: Any, threshold_pitch: Any, least: Any, cap: Any, levels: Any, targets: Any, active: Any, first: Any,
        fresh: Any, masks: Any, mask: Any, counts: Any, line: Any,
    ) -> Any:  # fmt: skip
        signature = types.int64(
            sums, pitch, rows, blocks, tail, rest, whole, bias, multiple, factors, factor, zero, low, high, limits,
            threshold, threshold_pitch, least, cap, levels, targets, active, first, fresh, masks, mask, counts, line,
        )  # fmt: skip

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
            (found,) = _ByteRows(ByteEmitter(context, builder, signature, args), rule).send()
            return found

        return signature, generate

    return send


class _ByteRows:
    """The code of one call of ``send_bytes``, whose arguments it takes."""

    def __init__(self, emit: ByteEmitter, rule: str) -> None:
        self.emit, self.rule, self.builder = emit, rule, emit.builder
        (
            _, self.pitch, self.count, self.blocks, self.tail, self.rest, _, bias, multiple, _, factor, self.zero,
            self.low, self.high, _, self.threshold, self.threshold_pitch, self.least, self.cap, _, _, _, first,
            self.fresh, _, self.mask, _, _,
        ) = emit.args  # fmt: skip
        whole = emit.data(6)
        self.bias, self.multiple = (emit.at(whole, place) for place in (bias, multiple))
        self.sums, self.factors, self.limits = emit.data(0), emit.at(emit.data(9), factor), emit.data(14)
        self.levels, self.marks, self.numbers, self.line = (emit.data(place) for place in (19, 24, 26, 27))
        self.targets, self.active = (emit.at(emit.data(place), first) for place in (20, 21))
        self.channels = self.builder.add(self.builder.mul(self.blocks, number(BYTES)), self.rest)

    def send(self) -> list[ir.Value]:
        """All rows: the packed numbers."""

        def one(i: ir.Value, found: list[ir.Value]) -> list[ir.Value]:
            row = self._row(i)
            if self.rule != PIXEL:
                return self._note(row, found, self._over_row(self._made_and_kept(row)))
            total = self._over_row(self._made_and_counted(row))
            far = self.builder.icmp_signed(">=", total, self.least)

            def keep() -> list[ir.Value]:
                return self._note(row, found, self._over_row(self._kept(row)))

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
        of_floats = ir.VectorType(F32, emit.width // 4)
        zero = emit.everywhere(builder.trunc(self.zero, I32), emit.of_numbers)
        numbers = []
        for v in range(4):
            here = builder.add(at, number(v * emit.width // 4))
            total = emit.read(emit.at(row.sums, here), emit.of_numbers)
            total = builder.add(total, emit.read(emit.at(self.bias, here), emit.of_numbers))
            factor = emit.read(emit.at(self.factors, here), of_floats)
            scaled = builder.fmul(builder.sitofp(total, of_floats), factor)
            level = builder.fptosi(emit.call("rint", scaled), emit.of_numbers)
            if self.rule == MULTIPLES:
                level = builder.mul(level, emit.read(emit.at(self.multiple, here), emit.of_numbers))
            numbers.append(builder.add(level, zero))
        low, high = (emit.everywhere(builder.trunc(end, I8), emit.of_bytes) for end in (self.low, self.high))
        return emit.smaller(emit.larger(emit.packed(numbers), low), high)

    def _made_and_kept(self, row: _ByteRow) -> _Block:
        def block(emit: ByteEmitter, at: ir.Value, mine: ir.Value | None) -> ir.Value:
            new, old = self._made(emit, row, at), emit.read(emit.at(row.kept, at), emit.of_bytes)
            if self.rule == ELEMENT:
                least = emit.read(emit.at(row.thresholds, at), emit.of_bytes)
                small = self.builder.icmp_unsigned("<", emit.distance(new, old), least)
                new = self.builder.select(small, old, new)
            return self._keep(emit, row, at, mine, new, old)

        return block

    def _made_and_counted(self, row: _ByteRow) -> _Block:
        def block(emit: ByteEmitter, at: ir.Value, mine: ir.Value | None) -> ir.Value:
            new, old = self._made(emit, row, at), emit.read(emit.at(row.kept, at), emit.of_bytes)
            emit.write(new, emit.at(self.line, at))
            change = emit.distance(new, old)
            if mine is not None:
                change = self.builder.select(mine, change, emit.constant_of(0, emit.of_bytes))
            factors = emit.read(emit.at(row.thresholds, at), ir.VectorType(I16, emit.width))
            return emit.sum_of_squares(change, factors, self.cap)

        return block

    def _kept(self, row: _ByteRow) -> _Block:
        def block(emit: ByteEmitter, at: ir.Value, mine: ir.Value | None) -> ir.Value:
            new, old = (emit.read(emit.at(line, at), emit.of_bytes) for line in (self.line, row.kept))
            return self._keep(emit, row, at, mine, new, old)

        return block

    def _keep(
        self, emit: ByteEmitter, row: _ByteRow, at: ir.Value, mine: ir.Value | None, new: ir.Value, old: ir.Value
    ) -> ir.Value:
        """Keep a vector; returns how many of its bytes changed."""
        changed = self.builder.icmp_unsigned("!=", new, old)
        if mine is not None:
            changed, new = self.builder.and_(changed, mine), self.builder.select(mine, new, old)
        emit.write(new, emit.at(row.kept, at))
        return emit.count_true(changed)

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

    def _over_row(self, block: _Block) -> ir.Value:
        """Sum of ``block(emit, at, mine)`` over the vectors of a row; of the last, only the lanes ``mine``."""
        builder, emit = self.builder, self.emit

        def one(index: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            return [builder.add(sums[0], block(emit, builder.mul(index, number(BYTES)), None))]

        some = builder.icmp_signed(">", self.blocks, number(0))
        (total,) = emit.where(some, [number(0)], lambda: emit.loop(self.blocks, [number(0)], one))
        at_rest = builder.mul(self.blocks, number(BYTES))
        for width in WIDTHS:
            own = emit.of_width(width)

            def last(own: ByteEmitter = own, total: ir.Value = total) -> list[ir.Value]:
                return [builder.add(total, block(own, at_rest, own.bytes_below(self.rest)))]

            (total,) = emit.where(builder.icmp_signed("==", self.tail, number(width)), [total], last)
        return total
