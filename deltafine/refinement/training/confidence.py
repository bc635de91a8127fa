"""What an answer that changes is expected to cost, by how sure the original was of its own."""

from __future__ import annotations

import numpy as np

from deltafine.document.figures import NamedFigure
from deltafine.measurement.metric import Beside, Metric, Result, Shown, Subject
from deltafine.measurement.output import Output
from deltafine.measurement.records import Record

LABELLED, ALL = 0, 1


class Confidence(Metric):
    """Of classes, where the original is measured too; over frames (or windows) with a label, or all if none has one.

    Mean over these frames of the probability that the original gives to the answer of the model that is measured, less
    that of its own answer: 0 where both answer alike, and less the surer the original was of another class. What the
    labels are is not looked at, so that a few recordings tell it as well as many would tell a difference in accuracy.
    Of maps, which have no labels, the mean is over all positions.
    """

    name = "confidence"

    def begin(self, subject: Subject) -> None:
        self._output = subject.output
        self._sums: dict[tuple[int, int], tuple[float, int]] = {}  # and how many answers, by work item and which

    def update(self, shown: Shown) -> None:
        original = shown.answers.of_original()
        if self._output.numbers or original is None:
            return
        answers, labels = shown.answers.predictions, shown.answers.labels
        before, after = probabilities(original.predictions, self._output), probabilities(answers, self._output)
        chosen = np.take_along_axis(before, after.argmax(-1)[..., None], axis=-1)[..., 0]
        surer = chosen - before.max(-1)
        self._count(shown.answers.work_item, LABELLED, surer[labels >= 0] if surer.shape == labels.shape else surer[:0])
        self._count(shown.answers.work_item, ALL, surer)

    def record(self) -> Record:
        return {
            "items": np.array(list(self._sums), np.int64).reshape(-1, 2),
            "sums": np.array([total for total, _ in self._sums.values()], np.float64),
            "answers": np.array([count for _, count in self._sums.values()], np.int64),
        }

    def add(self, record: Record) -> None:
        for (item, which), total, count in zip(record["items"], record["sums"], record["answers"], strict=True):
            before, counted = self._sums.get((int(item), int(which)), (0.0, 0))
            self._sums[int(item), int(which)] = before + total, counted + int(count)

    def _count(self, item: int, which: int, surer: np.ndarray) -> None:
        before, counted = self._sums.get((item, which), (0.0, 0))
        self._sums[item, which] = before + float(surer.sum()), counted + surer.size

    def result(self, beside: Beside) -> Result:
        value = self._mean(LABELLED)
        value = self._mean(ALL) if value is None else value
        meaning = "probability that the original gives to the answers, less that of its own, mean over frames"
        return Result(named=[NamedFigure(name=self.name, value=value, unit="number", meaning=meaning, better="higher")])

    def _mean(self, which: int) -> float | None:
        found = [self._sums[key] for key in sorted(self._sums) if key[1] == which]
        answers = sum(count for _, count in found)
        return sum(total for total, _ in found) / answers if answers else None


def probabilities(predictions: np.ndarray, output: Output) -> np.ndarray:
    """Of all classes (frames, classes), float64; a single score becomes two classes."""
    scores = np.asarray(output.scores(predictions), np.float64)
    if scores.shape[-1] == 1:
        return np.concatenate([1 - scores, scores], axis=-1)
    if output.probabilities:
        return scores
    scaled = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(scaled / scaled.sum(-1, keepdims=True))
