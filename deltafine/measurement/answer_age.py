"""The age of answers: frames until the answer follows a change of the label."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from deltafine.document.controls import AnswerAgePoint
from deltafine.measurement.judging import Judge
from deltafine.measurement.records import Record


class AnswerAge:
    """How long several ways to answer the same frames take to follow.

    A change is a frame whose label is another than that of the frame before. It is followed at the first frame from
    there on whose answer is the new label, before the label changes again; the delay is 0 where the answer is right
    at once. A change that is not followed by then, or by the end of the stream, is counted as such.

    Args:
        ways: how many there are.
    """

    def __init__(self, ways: int) -> None:
        self._ways = ways
        self._found: list[np.ndarray] = []  # by change (ways,): the delay, or -1
        self._delays: np.ndarray | None = None  # of the change that is not yet followed by all
        self.begin()

    def begin(self) -> None:
        """A new stream."""
        self._close()
        self._label, self._since = -1, 0

    def update(self, answers: np.ndarray, labels: np.ndarray) -> None:
        """Add answers (ways, frames) and labels (frames,), classes; a label below 0 is none, and ends what is
        awaited."""
        starts = [0, *(np.flatnonzero(labels[1:] != labels[:-1]) + 1).tolist(), len(labels)]
        for begin, end in pairwise(starts):
            label = int(labels[begin])
            if label != self._label:
                self._close()
                if min(label, self._label) >= 0:
                    self._delays, self._since = np.full(self._ways, -1, np.int64), 0
                self._label = label
            if self._delays is not None:
                right = answers[:, begin:end] == label
                followed = (self._delays < 0) & right.any(axis=1)
                self._delays[followed] = self._since + right.argmax(axis=1)[followed]
                self._since += end - begin
                if (self._delays >= 0).all():
                    self._close()

    def look(self, judge: Judge, predictions: np.ndarray, labels: np.ndarray) -> None:
        """Add predictions (frames, classes) of a single way beside their labels, where an answer may follow these."""
        if judge.has_changes:
            self.update(judge.answers(predictions)[None], labels)

    def _close(self) -> None:
        if self._delays is not None:
            self._found.append(self._delays)
        self._delays = None

    def record(self) -> Record:
        """Everything counted, for :meth:`add` of another one."""
        self._close()
        return {"delays": np.array(self._found, np.int64).reshape(-1, self._ways)}

    def add(self, record: Record) -> None:
        """Add what another one has counted."""
        self._found += list(record["delays"])

    def point(self, model: str, every: int, ways: slice = slice(None)) -> AnswerAgePoint | None:
        """Of some of the ways together; None if no label changed."""
        delays = self.record()["delays"][:, ways].ravel()
        if not len(delays):
            return None
        followed = delays >= 0
        ages = np.quantile(np.where(followed, delays, np.inf), [0.5, 0.95], method="inverted_cdf").tolist()
        median, p95 = (age if np.isfinite(age) else None for age in ages)
        return AnswerAgePoint(
            model=model, every=every, median=median, p95=p95, followed=float(followed.mean()), changes=len(self._found)
        )
