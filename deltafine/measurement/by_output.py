"""Each of several outputs by itself, so that one is seen which a good mean hides."""

from __future__ import annotations

import numpy as np

from deltafine.document.figures import OutputFigures
from deltafine.measurement.accuracy import classes_of
from deltafine.measurement.metric import Beside, Metric, Result, Shown, Subject
from deltafine.measurement.original_error import OriginalError
from deltafine.measurement.output import are_probabilities
from deltafine.measurement.parts import split
from deltafine.measurement.records import Record


class ByOutput(Metric):
    """Of models with several outputs, where the original is measured too: the error of each, and of those that are
    probabilities of classes the fidelity as well."""

    name = "by-output"

    def begin(self, subject: Subject) -> None:
        self._parts = subject.output.parts
        self._same = np.zeros(len(self._parts), np.int64)
        self._of = np.zeros(len(self._parts), np.int64)
        self._classes = np.array([part.shape[-1] > 1 for part in self._parts], bool)

    def update(self, shown: Shown) -> None:
        answers = shown.answers
        if not self._parts or answers.original is None:
            return
        pairs = zip(split(answers.predictions, self._parts), split(answers.original, self._parts), strict=True)
        for place, (ours, theirs) in enumerate(pairs):
            self._classes[place] = self._classes[place] and are_probabilities(theirs)
            if self._classes[place]:
                same = classes_of(ours) == classes_of(theirs)
                self._same[place] += int(same.sum())
                self._of[place] += same.size

    def record(self) -> Record:
        return {"same": self._same, "of": self._of, "classes": self._classes}

    def add(self, record: Record) -> None:
        self._same = self._same + record["same"]
        self._of = self._of + record["of"]
        self._classes = self._classes & record["classes"]

    def result(self, beside: Beside) -> Result:
        errors = beside.metric(OriginalError).by_part()
        if not self._parts or not any(error is not None for error in errors):
            return Result()
        rows = zip(self._parts, errors, self._same, self._of, self._classes, strict=True)
        return Result(
            {
                "outputs": [
                    OutputFigures(
                        name=part.name,
                        shape=list(part.shape),
                        weight=part.weight,
                        relative_error=error,
                        fidelity=int(same) / int(of) if is_classes and of else None,
                    )
                    for part, error, same, of, is_classes in rows
                ]
            }
        )
