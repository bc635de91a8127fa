"""Each of several outputs by itself, so that one is seen which a good mean hides."""

from __future__ import annotations

import numpy as np

from deltafine.document.figures import OutputFigures
from deltafine.measurement.accuracy import classes_of
from deltafine.measurement.label_error import LabelError
from deltafine.measurement.metric import Beside, Metric, Result, Shown, Subject
from deltafine.measurement.original_error import OriginalError
from deltafine.measurement.output import are_probabilities
from deltafine.measurement.parts import split
from deltafine.measurement.records import Record


class ByOutput(Metric):
    """Of models with several outputs: the error of each to the original, where that is measured too, and of those that
    are probabilities of classes the fidelity as well. Of outputs with labels the error to these, and the accuracy where
    they are classes."""

    name = "by-output"

    def begin(self, subject: Subject) -> None:
        self._output, self._parts = subject.output, subject.output.parts
        self._right = np.zeros(len(self._parts), np.int64)
        self._labelled = np.zeros(len(self._parts), np.int64)
        self._same = np.zeros(len(self._parts), np.int64)
        self._of = np.zeros(len(self._parts), np.int64)
        self._classes = np.array([part.shape[-1] > 1 for part in self._parts], bool)

    def update(self, shown: Shown) -> None:
        answers = shown.answers
        if self._output.truth is not None:
            for _, predictions, labels in answers.labelled():
                self._judge(predictions[labels >= 0], self._output.truth[labels[labels >= 0]])
        if not self._parts or answers.original is None:
            return
        pairs = zip(split(answers.predictions, self._parts), split(answers.original, self._parts), strict=True)
        for place, (ours, theirs) in enumerate(pairs):
            self._classes[place] = self._classes[place] and are_probabilities(theirs)
            if self._classes[place]:
                same = classes_of(ours) == classes_of(theirs)
                self._same[place] += int(same.sum())
                self._of[place] += same.size

    def _judge(self, predictions: np.ndarray, truth: np.ndarray) -> None:
        """Count predictions (frames, values) of the class that the truth (frames, parts) says."""
        for place, (part, ours) in enumerate(zip(self._parts, split(predictions, self._parts), strict=True)):
            if part.labels is not None and part.labels.classes:
                known = ~np.isnan(truth[:, place])
                self._right[place] += int((classes_of(ours[known]) == truth[known, place]).sum())
                self._labelled[place] += int(known.sum())

    def record(self) -> Record:
        labelled = {"right": self._right, "labelled": self._labelled}
        return {"same": self._same, "of": self._of, "classes": self._classes, **labelled}

    def add(self, record: Record) -> None:
        self._same = self._same + record["same"]
        self._of = self._of + record["of"]
        self._classes = self._classes & record["classes"]
        self._right, self._labelled = self._right + record["right"], self._labelled + record["labelled"]

    def result(self, beside: Beside) -> Result:
        errors, to_labels = beside.metric(OriginalError).by_part(), beside.metric(LabelError).by_part()
        if not any(error is not None for error in (*errors, *to_labels)):
            return Result()
        same, labelled = (self._same, self._of, self._classes), (self._right, self._labelled)
        rows = zip(self._parts, errors, to_labels, *same, *labelled, strict=True)
        return Result(
            {
                "outputs": [
                    OutputFigures(
                        name=part.name,
                        shape=list(part.shape),
                        weight=part.weight,
                        relative_error=error,
                        fidelity=int(alike) / int(of) if is_classes and of else None,
                        label_error=to_label,
                        accuracy=int(right) / int(known) if known else None,
                    )
                    for part, error, to_label, alike, of, is_classes, right, known in rows
                ]
            }
        )
