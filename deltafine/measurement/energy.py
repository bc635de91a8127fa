"""Energy of one frame: an estimate from counts and a table of energy per operation and per byte."""

from __future__ import annotations

from pydantic import Field

from deltafine.measurement.figures import Part

BYTES_PER_VALUE = 4
PICO = 1e-12


class EnergyTable(Part):
    """What an operation and a byte cost; printed beside every estimate that is made with it."""

    mac: float = Field(description="pJ per multiply-accumulate")
    add: float = Field(description="pJ per addition, subtraction or comparison")
    byte: float = Field(description="pJ per byte read or written")
    source: str

    @property
    def sentence(self) -> str:
        return (
            f"Energy is an estimate, not a measurement: {self.mac:g} pJ per MAC, {self.add:g} pJ per addition or "
            f"comparison, {self.byte:g} pJ per byte of activations and state; weights are left out ({self.source})."
        )


HOROWITZ = EnergyTable(
    mac=4.6,
    add=0.9,
    byte=12.5,
    source="M. Horowitz, Computing's energy problem, ISSCC 2014: 45 nm, 32-bit floats, 1 MB SRAM",
)
"""3.7 + 0.9 pJ for a multiplication and an addition; 100 pJ for 8 bytes."""


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
