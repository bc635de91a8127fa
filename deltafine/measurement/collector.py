"""Everything that is counted of one model while pieces of video go through it."""

from __future__ import annotations

import numpy as np

from deltafine.document.figures import LayerFigures, Operations
from deltafine.errors import DeltafineError
from deltafine.measurement import energy, overhead
from deltafine.measurement.accumulates import Accumulates
from deltafine.measurement.delta_layers import DeltaLayers
from deltafine.measurement.density import Density
from deltafine.measurement.effective_macs import EffectiveMacs
from deltafine.measurement.probe import Piece, Probe
from deltafine.measurement.records import Record, nested, part_of
from deltafine.measurement.state import state_bytes

_PARTS = ("macs", "accumulates", "density", "deltas")


class Collector:
    """Counts of one model over all the video that it is shown."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.macs = EffectiveMacs(probe.layers)
        self.accumulates = Accumulates(self.macs)
        self.density = Density(probe.layers)
        self.deltas = DeltaLayers(probe)

    def update(self, piece: Piece) -> None:
        self.macs.update(piece)
        self.accumulates.update(piece)
        self.density.update(piece)
        self.deltas.update(piece)

    def record(self) -> Record:
        """Everything counted, for :meth:`add` of another one."""
        return nested({name: getattr(self, name).record() for name in _PARTS})

    def add(self, record: Record) -> None:
        """Add what another one has counted of the same model."""
        for name in _PARTS:
            getattr(self, name).add(part_of(record, name))

    @property
    def frames(self) -> int:
        return self.macs.frames * (self.probe.window or 1)

    def operations(self) -> Operations:
        """Totals over all covered layers.

        Raises:
            DeltafineError: there is no covered layer, or no frame had one before it.
        """
        macs, density = self.macs, self.density
        if not macs.dense_total:
            raise DeltafineError(
                f"Model '{self.probe.model.name}' has no layer whose multiply-accumulates can be counted: "
                "measure one with convolutions or dense layers."
            )
        if not macs.measured:
            raise DeltafineError(
                "Changes cannot be measured, because no video or clip has a second frame: give longer ones."
            )
        dense, places, accumulates = macs.dense_total, self.probe.layers, self.accumulates
        comparisons = sum(map(overhead.comparisons, places))
        moves = sum(map(overhead.moves, places, self._changed))
        added = 2 * comparisons + moves
        values = sum((place.elements + place.output_elements) * overhead.steps(place) for place in places)
        p50, p95, worst = macs.percentiles()
        return Operations(
            dense_macs=dense,
            effective_macs_delta=macs.delta_steady,
            effective_macs_delta_with_first=macs.delta_with_first,
            effective_macs_spatial=macs.spatial_steady,
            effective_macs_spatial_with_first=int(macs.spatial.sum()) / macs.frames,
            mac_density=macs.delta_steady / dense,
            mac_density_with_first=macs.delta_with_first / dense,
            mac_density_spatial=macs.spatial_steady / dense,
            activation_sparsity=density.activation_sparsity,
            delta_sparsity=density.delta_sparsity,
            pixel_density=float(np.average(density.pixel, weights=macs.dense)),
            frame_macs_p50=p50,
            frame_macs_p95=p95,
            frame_macs_worst=worst,
            state_bytes=state_bytes(self.probe),
            accumulates_delta=accumulates.delta_steady,
            accumulates_delta_with_first=accumulates.delta_with_first,
            accumulates_spatial=accumulates.spatial_steady,
            accumulates_spatial_with_first=int(accumulates.spatial.sum()) / macs.frames,
            overhead_operations=added,
            overhead_operations_with_first=self._overhead_with_first(),
            density_with_overhead=(macs.delta_steady + added) / dense,
            energy_dense=energy.dense_energy(dense, accumulates.dense_steady, values),
            energy_delta=energy.delta_energy(macs.delta_steady, accumulates.delta_steady, values, comparisons, moves),
        )

    @property
    def _changed(self) -> list[float]:
        """Changed input elements per steady frame, of each layer."""
        return self.density.changed_per_step()

    def _overhead_with_first(self) -> float:
        """Overhead operations per frame; a first frame only stores its inputs."""
        total = 0.0
        for index, place in enumerate(self.probe.layers):
            steps, steady = int(self.density.steps[index]), int(self.density.steady_steps[index])
            often = overhead.steps(place)
            total += overhead.overhead_operations(place, self._changed[index]) * steady / often
            total += overhead.comparisons(place) * (steps - steady) / often
        return total / self.macs.frames

    def layers(self) -> list[LayerFigures]:
        macs, density = self.macs, self.density
        return [
            LayerFigures(
                name=place.name,
                kind=place.kind,
                dense_macs=place.dense_macs,
                effective_macs_delta=macs.delta_of(index),
                effective_macs_spatial=int(macs.spatial[index]) / macs.frames,
                activation_density=float(density.activation[index]),
                delta_density=float(density.delta[index]),
                pixel_density=float(density.pixel[index]),
                mac_density=macs.delta_of(index) / place.dense_macs,
                accumulates_delta=self.accumulates.delta_of(index),
                accumulates_spatial=int(self.accumulates.spatial[index]) / macs.frames,
                overhead_operations=overhead.overhead_operations(place, self._changed[index]),
                break_even_density=overhead.break_even_density(place),
            )
            for index, place in enumerate(self.probe.layers)
        ]
