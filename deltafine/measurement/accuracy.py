"""Right answers of a classifier on video, and of whole clips: what the metrics of accuracy count with."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from deltafine.document.figures import Estimate
from deltafine.measurement.interval import share_with_interval
from deltafine.measurement.records import Record


def classes_of(predictions: np.ndarray) -> np.ndarray:
    """(..., classes) probabilities or logits to class indices (...); one output is P(class 1)."""
    if predictions.shape[-1] == 1:
        return (predictions[..., 0] > 0.5).astype(np.int64)
    return predictions.argmax(-1)


class Accuracy:
    """Right answers / answers, with an interval over recordings.

    ``update`` takes the answers about one video, or several calls with some of its frames each; ``result`` is None as
    long as nothing was labelled.

    Args:
        recording: the same for all videos of one recording; default: each video is one.
    """

    def __init__(self, recording: Callable[[int], str] = str) -> None:
        self._recording = recording
        self._right: dict[int, int] = {}
        self._of: dict[int, int] = {}

    def update(self, video: int, answers: np.ndarray, labels: np.ndarray) -> None:
        """Add class indices and labels, one each; a label below 0 means unlabelled and is left out."""
        answers, labels = np.atleast_1d(answers), np.atleast_1d(labels)
        labelled = labels >= 0
        self._right[video] = self._right.get(video, 0) + int((answers[labelled] == labels[labelled]).sum())
        self._of[video] = self._of.get(video, 0) + int(labelled.sum())

    def record(self) -> Record:
        """Everything counted, for :meth:`add` of another one."""
        videos = sorted(self._of)
        columns = {"video": videos, "right": [self._right[v] for v in videos], "of": [self._of[v] for v in videos]}
        return {name: np.array(column, np.int64) for name, column in columns.items()}

    def add(self, record: Record) -> None:
        """Add what another one has counted."""
        for video, right, of in zip(*(record[name].tolist() for name in ("video", "right", "of")), strict=True):
            self._right[video] = self._right.get(video, 0) + right
            self._of[video] = self._of.get(video, 0) + of

    def result(self) -> Estimate | None:
        if not sum(self._of.values()):
            return None
        return self._share(self._right)

    def of_video(self, video: int) -> tuple[int, int]:
        """(right answers, labelled answers)"""
        return self._right.get(video, 0), self._of.get(video, 0)

    @property
    def recordings(self) -> int:
        """Of how many any frame was labelled."""
        return len({self._recording(video) for video, of in self._of.items() if of})

    def is_of_same(self, other: Accuracy) -> bool:
        """Whether the same videos were judged, by as many answers."""
        return self._of == other._of

    def change_from(self, other: Accuracy) -> Estimate | None:
        """This accuracy minus the other's on the same videos, paired: the interval is of the difference."""
        if not self.is_of_same(other):
            raise ValueError("a paired difference needs the same videos on both sides")
        if not sum(self._of.values()):
            return None
        return self._share({video: right - other._right[video] for video, right in self._right.items()})

    def _share(self, right: Mapping[int, int]) -> Estimate:
        videos = sorted(self._of)
        numbers = [right[v] for v in videos], [self._of[v] for v in videos]
        return share_with_interval(*numbers, recordings=[self._recording(v) for v in videos])


class ClipAccuracy:
    """Accuracy of whole videos: the predictions of all their frames are averaged, then compared.

    Args:
        recording: as for ``Accuracy``.
    """

    def __init__(self, recording: Callable[[int], str] = str) -> None:
        self._recording = recording
        self._sums: dict[tuple[int, int], np.ndarray] = {}  # by video and work item
        self._frames: dict[tuple[int, int], int] = {}
        self._labels: dict[tuple[int, int], int] = {}

    def update(self, video: int, answers: np.ndarray, labels: np.ndarray, work_item: int = 0) -> None:
        """Add predictions (frames, classes) of one video, and its label (the first of those given)."""
        self._add(
            (video, work_item), answers.sum(axis=0, dtype=np.float64), len(answers), int(np.atleast_1d(labels)[0])
        )

    def _add(self, key: tuple[int, int], answers: np.ndarray, frames: int, label: int) -> None:
        self._sums[key] = self._sums.get(key, 0) + answers
        self._frames[key] = self._frames.get(key, 0) + frames
        self._labels[key] = label

    def record(self) -> Record:
        """Everything added up, for :meth:`add` of another one."""
        keys = sorted(self._sums)
        return {
            "key": np.array(keys, np.int64).reshape(-1, 2),
            "sum": np.array([self._sums[key] for key in keys]),
            "frames": np.array([self._frames[key] for key in keys], np.int64),
            "label": np.array([self._labels[key] for key in keys], np.int64),
        }

    def add(self, record: Record) -> None:
        """Add what another one has added up."""
        rows = zip(
            record["key"].tolist(), record["sum"], record["frames"].tolist(), record["label"].tolist(), strict=True
        )
        for (video, work_item), answers, frames, label in rows:
            self._add((video, work_item), answers, frames, label)

    def result(self) -> Estimate | None:
        right: dict[int, int] = {}
        labelled: dict[int, int] = {}
        sums: dict[int, np.ndarray] = {}
        frames: dict[int, int] = {}
        for key in sorted(self._sums):
            video, label = key[0], self._labels[key]
            sums[video] = self._sums[key] + sums.get(video, 0)
            frames[video] = frames.get(video, 0) + self._frames[key]
            answer = int(classes_of(sums[video] / frames[video]))
            right[video], labelled[video] = int(label >= 0 and answer == label), int(label >= 0)
        if not sum(labelled.values()):
            return None
        numbers = [right[video] for video in sums], [labelled[video] for video in sums]
        return share_with_interval(*numbers, recordings=[self._recording(video) for video in sums])
