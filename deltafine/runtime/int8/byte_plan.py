"""The plan in 8-bit integers: which tensors are bytes, and what an operation does with sums of 32 bits.

A value v of a tensor of bytes is held as q = round(v / scale) + zero, from 0 to 255. Operations on bytes add up whole
numbers in 32 bits, which do not overflow, and make bytes of the sums by one rule::

    q = limited(round(float32(sum + bias) * factor) * multiple + zero, low, high)

or, where an activation other than ReLU comes in between, by a table of bytes of it::

    q = table[limited(round(float32(sum + bias) * factor) + zero, low, high)]

where float32 and the product round to the nearest single-precision number, and round(...) to the nearest whole number,
halves to even ones. All of these are what IEEE 754 says, so the result is the same on every processor.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from deltafine.runtime.int8.grids import MOST, Grid
from deltafine.runtime.plan import UNKNOWN, Delta, Operation, Plan

QUANTISE, DEQUANTISE = "quantise", "dequantise"
"""Kinds of operations that stand between tensors of floating point and of bytes."""
FAR = 1 << 8
"""What a change of one is multiplied with before it is compared with a threshold, where a whole pixel is sent."""
LARGEST_FACTOR = (1 << 16) - 1


@dataclass(frozen=True)
class ByteStep:
    """What an operation on bytes does with its sums.

    Attributes:
        bias: int32 (channels,).
        factor: float32 (channels,).
        low, high, zero: of the levels that it gives.
        multiple: int32 (channels,), of which levels are multiples, from ``zero`` on; None for 1.
        times: of an operation that adds up its inputs: what each is multiplied with.
        zeros: of an operation that multiplies its inputs: the level of 0 of each, which is taken off before.
        table: uint8, what the levels from ``low`` to ``high`` give; None where they are what is given.
        in_floats: it gives float32(sum + bias) * factor, and is finished in floating point.
    """

    bias: np.ndarray
    factor: np.ndarray
    low: int = 0
    high: int = MOST
    zero: int = 0
    multiple: np.ndarray | None = None
    times: tuple[int, ...] = ()
    zeros: tuple[int, ...] = ()
    table: np.ndarray | None = None
    in_floats: bool = False


@dataclass
class BytePlan(Plan):
    """A plan of which some tensors are bytes.

    Attributes:
        grids: for each tensor how its bytes stand for numbers; None for a tensor of floating point.
        steps: by the index of their output what operations on bytes do with sums.
    """

    grids: list[Grid | None] = field(default_factory=list)
    steps: dict[int, ByteStep] = field(default_factory=dict)

    def on_bytes(self, operation: Operation) -> bool:
        """Whether an operation reads or makes bytes."""
        return operation.kind in (QUANTISE, DEQUANTISE) or operation.output in self.steps

    def sections(self) -> list[tuple[int, int]]:
        bounds: list[tuple[int, int]] = []
        before: object = None
        for place, operation in enumerate(self.operations):
            alone = self.own_rule(operation) is not None
            kind = place if alone else (operation.kind == UNKNOWN, self.on_bytes(operation))
            if bounds and kind == before and type(kind) is type(before):
                bounds[-1] = (bounds[-1][0], place + 1)
            else:
                bounds.append((place, place + 1))
            before = kind
        return bounds

    @property
    def in_floating_point(self) -> list[Operation]:
        """Operations behind the input's rescaling that no layer in 8 bits does."""
        plain = [one for one in self.operations if not self.on_bytes(one) and one.kind != "input"]
        first = self.operations[0].output
        return [one for one in plain if not (one.kind == "identity" and one.inputs == (first,))]

    def notes(self) -> list[str]:
        names = [f"'{one.name}' ({one.layer or one.kind})" for one in self.in_floating_point if one.kind != UNKNOWN]
        said = [f"In float32, not in int8: {', '.join(names)}"] if names else []
        return said + super().notes()


def element_thresholds(delta: Delta, thresholds: np.ndarray, grid: Grid, sensitivity: float) -> np.ndarray:
    """How many levels a byte has to change by to be sent: uint8, of the shape of the thresholds."""
    levels = np.rint(thresholds.astype(np.float64) * np.float32(sensitivity) / grid.scale)
    return np.clip(levels, 1, MOST).astype(np.uint8)


def unit_of(channels: int) -> int:
    """What a change of one threshold counts as, where a whole pixel is sent: sums of squares fit into 32 bits."""
    return 1 << max(min(6, int(np.floor(np.log2(46340 / channels)))), 0)


def cap_of(channels: int) -> int:
    """What a change of one channel counts as at most: enough to be sent whatever the others are."""
    return int(np.ceil(unit_of(channels) * np.sqrt(channels)))


def limit_of(channels: int) -> int:
    """The least sum of squares of a pixel that is sent: that of a root mean square of one threshold."""
    return channels * unit_of(channels) ** 2


def pixel_factors(thresholds: np.ndarray, grid: Grid, channels: int, sensitivity: float) -> np.ndarray:
    """What changes are multiplied with to count in thresholds: uint16, of the shape of the thresholds.

    A change by d levels counts as min(d * factor >> 8, cap).
    """
    with np.errstate(divide="ignore", over="ignore"):
        exact = FAR * unit_of(channels) * grid.scale / (thresholds.astype(np.float64) * np.float32(sensitivity))
    return np.clip(np.rint(exact), 0, LARGEST_FACTOR).astype(np.uint16)
