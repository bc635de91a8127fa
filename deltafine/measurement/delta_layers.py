"""What each delta layer does: its thresholds, how stale its output is, and channels that never or always fire."""

from __future__ import annotations

import math

import numpy as np

from deltafine.document.figures import DeltaFigures
from deltafine.measurement.bits import bits
from deltafine.measurement.density import Density
from deltafine.measurement.metric import Beside, Metric, Result, Shown, Subject
from deltafine.measurement.records import Record, inner_record, nested
from deltafine.measurement.state import BYTES_PER_VALUE

THRESHOLD_FLOOR = 1e-6
"""The smallest threshold that calibration sets. At that, every change is sent."""


class DeltaLayers(Metric):
    """Figures of all delta layers of a model."""

    name = "delta-layers"

    def begin(self, subject: Subject) -> None:
        self._probe = probe = subject.probe
        self._density = Density(at="deltas")
        self._density.begin(subject)
        self._staleness: list[list[np.ndarray]] = [[] for _ in probe.deltas]
        self._channels: list[np.ndarray | int] = [0] * len(probe.deltas)
        self._levels: list[tuple[float, float] | None] = [None] * len(probe.deltas)

    def update(self, shown: Shown) -> None:
        self._density.update(shown)
        piece = shown.piece
        for index, counts in enumerate(piece.counts[len(self._probe.layers) :]):
            assert counts.staleness is not None
            assert counts.channel_changed is not None
            self._staleness[index].append(counts.staleness.ravel())
            self._channels[index] = self._channels[index] + counts.channel_changed[piece.steady_at(counts)].sum(0)
            if counts.lowest_level is not None and counts.highest_level is not None:
                self._see_levels(index, counts.lowest_level, counts.highest_level)

    def _see_levels(self, index: int, low: float, high: float) -> None:
        lowest, highest = self._levels[index] or (np.inf, -np.inf)
        self._levels[index] = (float(np.minimum(lowest, low)), float(np.maximum(highest, high)))

    def record(self) -> Record:
        none = np.empty(0)
        staleness = {str(index): np.concatenate([none, *kept]) for index, kept in enumerate(self._staleness)}
        channels = {str(index): np.asarray(fired, np.int64) for index, fired in enumerate(self._channels)}
        levels = np.array([levels or (np.inf, -np.inf) for levels in self._levels]).reshape(-1, 2)
        found = {"density": self._density.record(), "channels": channels, "staleness": staleness}
        return nested({**found, "levels": {"extremes": levels}})

    def add(self, record: Record) -> None:
        self._density.add(inner_record(record, "density"))
        staleness, channels = inner_record(record, "staleness"), inner_record(record, "channels")
        for index, (low, high) in enumerate(inner_record(record, "levels")["extremes"].tolist()):
            self._staleness[index].append(staleness[str(index)])
            self._channels[index] = self._channels[index] + channels[str(index)]
            if low <= high or np.isnan(low):
                self._see_levels(index, low, high)

    def result(self, beside: Beside) -> Result:
        return Result(deltas=self._figures())

    def _figures(self) -> list[DeltaFigures]:
        density = self._density
        figures = []
        for index, (place, layer) in enumerate(zip(self._probe.deltas, self._probe.delta_layers, strict=True)):
            thresholds = np.atleast_1d(np.asarray(layer.threshold, np.float64))
            fired = np.asarray(self._channels[index])
            levels = self._levels[index]
            always = place.positions * density.steady_steps[index]
            figures.append(
                DeltaFigures(
                    name=place.name,
                    rule=layer.rule.name,
                    granularity=layer.granularity,
                    threshold_minimum=float(thresholds.min()),
                    threshold_median=float(np.median(thresholds)),
                    threshold_maximum=float(thresholds.max()),
                    elements=place.elements,
                    activation_density=float(density.activation[index]),
                    delta_density=float(density.delta[index]),
                    pixel_density=float(density.pixel[index]),
                    staleness=self._mean_staleness(index, place.elements * int(density.steps[index])),
                    silent_channels=float((fired == 0).mean()),
                    saturated_channels=float((fired == always).mean()),
                    state_bytes=place.elements * BYTES_PER_VALUE,
                    bits=bits(*levels) if levels else None,
                    thresholds_at_floor=float((thresholds <= THRESHOLD_FLOOR * (1 + 1e-6)).mean()),
                )
            )
        return figures

    def _mean_staleness(self, index: int, elements: int) -> float:
        """The sum is rounded once, so that it is the same in every order."""
        return math.fsum(np.concatenate(self._staleness[index]).tolist()) / elements
