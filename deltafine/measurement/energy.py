"""Energy of one frame: an estimate from counts and a table of energy per operation and per byte."""

from __future__ import annotations

from deltafine.document.energy import HOROWITZ, EnergyTable

BYTES_PER_VALUE = 4
PICO = 1e-12


def dense_energy(macs: float, accumulates: float, values: float, table: EnergyTable = HOROWITZ) -> float:
    """Joules per frame of a dense inference.

    Args:
        macs: operations per frame, of which
        accumulates: need no multiplication.
        values: inputs read and outputs written per frame.
        table: what they cost.
    """
    compute = (macs - accumulates) * table.mac + accumulates * table.add
    return PICO * (compute + values * BYTES_PER_VALUE * table.byte)


def delta_energy(
    macs: float, accumulates: float, values: float, comparisons: float, moves: float, table: EnergyTable = HOROWITZ
) -> float:
    """Joules per frame of a delta inference: the effective operations, and the overhead.

    Args:
        macs: effective operations per frame, of which
        accumulates: need no multiplication.
        values: inputs read and outputs written per frame.
        comparisons: per frame, each with a subtraction.
        moves: values read and written besides.
        table: what they cost.
    """
    overhead = 2 * comparisons * table.add + moves * BYTES_PER_VALUE * table.byte
    return dense_energy(macs, accumulates, values, table) + PICO * overhead
