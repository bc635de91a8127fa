"""Everything that is counted of one model while pieces of video go through it."""

from __future__ import annotations

import numpy as np

from deltafine.errors import DeltafineError
from deltafine.measurement.delta_layers import DeltaLayers
from deltafine.measurement.density import Density
from deltafine.measurement.effective_macs import EffectiveMacs
from deltafine.measurement.figures import LayerFigures, Operations
from deltafine.measurement.probe import Piece, Probe
from deltafine.measurement.state import state_bytes


class Collector:
    """Counts of one model over all the video that it is shown."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.macs = EffectiveMacs(probe.layers)
        self.density = Density(probe.layers)
        self.deltas = DeltaLayers(probe)

    def update(self, piece: Piece) -> None:
        self.macs.update(piece)
        self.density.update(piece)
        self.deltas.update(piece)

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
        dense = macs.dense_total
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
        )

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
            )
            for index, place in enumerate(self.probe.layers)
        ]
