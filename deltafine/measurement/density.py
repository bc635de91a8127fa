"""Densities: which share of elements is non-zero, which share changes, which share of positions changes."""

from __future__ import annotations

from typing import Literal

import numpy as np

from deltafine.measurement.effective_macs import EffectiveMacs
from deltafine.measurement.metric import Beside, Metric, Result, Shown, Subject
from deltafine.measurement.records import Record


class Density(Metric):
    """Exact counts of non-zero and changed elements at some places of a model.

    Args:
        at: the inputs of ``"layers"`` with MACs, or the outputs of ``"deltas"``.
    """

    name = "density"

    def __init__(self, at: Literal["layers", "deltas"] = "layers") -> None:
        self._at = at

    def begin(self, subject: Subject) -> None:
        probe = subject.probe
        places, self._first = (probe.layers, 0) if self._at == "layers" else (probe.deltas, len(probe.layers))
        self.elements = np.array([place.elements for place in places], np.int64)
        self.positions = np.array([place.positions for place in places], np.int64)
        self.nonzero = np.zeros(len(places), np.int64)
        self.changed = np.zeros(len(places), np.int64)
        self.changed_positions = np.zeros(len(places), np.int64)
        self.steps = np.zeros(len(places), np.int64)
        self.steady_steps = np.zeros(len(places), np.int64)
        self.compared_steps = np.zeros(len(places), np.int64)

    def update(self, shown: Shown) -> None:
        piece = shown.piece
        for index, counts in enumerate(piece.counts[self._first : self._first + len(self.elements)]):
            steady = piece.steady_at(counts)
            self.steps[index] += steady.size
            self.steady_steps[index] += steady.sum()
            self.compared_steps[index] += piece.compared_at(counts).sum()
            self.nonzero[index] += counts.nonzero.sum()
            self.changed[index] += counts.changed[steady].sum()
            self.changed_positions[index] += counts.changed_positions[steady].sum()

    def record(self) -> Record:
        return {
            "nonzero": self.nonzero,
            "changed": self.changed,
            "changed_positions": self.changed_positions,
            "steps": self.steps,
            "steady_steps": self.steady_steps,
            "compared_steps": self.compared_steps,
        }

    def add(self, record: Record) -> None:
        self.nonzero += record["nonzero"]
        self.changed += record["changed"]
        self.changed_positions += record["changed_positions"]
        self.steps += record["steps"]
        self.steady_steps += record["steady_steps"]
        self.compared_steps += record["compared_steps"]

    def result(self, beside: Beside) -> Result:
        return Result(
            operations={
                "activation_sparsity": self.activation_sparsity,
                "delta_sparsity": self.delta_sparsity,
                "pixel_density": float(np.average(self.pixel, weights=beside.metric(EffectiveMacs).dense)),
            },
            layers=[
                {"activation_density": float(nonzero), "delta_density": float(changed), "pixel_density": float(pixel)}
                for nonzero, changed, pixel in zip(self.activation, self.delta, self.pixel, strict=True)
            ],
        )

    @property
    def activation(self) -> np.ndarray:
        """Non-zero elements / elements, per place, all frames."""
        return self.nonzero / (self.elements * self.steps)

    @property
    def delta(self) -> np.ndarray:
        """Changed elements / elements, per place, frames 2..T; 1 for a place that never had a step before it."""
        changed, elements = self._of_steady(self.changed, self.elements)
        return changed / elements

    @property
    def pixel(self) -> np.ndarray:
        """Positions where any channel changed / positions, per place, frames 2..T; likewise."""
        changed, positions = self._of_steady(self.changed_positions, self.positions)
        return changed / positions

    def changed_per_step(self) -> list[float]:
        """Changed elements, per place, mean over the steps with one before them."""
        changed, elements = self._of_steady(self.changed, self.elements)
        sizes = self.elements.tolist()
        return [c * size / of for c, of, size in zip(changed.tolist(), elements.tolist(), sizes, strict=True)]

    def compared(self) -> list[float]:
        """Of the steps with one before them, the share that the model ran on, per place."""
        steady = np.maximum(self.steady_steps, 1)
        return np.where(self.steady_steps > 0, self.compared_steps / steady, 1.0).tolist()

    @property
    def activation_sparsity(self) -> float:
        """Zeros / elements of all places, summed before dividing."""
        return 1 - int(self.nonzero.sum()) / int((self.elements * self.steps).sum())

    @property
    def delta_sparsity(self) -> float:
        """1 - changed / elements of all places, summed before dividing, frames 2..T."""
        changed, elements = self._of_steady(self.changed, self.elements)
        return 1 - int(changed.sum()) / int(elements.sum())

    def _of_steady(self, changed: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(changed, all) of the steps with one before them; without any, everything counts as changed."""
        steady = self.steady_steps > 0
        everything = size * np.where(steady, self.steady_steps, self.steps)
        return np.where(steady, changed, everything), everything
