"""Accumulates (ACs): effective operations that need no multiplication, because the input is -1, 0 or 1."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from deltafine.measurement.effective_macs import EffectiveMacs, macs_of_steps
from deltafine.measurement.metric import Beside, Metric, Result, Shown, Subject
from deltafine.measurement.records import Record


class Accumulates(Metric):
    """Which of the effective operations are ACs, as exact 64-bit sums.

    As in NeuroBench, a layer either multiplies or adds: its operations are ACs if all its inputs are -1, 0 or 1. Here
    that is decided frame by frame, so that it does not depend on the batch size. The change between two such
    frames needs no multiplication either.
    """

    name = "accumulates"

    def begin(self, subject: Subject) -> None:
        self._of_steps = [macs_of_steps(place) for place in subject.probe.layers]
        places = len(self._of_steps)
        self.delta = np.zeros(places, np.int64)  # steady frames
        self.spatial = np.zeros(places, np.int64)  # all frames
        self.dense = np.zeros(places, np.int64)  # all frames, all of the layer's operations
        self._spatial_steady = np.zeros(places, np.int64)
        self._dense_steady = np.zeros(places, np.int64)

    def update(self, shown: Shown) -> None:
        piece = shown.piece
        for index, counts in enumerate(piece.counts[: len(self.delta)]):
            steady = piece.steady_at(counts)
            dense = counts.ternary * self._of_steps[index]
            self.delta[index] += counts.macs_delta[steady & counts.ternary_twice].sum()
            self.spatial[index] += counts.macs_spatial[counts.ternary].sum()
            self.dense[index] += dense.sum()
            self._spatial_steady[index] += counts.macs_spatial[steady & counts.ternary].sum()
            self._dense_steady[index] += dense[steady].sum()

    def record(self) -> Record:
        return {
            "delta": self.delta,
            "spatial": self.spatial,
            "dense": self.dense,
            "spatial_steady": self._spatial_steady,
            "dense_steady": self._dense_steady,
        }

    def add(self, record: Record) -> None:
        self.delta += record["delta"]
        self.spatial += record["spatial"]
        self.dense += record["dense"]
        self._spatial_steady += record["spatial_steady"]
        self._dense_steady += record["dense_steady"]

    def result(self, beside: Beside) -> Result:
        macs = beside.metric(EffectiveMacs)
        return Result(
            operations={
                "accumulates_delta": self.delta_steady(macs),
                "accumulates_delta_with_first": self._delta_with_first(macs),
                "accumulates_spatial": _mean(macs, self._spatial_steady, self.spatial),
                "accumulates_spatial_with_first": int(self.spatial.sum()) / macs.frames,
            },
            layers=[
                {
                    "accumulates_delta": float(macs.mean(index, int(self.delta[index]), int(self.dense[index]))),
                    "accumulates_spatial": int(self.spatial[index]) / macs.frames,
                }
                for index in range(len(self.delta))
            ],
        )

    def delta_steady(self, macs: EffectiveMacs) -> float:
        """Mean per frame of the effective operations that need no multiplication, first frames left out."""
        return _mean(macs, self.delta, self.dense)

    def dense_steady(self, macs: EffectiveMacs) -> float:
        """Mean per frame of all operations that need no multiplication, first frames left out."""
        return _mean(macs, self._dense_steady, self.dense)

    def _delta_with_first(self, macs: EffectiveMacs) -> float:
        """Mean per frame, every first frame counted as dense."""
        firsts = int(self.dense.sum()) - int(self._dense_steady.sum())
        return (int(self.delta.sum()) + firsts) / macs.frames


def _mean(macs: EffectiveMacs, steady: np.ndarray, of_all: np.ndarray) -> float:
    means = map(macs.mean, range(len(steady)), steady.tolist(), of_all.tolist())
    return float(sum(means, Fraction()))
