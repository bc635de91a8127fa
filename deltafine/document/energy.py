"""What an operation and a byte cost: the table behind every estimate of energy."""

from __future__ import annotations

from pydantic import Field

from deltafine.document.figures import DocumentObject


class EnergyTable(DocumentObject):
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
