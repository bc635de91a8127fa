"""Dense and effective MACs: per layer, in total, and frame by frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deltafine.measurement.probe import Piece, Place


class EffectiveMacs:
    """MACs that meet a changed (delta) or a non-zero (spatial) input, as exact 64-bit sums.

    Steady state leaves out the first frame of every clip or stream; "with first" counts it as dense.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self.dense = np.array([place.dense_macs for place in places], np.int64)
        self.delta = np.zeros(len(places), np.int64)
        self.spatial = np.zeros(len(places), np.int64)
        self.spatial_steady = 0
        self.frames = 0
        self.steady_frames = 0
        self._per_frame: list[np.ndarray] = []

    def update(self, piece: Piece) -> None:
        steady = piece.steady
        places = piece.counts[: len(self.dense)]
        self.frames += steady.size
        self.steady_frames += int(steady.sum())
        per_frame = np.zeros(steady.shape, np.int64)
        for index, counts in enumerate(places):
            self.delta[index] += counts.macs_delta[steady].sum()
            self.spatial[index] += counts.macs_spatial.sum()
            self.spatial_steady += int(counts.macs_spatial[steady].sum())
            per_frame += counts.macs_delta
        self._per_frame.append(per_frame[steady])

    @property
    def dense_total(self) -> int:
        """MACs of one frame."""
        return int(self.dense.sum())

    @property
    def delta_steady(self) -> float:
        """Mean per frame, first frames left out."""
        return int(self.delta.sum()) / self.steady_frames

    @property
    def delta_with_first(self) -> float:
        """Mean per frame, every first frame counted as dense."""
        firsts = self.frames - self.steady_frames
        return (int(self.delta.sum()) + firsts * self.dense_total) / self.frames

    def percentiles(self) -> tuple[float, float, int]:
        """(median, 95th percentile, worst) over the steady frames of effective delta MACs of one frame."""
        per_frame = np.concatenate(self._per_frame)
        p50, p95 = np.quantile(per_frame, [0.5, 0.95])
        return float(p50), float(p95), int(per_frame.max())
