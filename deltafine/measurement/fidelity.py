"""Fidelity: does the model still say, frame by frame, what the original says?"""

from __future__ import annotations

import numpy as np

from deltafine.measurement.accuracy import classes_of
from deltafine.measurement.metric import Beside, Metric, Result, Shown, Subject
from deltafine.measurement.records import Record


class Fidelity(Metric):
    """Share of frames on which two classifiers predict the same class; needs no labels."""

    name = "fidelity"

    def __init__(self) -> None:
        self._same = self._frames = 0
        self._judged = True

    def begin(self, subject: Subject) -> None:
        self._same = self._frames = 0
        self._judged = not subject.output.numbers

    def update(self, shown: Shown) -> None:
        if self._judged and shown.answers.original is not None:
            self.compare(shown.answers.predictions, shown.answers.original)

    def compare(self, predictions: np.ndarray, original: np.ndarray) -> None:
        """Add predictions (..., classes) of the same frames by both models."""
        same = classes_of(predictions) == classes_of(original)
        self._same += int(same.sum())
        self._frames += same.size

    def record(self) -> Record:
        return {"same": np.asarray(self._same), "frames": np.asarray(self._frames)}

    def add(self, record: Record) -> None:
        self._same += int(record["same"])
        self._frames += int(record["frames"])

    def result(self, beside: Beside) -> Result:
        return Result({"fidelity": self.value})

    @property
    def value(self) -> float | None:
        """The share; None if nothing was compared."""
        return self._same / self._frames if self._frames else None
