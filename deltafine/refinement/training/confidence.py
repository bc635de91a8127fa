"""What an answer that changes is expected to cost, by how sure the original was of its own."""

from __future__ import annotations

import numpy as np

from deltafine.document.figures import NamedFigure
from deltafine.measurement.metric import Beside, Metric, Result, Shown, Subject
from deltafine.measurement.output import Output
from deltafine.measurement.records import Record

LABELLED, ALL = 0, 1
SPREAD = 0.4
"""How much farther, or less far, answers move on other recordings than on these: about the standard deviation of the
logarithm (a logistic distribution of scale SPREAD / 1.702), where the weights are the original's. With it, what changed
answers cost on the validation videos of two data sets tells that on their streams."""
SPREAD_OF_TRAINED = 0.6
"""The same of weights that were trained on videos like these."""
COST, EXPECTED_COST, EXPECTED_CHANGES = range(3)


class Confidence(Metric):
    """Of classes, where the original is measured too; over frames (or windows) with a label, or all if none has one.

    ``confidence`` is the mean over these frames of the probability that the original gives to the answer of the model
    that is measured, less that of its own answer: 0 where both answer alike, and less the surer the original was of
    another class. What the labels are is not looked at, so that a few recordings tell it as well as many would tell a
    difference in accuracy. Of maps, which have no labels, the mean is over all positions.

    ``expected_confidence`` is this mean on other recordings. On few videos no answer may change although many came near
    to it. So each answer counts by the chance that it changes where the model's logits move farther or less far than
    here, by a factor that varies with ``SPREAD``. ``expected_changes`` is the share of answers that change, by
    ``SPREAD_OF_TRAINED``: what there would be to expect if it were not known how many change here.
    """

    name = "confidence"
    names = (name, "expected_confidence", "expected_changes")

    def begin(self, subject: Subject) -> None:
        self._output = subject.output
        # By work item, and by whether all answers count: how many there are, and the sums of the three figures.
        self._sums: dict[tuple[int, int], np.ndarray] = {}

    def update(self, shown: Shown) -> None:
        original = shown.answers.of_original()
        if self._output.numbers or original is None:
            return
        before = probabilities(original.predictions, self._output)
        figures = _figures(before, probabilities(shown.answers.predictions, self._output))
        labels, answered = shown.answers.labels, figures.shape[:-1]
        known = figures[labels >= 0] if answered == labels.shape else figures[:0].reshape(-1, figures.shape[-1])
        for which, rows in ((LABELLED, known), (ALL, figures.reshape(-1, figures.shape[-1]))):
            self._count(shown.answers.work_item, which, np.array([len(rows), *rows.sum(0)]))

    def record(self) -> Record:
        return {
            "items": np.array(list(self._sums), np.int64).reshape(-1, 2),
            "sums": np.array(list(self._sums.values()), np.float64).reshape(-1, 4),
        }

    def add(self, record: Record) -> None:
        for (item, which), sums in zip(record["items"], record["sums"], strict=True):
            self._count(int(item), int(which), sums)

    def _count(self, item: int, which: int, sums: np.ndarray) -> None:
        self._sums[item, which] = self._sums.get((item, which), np.zeros(4)) + sums

    def result(self, beside: Beside) -> Result:
        means = self._means(LABELLED)
        means = self._means(ALL) if means is None else means
        said = (
            (COST, "probability that the original gives to the answers, less that of its own", "higher"),
            (EXPECTED_COST, "the same, as expected of other recordings", "higher"),
            (EXPECTED_CHANGES, "share of answers that change, by how near they came to it", "lower"),
        )
        return Result(
            named=[
                NamedFigure(
                    name=name,
                    value=None if means is None else float(means[place]),
                    unit="number",
                    meaning=f"{meaning}, mean over frames",
                    better="higher" if better == "higher" else "lower",
                )
                for name, (place, meaning, better) in zip(self.names, said, strict=True)
            ]
        )

    def _means(self, which: int) -> np.ndarray | None:
        found = [self._sums[key] for key in sorted(self._sums) if key[1] == which]
        total = np.sum(found, axis=0) if found else np.zeros(4)
        return total[1:] / total[0] if total[0] else None


def _figures(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Of each answer (..., 3): what its change costs, what is expected of other recordings, and how likely a change is.

    Args:
        before: probabilities of the original (..., classes).
        after: of the model that is measured.
    """
    tiny = np.finfo(np.float32).tiny
    was, now = (np.log(np.maximum(one, tiny)) for one in (before, after))
    own = before.argmax(-1)[..., None]
    ahead = np.take_along_axis(was, own, -1) - was  # of every class; what had to be lost for it to become the answer
    lost = ahead - (np.take_along_axis(now, own, -1) - now)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(lost > 0, lost / ahead, 0.0)
    np.put_along_axis(share, own, 0.0, -1)
    nearest = share.argmax(-1)[..., None]
    with np.errstate(divide="ignore", over="ignore"):
        chance, of_trained = (
            1 / (1 + np.take_along_axis(share, nearest, -1)[..., 0] ** (-1.702 / spread))
            for spread in (SPREAD, SPREAD_OF_TRAINED)
        )
    less = np.take_along_axis(before, nearest, -1) - np.take_along_axis(before, own, -1)
    answer = after.argmax(-1)[..., None]
    cost = (np.take_along_axis(before, answer, -1) - np.take_along_axis(before, own, -1))[..., 0]
    return np.stack([cost, chance * less[..., 0], of_trained], axis=-1)


def probabilities(predictions: np.ndarray, output: Output) -> np.ndarray:
    """Of all classes (frames, classes), float64; a single score becomes two classes."""
    scores = np.asarray(output.scores(predictions), np.float64)
    if scores.shape[-1] == 1:
        return np.concatenate([1 - scores, scores], axis=-1)
    if output.probabilities:
        return scores
    scaled = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(scaled / scaled.sum(-1, keepdims=True))
