"""Fidelity: does the model still say, frame by frame, what the original says?"""

from __future__ import annotations

import numpy as np

from deltafine.measurement.accuracy import classes_of
from deltafine.measurement.records import Record, add_counts, count_record

_COUNTS = ("_same", "_frames")


class Fidelity:
    """Share of frames on which two classifiers predict the same class; needs no labels."""

    def __init__(self) -> None:
        self._same = 0
        self._frames = 0

    def update(self, predictions: np.ndarray, original: np.ndarray) -> None:
        """Add predictions (..., classes) of the same frames by both models."""
        same = classes_of(predictions) == classes_of(original)
        self._same += int(same.sum())
        self._frames += same.size

    def record(self) -> Record:
        """Everything counted, for :meth:`add` of another one."""
        return count_record(self, _COUNTS)

    def add(self, record: Record) -> None:
        """Add what another one has counted."""
        add_counts(self, _COUNTS, record)

    def result(self) -> float | None:
        """The share; None if nothing was compared."""
        return self._same / self._frames if self._frames else None
