"""Scores of several ways to answer the same videos from one line of answers: held for k frames, behind a gate."""

from __future__ import annotations

import numpy as np

from deltafine.measurement.metric import Answered
from deltafine.measurement.output import Output
from deltafine.measurement.records import Record
from deltafine.measurement.score import OneVideo
from deltafine.measurement.scoring import ScoredVideo, Scoring


class ScoredWays:
    """The mean over the videos, as of ``Score``, for each way.

    A score is about a whole video: its answers are kept until it is over, and which of them stands for which frame.

    Args:
        scoring: judges a video.
        labelled: whether by labels; else by the original's predictions.
        output: how predictions are read.
        ways: how many there are.
    """

    def __init__(self, scoring: Scoring, labelled: bool, output: Output, ways: int) -> None:
        self._scoring, self._labelled, self._output, self._ways = scoring, labelled, output, ways
        self._scores: dict[int, np.ndarray] = {}  # by video: (ways,)
        self._video: OneVideo | None = None
        self._sources: list[np.ndarray] = []
        self._number = -1

    def begin(self) -> None:
        """A new stream."""
        self._finish()

    def update(self, predictions: np.ndarray, beside: Answered, source: np.ndarray) -> None:
        """The next piece of a stream.

        Args:
            predictions: (frames, ..., outputs).
            beside: labels of the piece, what the original answered, name and number of the video.
            source: (ways, frames) which prediction of the stream, counted from its first, stands for each frame.
        """
        if self._video is None:
            self._number = int(beside.videos[0])
            about = beside.about or ScoredVideo(beside.name or f"number {self._number + 1}")
            self._video = OneVideo(self._scoring, self._labelled, about)
        original = None if self._labelled or beside.original is None else beside.original[0]
        self._video.add(predictions, beside.labels[0], original)
        self._sources.append(source)

    def _finish(self) -> None:
        if self._video is not None:
            found = self._video.scores_of(self._output, np.concatenate(self._sources, axis=1))
            if found is not None:
                self._scores[self._number] = np.array(found)
        self._video, self._sources = None, []

    def record(self) -> Record:
        """Everything scored, for :meth:`add` of another one."""
        self._finish()
        videos = sorted(self._scores)
        scores = np.array([self._scores[video] for video in videos], np.float64).reshape(-1, self._ways)
        return {"video": np.array(videos, np.int64), "scores": scores}

    def add(self, record: Record) -> None:
        """Add what another one has scored."""
        self._scores |= dict(zip(record["video"].tolist(), record["scores"], strict=True))

    def results(self) -> list[float] | None:
        """Of each way; None if nothing was scored."""
        self._finish()
        if not self._scores:
            return None
        found: list[float] = np.mean([self._scores[video] for video in sorted(self._scores)], axis=0).tolist()
        return found
