"""Dense and effective MACs: per layer, in total, and frame by frame."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from deltafine.errors import DeltafineError
from deltafine.measurement.metric import Beside, Metric, Result, Shown, Subject
from deltafine.measurement.probe import Place
from deltafine.measurement.records import Record


def macs_of_steps(place: Place) -> np.ndarray:
    """(steps of a window,) dense MACs of each; (1,) where a step is a frame."""
    return np.array(place.step_macs or [place.dense_macs], np.int64)


class EffectiveMacs(Metric):
    """MACs that meet a changed (delta) or a non-zero (spatial) input, as exact 64-bit sums.

    Steady state leaves out the first step of every clip or stream; "with first" counts it as dense. A place that
    never had a step before it, because its input has no time axis any more, counts as dense.

    Attributes:
        frames: measured frames; of a network that takes clips, windows.
    """

    name = "effective-macs"

    def begin(self, subject: Subject) -> None:
        self._subject = subject
        places = subject.probe.layers
        self.dense = np.array([place.dense_macs for place in places], np.int64)
        self.delta = np.zeros(len(places), np.int64)
        self.spatial = np.zeros(len(places), np.int64)
        self.frames = 0
        self._of_steps = [macs_of_steps(place) for place in places]
        self._steady = np.zeros(len(places), np.int64)  # dense MACs of the steady steps
        self._spatial_steady = np.zeros(len(places), np.int64)
        self._per_frame: list[np.ndarray] = []
        self._per_first: list[np.ndarray] = []

    def update(self, shown: Shown) -> None:
        piece = shown.piece
        self.frames += piece.steady.size
        per_frame = np.zeros(piece.steady.shape, np.int64)
        for index, counts in enumerate(piece.counts[: len(self.dense)]):
            steady = piece.steady_at(counts)
            self._steady[index] += np.broadcast_to(self._of_steps[index], steady.shape)[steady].sum()
            self.delta[index] += counts.macs_delta[steady].sum()
            self.spatial[index] += counts.macs_spatial.sum()
            self._spatial_steady[index] += counts.macs_spatial[steady].sum()
            alone = self.dense[index] if steady.shape[1] == 1 else 0  # a first step, unless it is all there is, is free
            spent = np.where(steady, counts.macs_delta, alone)
            if spent.shape != per_frame.shape:
                spent = spent.sum(axis=1, keepdims=True)
            per_frame += spent
        self._per_frame.append(per_frame[piece.steady])
        self._per_first.append(per_frame[~piece.steady])

    def record(self) -> Record:
        none = np.empty(0, np.int64)
        return {
            "delta": self.delta,
            "spatial": self.spatial,
            "frames": np.asarray(self.frames),
            "steady": self._steady,
            "spatial_steady": self._spatial_steady,
            "per_frame": np.concatenate([none, *self._per_frame]),
            "per_first": np.concatenate([none, *self._per_first]),
        }

    def add(self, record: Record) -> None:
        self.delta += record["delta"]
        self.spatial += record["spatial"]
        self.frames += int(record["frames"])
        self._steady += record["steady"]
        self._spatial_steady += record["spatial_steady"]
        self._per_frame.append(record["per_frame"])
        self._per_first.append(record["per_first"])

    def result(self, beside: Beside) -> Result:
        """Raises DeltafineError: there is no covered layer, or no frame had one before it."""
        probe, dense = self._subject.probe, self.dense_total
        if not dense:
            raise DeltafineError(
                f"Model '{probe.model.name}' has no layer whose multiply-accumulates can be counted: "
                "measure one with convolutions or dense layers."
            )
        if not self.measured:
            raise DeltafineError(
                "Changes cannot be measured, because no video or clip has a second frame: give longer ones."
            )
        p50, p95, worst = self.percentiles()
        return Result(
            figures={"frames": self.frames * (probe.window or 1)},
            operations={
                "dense_macs": dense,
                "effective_macs_delta": self.delta_steady,
                "effective_macs_delta_with_first": self.delta_with_first,
                "effective_macs_spatial": self.spatial_steady,
                "effective_macs_spatial_with_first": int(self.spatial.sum()) / self.frames,
                "mac_density": self.delta_steady / dense,
                "mac_density_with_first": self.delta_with_first / dense,
                "mac_density_spatial": self.spatial_steady / dense,
                "frame_macs_p50": p50,
                "frame_macs_p95": p95,
                "frame_macs_worst": worst,
            },
            layers=[
                {
                    "name": place.name,
                    "kind": place.kind,
                    "dense_macs": place.dense_macs,
                    "effective_macs_delta": self.delta_of(index),
                    "effective_macs_spatial": int(self.spatial[index]) / self.frames,
                    "mac_density": self.delta_of(index) / place.dense_macs,
                }
                for index, place in enumerate(probe.layers)
            ],
        )

    @property
    def dense_total(self) -> int:
        """MACs of one frame."""
        return int(self.dense.sum())

    @property
    def measured(self) -> bool:
        """Whether any step had one before it."""
        return bool(self._steady.any())

    @property
    def delta_steady(self) -> float:
        """Mean per frame, first frames left out."""
        return float(sum(map(self.mean, range(len(self.dense)), self.delta.tolist()), Fraction()))

    def delta_of(self, index: int) -> float:
        """The same of one place."""
        return float(self.mean(index, int(self.delta[index])))

    @property
    def delta_with_first(self) -> float:
        """Mean per frame, every first frame counted as dense."""
        firsts = self.frames * self.dense_total - int(self._steady.sum())
        return (int(self.delta.sum()) + firsts) / self.frames

    @property
    def spatial_steady(self) -> float:
        """Mean per frame, first frames left out."""
        means = map(self.mean, range(len(self.dense)), self._spatial_steady.tolist(), self.spatial.tolist())
        return float(sum(means, Fraction()))

    def percentiles(self) -> tuple[float, float, int]:
        """(median, 95th percentile, worst) over the steady frames of effective delta MACs of one frame.

        Where no window follows another one, of the steps within the windows.
        """
        per_frame = np.concatenate(self._per_frame)
        if not len(per_frame):
            per_frame = np.concatenate(self._per_first)
        p50, p95 = np.quantile(per_frame, [0.5, 0.95])
        return float(p50), float(p95), int(per_frame.max())

    def mean(self, index: int, steady: int, of_all: int | None = None) -> Fraction:
        """Steady MACs of a place as MACs per frame, exactly."""
        dense = int(self.dense[index])
        if self._steady[index]:
            return Fraction(steady * dense, int(self._steady[index]))
        return Fraction(dense) if of_all is None else Fraction(of_all, self.frames)
