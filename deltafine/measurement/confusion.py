"""Which classes are answered right, and which are taken for which."""

from __future__ import annotations

from collections import Counter

import numpy as np

from deltafine.document.figures import ClassFigures, Confused
from deltafine.measurement.accuracy import classes_of
from deltafine.measurement.metric import Beside, Metric, Result, Shown, Subject
from deltafine.measurement.records import Record

MOST = 200
"""Pairs of classes that a report names."""


class Confusion(Metric):
    """Of answers that are classes and have labels, on streams."""

    name = "confusion"

    def begin(self, subject: Subject) -> None:
        self._judged = not (subject.output.numbers or subject.as_clips)
        self._counts: Counter[tuple[int, int]] = Counter()

    def update(self, shown: Shown) -> None:
        if not self._judged:
            return
        for _, predictions, labels in shown.answers.labelled():
            pairs = np.stack([labels, classes_of(predictions)], axis=1)[labels >= 0]
            self._count(*np.unique(pairs, axis=0, return_counts=True))

    def _count(self, pairs: np.ndarray, counts: np.ndarray) -> None:
        for (label, answer), count in zip(pairs.tolist(), counts.tolist(), strict=True):
            self._counts[label, answer] += count

    def record(self) -> Record:
        pairs = sorted(self._counts)
        return {
            "pairs": np.array(pairs, np.int64).reshape(-1, 2),
            "counts": np.array([self._counts[pair] for pair in pairs], np.int64),
        }

    def add(self, record: Record) -> None:
        self._count(record["pairs"], record["counts"])

    def result(self, beside: Beside) -> Result:
        labelled: Counter[int] = Counter()
        answered: Counter[int] = Counter()
        for (label, answer), count in self._counts.items():
            labelled[label] += count
            answered[answer] += count
        wrong = [(pair, count) for pair, count in self._counts.items() if pair[0] != pair[1]]
        wrong.sort(key=lambda one: (-one[1], one[0]))
        return Result(
            {
                "by_class": [
                    ClassFigures(
                        label=one, labelled=labelled[one], answered=answered[one], right=self._counts[one, one]
                    )
                    for one in sorted(labelled | answered)
                ],
                "confused": [
                    Confused(label=label, answer=answer, count=count) for (label, answer), count in wrong[:MOST]
                ],
            }
        )
