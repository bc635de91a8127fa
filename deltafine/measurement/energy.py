"""Energy of one frame: an estimate from counts and a table of energy per operation and per byte."""

from __future__ import annotations

from deltafine.document.energy import HOROWITZ, EnergyTable
from deltafine.measurement.accumulates import Accumulates
from deltafine.measurement.density import Density
from deltafine.measurement.effective_macs import EffectiveMacs
from deltafine.measurement.metric import Beside, Derived, Result
from deltafine.measurement.overhead import Overhead, steps

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


class Energy(Derived):
    """Of a dense and of a delta inference, from the effective operations and the overhead."""

    name = "energy"

    def result(self, beside: Beside) -> Result:
        macs, accumulates = beside.metric(EffectiveMacs), beside.metric(Accumulates)
        density = beside.metric(Density)
        spent = beside.metric(Overhead).spent(density)
        places = self.subject.probe.layers
        values = [(place.elements + place.output_elements) * steps(place) for place in places]
        computed = sum(share * of_place for of_place, share in zip(values, density.compared(), strict=True))
        without_products = accumulates.delta_steady(macs)
        return Result(
            operations={
                "energy_dense": dense_energy(macs.dense_total, accumulates.dense_steady(macs), sum(values)),
                "energy_delta": delta_energy(
                    macs.delta_steady, without_products, computed, spent.comparisons, spent.moves
                ),
            }
        )
