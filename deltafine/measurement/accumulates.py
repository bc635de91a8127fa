"""Accumulates (ACs): effective operations that need no multiplication, because the input is -1, 0 or 1."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from deltafine.measurement.effective_macs import EffectiveMacs
from deltafine.measurement.probe import Piece
from deltafine.measurement.records import Record, add_counts, count_record

_COUNTS = ("delta", "spatial", "dense", "_spatial_steady", "_dense_steady")


class Accumulates:
    """Which of the effective operations are ACs, as exact 64-bit sums.

    As in NeuroBench, a layer either multiplies or adds: its operations are ACs if all its inputs are -1, 0 or 1. Here
    that is decided frame by frame, so that it does not depend on the batch size. The change between two such
    frames needs no multiplication either.
    """

    def __init__(self, macs: EffectiveMacs) -> None:
        self._macs = macs
        places = len(macs.dense)
        self.delta = np.zeros(places, np.int64)  # steady frames
        self.spatial = np.zeros(places, np.int64)  # all frames
        self.dense = np.zeros(places, np.int64)  # all frames, all of the layer's operations
        self._spatial_steady = np.zeros(places, np.int64)
        self._dense_steady = np.zeros(places, np.int64)

    def update(self, piece: Piece) -> None:
        for index, counts in enumerate(piece.counts[: len(self.delta)]):
            steady = piece.steady_at(counts)
            dense = counts.units * self._macs.step_macs[index]
            self.delta[index] += counts.macs_delta[steady & counts.units_twice].sum()
            self.spatial[index] += counts.macs_spatial[counts.units].sum()
            self.dense[index] += dense.sum()
            self._spatial_steady[index] += counts.macs_spatial[steady & counts.units].sum()
            self._dense_steady[index] += dense[steady].sum()

    def record(self) -> Record:
        """Everything counted, for :meth:`add` of another one."""
        return count_record(self, _COUNTS)

    def add(self, record: Record) -> None:
        """Add what another one has counted at the same places."""
        add_counts(self, _COUNTS, record)

    @property
    def delta_steady(self) -> float:
        """Mean per frame, first frames left out."""
        return self._mean(self.delta, self.dense)

    def delta_of(self, index: int) -> float:
        """The same of one place."""
        return float(self._macs.mean(index, int(self.delta[index]), int(self.dense[index])))

    @property
    def delta_with_first(self) -> float:
        """Mean per frame, every first frame counted as dense."""
        firsts = int(self.dense.sum()) - int(self._dense_steady.sum())
        return (int(self.delta.sum()) + firsts) / self._macs.frames

    @property
    def spatial_steady(self) -> float:
        """Mean per frame, first frames left out."""
        return self._mean(self._spatial_steady, self.spatial)

    @property
    def dense_steady(self) -> float:
        """Mean per frame of all operations that need no multiplication, first frames left out."""
        return self._mean(self._dense_steady, self.dense)

    def _mean(self, steady: np.ndarray, of_all: np.ndarray) -> float:
        means = map(self._macs.mean, range(len(steady)), steady.tolist(), of_all.tolist())
        return float(sum(means, Fraction()))
