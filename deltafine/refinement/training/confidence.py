"""What an answer that changes is expected to cost, by how sure the original was of its own."""

from __future__ import annotations

import numpy as np

from deltafine.document.figures import NamedFigure
from deltafine.measurement.metric import Beside, Metric, Result, Shown, Subject
from deltafine.measurement.output import Output
from deltafine.measurement.records import Record


class Confidence(Metric):
    """Of classes, where the original is measured too; over frames (or windows) with a label.

    Mean over all frames of the probability that the original gives to the answer of the model that is measured, less
    that of its own answer: 0 where both answer alike, and less the surer the original was of another class. Labels
    are not looked at, so that a few recordings tell it as well as many would tell a difference in accuracy.
    """

    name = "confidence"

    def begin(self, subject: Subject) -> None:
        self._output = subject.output
        self._sums: dict[int, tuple[float, int]] = {}

    def update(self, shown: Shown) -> None:
        original = shown.answers.of_original()
        if self._output.numbers or original is None:
            return
        rows = zip(shown.answers.labelled(), original.labelled(), strict=True)
        for (_, predictions, labels), (_, of_original, _) in rows:
            known = labels >= 0
            if predictions.ndim != 2:  # a map of classes has no label of its own
                return
            before = probabilities(of_original[known], self._output)
            answers = probabilities(predictions[known], self._output).argmax(-1)
            chosen = np.take_along_axis(before, answers[:, None], axis=-1)[:, 0]
            self._count(shown.answers.work_item, float((chosen - before.max(-1)).sum()), int(known.sum()))

    def record(self) -> Record:
        sums = list(self._sums.values())
        return {
            "items": np.array(list(self._sums), np.int64),
            "sums": np.array([total for total, _ in sums], np.float64),
            "frames": np.array([frames for _, frames in sums], np.int64),
        }

    def add(self, record: Record) -> None:
        for item, total, frames in zip(record["items"], record["sums"], record["frames"], strict=True):
            self._count(int(item), float(total), int(frames))

    def _count(self, item: int, total: float, frames: int) -> None:
        before, count = self._sums.get(item, (0.0, 0))
        self._sums[item] = before + total, count + frames

    def result(self, beside: Beside) -> Result:
        totals = [self._sums[item] for item in sorted(self._sums)]
        frames = sum(count for _, count in totals)
        value = sum(total for total, _ in totals) / frames if frames else None
        meaning = "probability that the original gives to the answers, less that of its own, mean over frames"
        return Result(named=[NamedFigure(name=self.name, value=value, unit="number", meaning=meaning, better="higher")])


def probabilities(predictions: np.ndarray, output: Output) -> np.ndarray:
    """Of all classes (frames, classes), float64; a single score becomes two classes."""
    scores = np.asarray(output.scores(predictions), np.float64)
    if scores.shape[-1] == 1:
        return np.concatenate([1 - scores, scores], axis=-1)
    if output.probabilities:
        return scores
    scaled = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(scaled / scaled.sum(-1, keepdims=True))
