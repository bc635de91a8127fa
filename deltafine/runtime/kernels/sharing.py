"""Sharing the work of an operation among threads: a *team* is the one that advances a stream, and its helpers.

Who advances the stream offers pieces of work, takes some of them itself, and waits for those that a helper has taken.
So a helper that is late, busy or gone costs time, never an answer. A word of memory holds the number of the offer and
which pieces of it are left; a piece is taken by writing what is left without it, which fails if anybody was faster, or
if the offer is another one by now. The stream's thread takes the first piece that is left and helpers take the last, so
that what one has written in an operation is mostly what it reads in the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from deltafine.runtime.kernels import byte_memory as of_bytes
from deltafine.runtime.kernels import columns as at
from deltafine.runtime.kernels import kernel
from deltafine.runtime.kernels.memory import COLUMNS, Memory

LINE = 16
"""Words of int64 that no two of what different threads write shall share: two cache lines, as they come in pairs."""

OFFER, FINISHED, STOPPED, PLACE, COUNTS = (LINE * number for number in range(5))
"""Words of a team: the offer, how many of its pieces are done, whether helpers are to leave, what it is, what it made.

Behind PLACE stand the fields below, behind COUNTS what helpers counted.
"""
HOW, COUNT, SIZE, FRESH, WORK, THREADS, LEAST, LOOKS, SHORT, PIECES = (PLACE + 1 + number for number in range(10))
"""How it is shared, outputs in all, outputs or panels of a piece, whether all is new; and about how many nanoseconds
all that was offered takes. Behind them ``TeamSettings``."""
BY_ROWS, BY_PANELS, BY_LINES = range(3)
"""Pieces are outputs, from the first value to the last; panels of the weights, for few outputs; or lines of a frame."""
CHANGED, OTHER_CHANGED, COUNTERS, OTHER_COUNTERS = COUNTS, COUNTS + 1, COUNTS + 2, COUNTS + 2 + at.EFFECTIVE
TABLE = COUNTS + LINE
MORE = TABLE + COLUMNS * len(Memory._fields)
WORDS = MORE + COLUMNS * len(of_bytes.ByteMemory._fields) + LINE
"""Behind TABLE and MORE stand the addresses of what the stream works on."""

END_BITS, LEFT_BITS = 16, 32
"""The lowest bits of the offer: where the pieces that are left end; above them where they begin; and its number."""
_END = (1 << END_BITS) - 1
PATIENCE = 20_000
"""How often one looks whether a helper is done before it lets others have the processor."""


def _word(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
    return builder.gep(context.make_array(signature.args[0])(context, builder, args[0]).data, [args[1]])


@intrinsic
def read(typing_context: Any, words: Any, place: Any) -> Any:
    """A word that other threads write; what they wrote before it is there, too."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        return builder.load_atomic(_word(context, builder, signature, args), "seq_cst", 8)

    return types.int64(words, place), generate


@intrinsic
def write(typing_context: Any, words: Any, place: Any, value: Any) -> Any:
    """Write a word that other threads read, behind all that was written before."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        builder.store_atomic(args[2], _word(context, builder, signature, args), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(words, place, value), generate


@intrinsic
def replace(typing_context: Any, words: Any, place: Any, old: Any, new: Any) -> Any:
    """Write a word if it still is ``old``; whether it was."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        pointer = _word(context, builder, signature, args)
        found = builder.cmpxchg(pointer, args[2], args[3], "seq_cst", "seq_cst")
        return builder.extract_value(found, 1)

    return types.boolean(words, place, old, new), generate


@intrinsic
def add(typing_context: Any, words: Any, place: Any, value: Any) -> Any:
    """Add to a word that other threads add to."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        builder.atomic_rmw("add", _word(context, builder, signature, args), args[2], "seq_cst")
        return context.get_dummy_value()

    return types.void(words, place, value), generate


@intrinsic
def rest(typing_context: Any) -> Any:
    """Tell the processor that one is waiting."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        triple, nothing = builder.module.triple, ir.VoidType()
        if triple.startswith("x86_64"):
            pause = ir.FunctionType(nothing, [])
            builder.call(cgutils.get_or_insert_function(builder.module, pause, "llvm.x86.sse2.pause"), [])
        elif triple.startswith(("aarch64", "arm64")):
            hint = ir.FunctionType(nothing, [ir.IntType(32)])
            yields = ir.Constant(ir.IntType(32), 1)
            builder.call(cgutils.get_or_insert_function(builder.module, hint, "llvm.aarch64.hint"), [yields])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def give_way(typing_context: Any) -> Any:
    """Let another thread have the processor, if one waits for it; Windows has no such call, and goes on waiting."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        if "windows" in builder.module.triple:
            return context.get_dummy_value()
        kind = ir.FunctionType(ir.IntType(32), [])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), generate


@kernel
def offer(words: np.ndarray, place: int, how: int, count: int, size: int, fresh: bool, pieces: int) -> int:
    """Offer an operation to the helpers; the number of the offer."""
    words[PLACE], words[HOW], words[COUNT], words[SIZE], words[FRESH] = place, how, count, size, fresh
    words[FINISHED] = 0
    number = (read(words, OFFER) >> LEFT_BITS) + 1
    write(words, OFFER, number << LEFT_BITS | pieces)
    return number


@kernel
def take(words: np.ndarray, number: int, helping: bool) -> int:
    """Take a piece of an offer; -1 if none is left."""
    while True:
        word = read(words, OFFER)
        begin, end = word >> END_BITS & _END, word & _END
        if word >> LEFT_BITS != number or begin == end:
            return -1
        if replace(words, OFFER, word, word - 1 if helping else word + (1 << END_BITS)):
            return end - 1 if helping else begin


@kernel
def look(words: np.ndarray) -> int:
    """Wait for an offer; its number, or -1 if there was none for a while, or helpers are to leave."""
    for _ in range(words[LOOKS]):
        word = read(words, OFFER)
        if word >> END_BITS & _END != word & _END:
            return word >> LEFT_BITS
        if read(words, STOPPED):
            return -1
        rest()
    return -1


@kernel
def wait(words: np.ndarray, pieces: int) -> None:
    """Wait until so many pieces are done."""
    looks = 0
    while read(words, FINISHED) < pieces:
        looks += 1
        if looks > PATIENCE:
            give_way()
        else:
            rest()


@kernel
def copy_table(source: np.ndarray, words: np.ndarray, begin: int) -> None:
    """Write a table of addresses where helpers find it."""
    for row in range(source.shape[0]):
        for column in range(COLUMNS):
            words[begin + row * COLUMNS + column] = source[row, column]


@kernel
def found_table(words: np.ndarray, begin: int, own: np.ndarray, first: int, last: int) -> None:
    """Take over the rows ``first`` to ``last - 1`` of a table of addresses."""
    for row in range(first, last):
        for column in range(COLUMNS):
            own[row, column] = words[begin + row * COLUMNS + column]


@kernel
def _other_place(operation: np.ndarray, place: int) -> int:
    """The place of an operation that is done along with this one; -1 if there is none."""
    if operation[at.SUMMAND] >= 0:
        return operation[at.OWN_PLACE]
    return place + 1 if operation[at.RESCALED] >= 0 else -1


@kernel
def hand_over(
    words: np.ndarray, changed: np.ndarray, counters: np.ndarray, operation: np.ndarray, place: int
) -> None:  # fmt: skip
    """Write what a helper counted to the words of its team, and forget it."""
    output, rescaled, other = operation[at.OUTPUT], operation[at.RESCALED], _other_place(operation, place)
    add(words, CHANGED, changed[output])
    changed[output] = 0
    if rescaled >= 0:
        add(words, OTHER_CHANGED, changed[rescaled])
        changed[rescaled] = 0
    for column in range(at.EFFECTIVE):
        add(words, COUNTERS + column, counters[place, column])
        counters[place, column] = 0
        if other >= 0:
            add(words, OTHER_COUNTERS + column, counters[other, column])
            counters[other, column] = 0


@kernel
def take_over(
    words: np.ndarray, changed: np.ndarray, counters: np.ndarray, operation: np.ndarray, place: int
) -> None:  # fmt: skip
    """Add what helpers counted to the stream's own counts."""
    rescaled, other = operation[at.RESCALED], _other_place(operation, place)
    changed[operation[at.OUTPUT]] += words[CHANGED]
    if rescaled >= 0:
        changed[rescaled] += words[OTHER_CHANGED]
    for column in range(at.EFFECTIVE):
        counters[place, column] += words[COUNTERS + column]
        if other >= 0:
            counters[other, column] += words[OTHER_COUNTERS + column]
    words[COUNTS : COUNTS + LINE] = 0


@kernel
def piece_of_rows(words: np.ndarray, count: int, nanoseconds: float) -> int:
    """Outputs of a piece, of ``count`` that take so long each."""
    fewest = max(words[SHORT], np.int64(words[LEAST] / 2 / nanoseconds))
    pieces = max(min(words[THREADS] * words[PIECES], count // fewest), words[THREADS])
    return (count + pieces - 1) // pieces
