"""Accumulates (ACs): effective operations that need no multiplication, because the input is -1, 0 or 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deltafine.measurement.probe import Piece, Place


class Accumulates:
    """Which of the effective operations are ACs, as exact 64-bit sums.

    As in NeuroBench, a layer either multiplies or adds: its operations are ACs if all its inputs are -1, 0 or 1. Here
    that is decided frame by frame, so that it does not depend on the batch size. The change between two such
    frames needs no multiplication either.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self.delta = np.zeros(len(places), np.int64)  # steady frames
        self.spatial = np.zeros(len(places), np.int64)  # all frames
        self.spatial_steady = 0
        self.dense_first = 0
        self.dense_steady = 0
        self._dense = [place.dense_macs for place in places]

    def update(self, piece: Piece) -> None:
        steady = piece.steady
        for index, counts in enumerate(piece.counts[: len(self._dense)]):
            self.delta[index] += counts.macs_delta[steady & counts.units_twice].sum()
            self.spatial[index] += counts.macs_spatial[counts.units].sum()
            self.spatial_steady += int(counts.macs_spatial[steady & counts.units].sum())
            self.dense_first += self._dense[index] * int((counts.units & ~steady).sum())
            self.dense_steady += self._dense[index] * int((counts.units & steady).sum())
