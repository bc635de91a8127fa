"""Densities: which share of elements is non-zero, which share changes, which share of positions changes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deltafine.measurement.probe import Piece, Place


class Density:
    """Exact counts of non-zero and changed elements at some places of a model.

    Args:
        places: where the counts are taken.
        offset: index of the first of them among a piece's counts.
    """

    def __init__(self, places: Sequence[Place], offset: int = 0) -> None:
        self.elements = np.array([place.elements for place in places], np.int64)
        self.positions = np.array([place.positions for place in places], np.int64)
        self.nonzero = np.zeros(len(places), np.int64)
        self.changed = np.zeros(len(places), np.int64)
        self.changed_positions = np.zeros(len(places), np.int64)
        self.frames = 0
        self.steady_frames = 0
        self._offset = offset

    def update(self, piece: Piece) -> None:
        self.frames += piece.steady.size
        self.steady_frames += int(piece.steady.sum())
        for index, counts in enumerate(piece.counts[self._offset : self._offset + len(self.elements)]):
            self.nonzero[index] += counts.nonzero.sum()
            self.changed[index] += counts.changed[piece.steady].sum()
            self.changed_positions[index] += counts.changed_positions[piece.steady].sum()

    @property
    def activation(self) -> np.ndarray:
        """Non-zero elements / elements, per place, all frames."""
        return self.nonzero / (self.elements * self.frames)

    @property
    def delta(self) -> np.ndarray:
        """Changed elements / elements, per place, frames 2..T."""
        return self.changed / (self.elements * self.steady_frames)

    @property
    def pixel(self) -> np.ndarray:
        """Positions where any channel changed / positions, per place, frames 2..T."""
        return self.changed_positions / (self.positions * self.steady_frames)

    @property
    def activation_sparsity(self) -> float:
        """Zeros / elements of all places, summed before dividing."""
        return 1 - int(self.nonzero.sum()) / (int(self.elements.sum()) * self.frames)

    @property
    def delta_sparsity(self) -> float:
        """1 - changed / elements of all places, summed before dividing, frames 2..T."""
        return 1 - int(self.changed.sum()) / (int(self.elements.sum()) * self.steady_frames)
