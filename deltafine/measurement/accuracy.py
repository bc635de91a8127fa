"""Accuracy of a classifier on video: per frame, per window of T frames, per whole clip."""

from __future__ import annotations

import numpy as np

from deltafine.measurement.figures import Estimate
from deltafine.measurement.interval import share_with_interval


def classes_of(predictions: np.ndarray) -> np.ndarray:
    """(..., classes) probabilities or logits to class indices (...); one output is P(class 1)."""
    if predictions.shape[-1] == 1:
        return (predictions[..., 0] > 0.5).astype(np.int64)
    return predictions.argmax(-1)


class Accuracy:
    """Right answers / answers, with an interval over videos.

    ``update`` takes the answers about one video, or several calls with parts of it; ``result`` is None as long
    as nothing was labelled.
    """

    def __init__(self) -> None:
        self._right: dict[int, int] = {}
        self._of: dict[int, int] = {}

    def update(self, video: int, answers: np.ndarray, labels: np.ndarray) -> None:
        """Add class indices and labels, one each; a label below 0 means unlabelled and is left out."""
        answers, labels = np.atleast_1d(answers), np.atleast_1d(labels)
        labelled = labels >= 0
        self._right[video] = self._right.get(video, 0) + int((answers[labelled] == labels[labelled]).sum())
        self._of[video] = self._of.get(video, 0) + int(labelled.sum())

    def result(self) -> Estimate | None:
        if not sum(self._of.values()):
            return None
        videos = sorted(self._of)
        return share_with_interval([self._right[v] for v in videos], [self._of[v] for v in videos])

    def change_from(self, other: Accuracy) -> Estimate | None:
        """This accuracy minus the other's on the same videos, paired: the interval is of the difference."""
        if self._of != other._of:
            raise ValueError("a paired difference needs the same videos on both sides")
        if not sum(self._of.values()):
            return None
        videos = sorted(self._of)
        difference = [self._right[v] - other._right[v] for v in videos]
        return share_with_interval(difference, [self._of[v] for v in videos])


class ClipAccuracy(Accuracy):
    """Accuracy of whole videos: the predictions of all their frames are averaged, then compared."""

    def __init__(self) -> None:
        super().__init__()
        self._sums: dict[int, np.ndarray] = {}
        self._frames: dict[int, int] = {}

    def update(self, video: int, answers: np.ndarray, labels: np.ndarray) -> None:
        """Add predictions (frames, classes) of one video, and its label (the first of those given)."""
        self._sums[video] = self._sums.get(video, 0) + answers.sum(axis=0, dtype=np.float64)
        self._frames[video] = self._frames.get(video, 0) + len(answers)
        label = int(np.atleast_1d(labels)[0])
        answer = int(classes_of(self._sums[video] / self._frames[video]))
        self._right[video], self._of[video] = int(label >= 0 and answer == label), int(label >= 0)
