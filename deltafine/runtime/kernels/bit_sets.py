"""Sets of up to 64 places as the bits of an integer: a whole line of a picture is looked at in a few instructions.

Words are int64; only their bits matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from deltafine.runtime.kernels.vectors import I64, Emitter, number

BITS, LOG2_BITS = 64, 6
EVEN = 0x5555_5555_5555_5555
"""Every second place."""
_BYTES = ir.VectorType(ir.IntType(8), BITS)


@intrinsic
def bits_of(typing_context: Any, masks: Any, begin: Any, count: Any) -> Any:
    """Which of the ``count`` bytes (1 to 64) at ``masks[begin:]`` are not 0; 64 of them are read."""
    signature = types.int64(masks, begin, count)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        emit = Emitter(context, builder, signature, args)
        place = builder.bitcast(builder.gep(emit.data(0), [args[1]]), _BYTES.as_pointer())
        some = builder.icmp_unsigned("!=", builder.load(place, align=1), ir.Constant(_BYTES, [0] * BITS))
        mine = builder.lshr(number(-1), builder.sub(number(BITS), args[2]))
        return builder.and_(builder.bitcast(some, I64), mine)

    return signature, generate


@intrinsic
def bits_from(typing_context: Any, low: Any, high: Any, first: Any) -> Any:
    """64 bits of two words side by side, beginning with bit ``first`` (0 to 63) of ``low``."""
    signature = types.int64(low, high, first)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        function = builder.module.declare_intrinsic("llvm.fshr", [I64], ir.FunctionType(I64, [I64] * 3))
        return builder.call(function, [args[1], args[0], args[2]])

    return signature, generate


@intrinsic
def lowest_bit(typing_context: Any, word: Any) -> Any:
    """The place of the lowest bit of a word that is not 0."""
    signature = types.int64(word)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return signature, generate


@intrinsic
def count_bits(typing_context: Any, word: Any) -> Any:
    """How many bits of a word are 1."""
    signature = types.int64(word)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        return builder.ctpop(args[0])

    return signature, generate
