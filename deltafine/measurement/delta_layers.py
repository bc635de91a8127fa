"""What each delta layer does: its steps, how stale its output is, and channels that never or always fire."""

from __future__ import annotations

import numpy as np

from deltafine.measurement.density import Density
from deltafine.measurement.figures import DeltaFigures
from deltafine.measurement.probe import Piece, Probe
from deltafine.measurement.state import BYTES_PER_VALUE


class DeltaLayers:
    """Figures of all delta layers of a probe's model."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._density = Density(probe.deltas, offset=len(probe.layers))
        self._staleness = np.zeros(len(probe.deltas))
        self._channels: list[np.ndarray | int] = [0] * len(probe.deltas)

    def update(self, piece: Piece) -> None:
        self._density.update(piece)
        for index, counts in enumerate(piece.counts[len(self._probe.layers) :]):
            assert counts.staleness is not None
            assert counts.channel_changed is not None
            self._staleness[index] += counts.staleness
            self._channels[index] = self._channels[index] + counts.channel_changed

    def result(self) -> list[DeltaFigures]:
        density = self._density
        figures = []
        for index, (place, layer) in enumerate(zip(self._probe.deltas, self._probe.delta_layers, strict=True)):
            steps = np.atleast_1d(np.asarray(layer.step, np.float64))
            fired = np.asarray(self._channels[index])
            always = place.positions * density.steady_steps[index]
            figures.append(
                DeltaFigures(
                    name=place.name,
                    rule=layer.rule,
                    unit=layer.unit,
                    step_minimum=float(steps.min()),
                    step_median=float(np.median(steps)),
                    step_maximum=float(steps.max()),
                    elements=place.elements,
                    activation_density=float(density.activation[index]),
                    delta_density=float(density.delta[index]),
                    pixel_density=float(density.pixel[index]),
                    staleness=float(self._staleness[index] / (place.elements * density.steps[index])),
                    silent_channels=float((fired == 0).mean()),
                    saturated_channels=float((fired == always).mean()),
                    state_bytes=place.elements * BYTES_PER_VALUE,
                )
            )
        return figures
