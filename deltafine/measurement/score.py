"""Score: how good the answers to each video are, by one number that the user's function or a built-in one gives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from deltafine.document.figures import Estimate
from deltafine.measurement.interval import mean_with_interval
from deltafine.measurement.metric import Beside, Metric, Result, Shown, Subject
from deltafine.measurement.output import Output
from deltafine.measurement.parts import by_name
from deltafine.measurement.records import Record
from deltafine.measurement.scoring import GivenAnswers, ScoredVideo, Scoring


class Score(Metric):
    """The mean over the videos, each counting the same; on streams, since a score is about a whole video.

    Predictions of a video are kept until it is over: two models of one video are in memory at most.

    Args:
        scoring: judges a video.
        labelled: whether by labels; videos without any are then left out. Else by the original's predictions.
    """

    name = "score"

    def __init__(self, scoring: Scoring, labelled: bool) -> None:
        self.scoring, self.labelled = scoring, labelled

    def begin(self, subject: Subject) -> None:
        self._subject = subject
        self._scores: dict[int, tuple[float, float, float]] = {}  # by video: own, the original's, of its first answer
        self._video: OneVideo | None = None
        self._number = -1

    def update(self, shown: Shown) -> None:
        if self._subject.as_clips:
            return
        answers = shown.answers
        for row, number in enumerate(answers.videos.tolist()):
            if number != self._number or self._video is None:
                self._finish()
                about = answers.about or ScoredVideo(answers.name or f"number {number + 1}")
                self._video, self._number = OneVideo(self.scoring, self.labelled, about), number
            original = None if answers.original is None else answers.original[row]
            first = None if shown.control is None else shown.control.predictions[row]
            self._video.add(answers.predictions[row], answers.labels[row], original, first)

    def _finish(self) -> None:
        if self._video is not None:
            scores = self._video.scores(self._subject.output, is_original=self._subject.is_original)
            if scores is not None:
                self._scores[self._number] = scores
        self._video = None

    def record(self) -> Record:
        self._finish()
        videos = sorted(self._scores)
        scores = np.array([self._scores[video] for video in videos], np.float64).reshape(-1, 3)
        return {"video": np.array(videos, np.int64), "scores": scores}

    def add(self, record: Record) -> None:
        self._scores |= {
            video: (own, original, frozen)
            for video, (own, original, frozen) in zip(record["video"].tolist(), record["scores"].tolist(), strict=True)
        }

    def result(self, beside: Beside) -> Result:
        self._finish()
        videos = sorted(self._scores)
        own, original, frozen = np.array([self._scores[video] for video in videos]).reshape(-1, 3).T
        recordings = [self._subject.recording(video) for video in videos]
        found = {"score": own, "frozen_score": frozen}
        if not self._subject.is_original:
            found["score_change"] = own - original
        return Result({name: _mean(scores, recordings) for name, scores in found.items()})


class OneVideo:
    """What was answered about one video so far.

    Args:
        scoring: judges it.
        labelled: whether by labels; else by the original's predictions.
        about: which it is.
    """

    def __init__(self, scoring: Scoring, labelled: bool, about: ScoredVideo) -> None:
        self._scoring, self._labelled, self._about = scoring, labelled, about
        self._predictions: list[np.ndarray] = []
        self._original: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []
        self._first: np.ndarray | None = None

    def add(
        self, predictions: np.ndarray, labels: np.ndarray, original: np.ndarray | None, first: np.ndarray | None = None
    ) -> None:
        """Add predictions (frames, ..., outputs), labels (frames,), the original's predictions, and those that hold
        its first answer."""
        self._predictions.append(self._scoring.kept(predictions))
        self._labels.append(labels)
        if original is not None:
            self._original.append(self._scoring.kept(original))
        if first is not None and self._first is None:
            self._first = self._scoring.kept(first)[:1].copy()

    def scores(self, output: Output, *, is_original: bool) -> tuple[float, float, float] | None:
        """Of the model, of the original, and of holding its first answer; NaN where it is not there. None where there
        is nothing to judge by."""
        judged = self._judged(output)
        if judged is None:
            return None
        predictions = np.concatenate(self._predictions)[judged.frames]
        original = np.concatenate(self._original)[judged.frames] if self._original else None

        def score(answers: np.ndarray | None) -> float:
            return math.nan if answers is None else judged.score(answers)

        own = score(predictions)
        frozen = None if self._first is None else np.repeat(self._first, len(predictions), axis=0)
        return own, own if is_original else score(original), score(frozen)

    def scores_of(self, output: Output, sources: np.ndarray) -> list[float] | None:
        """Of several ways to answer, each of which says which prediction stands for each frame.

        Args:
            output: how predictions are read.
            sources: (ways, frames).

        Returns:
            One for each way; None where there is nothing to judge by.
        """
        judged = self._judged(output)
        if judged is None:
            return None
        predictions = np.concatenate(self._predictions)
        scores: dict[bytes, float] = {}  # ways that come to the same are scored once
        for source in sources:
            key = source.tobytes()
            if key not in scores:
                scores[key] = judged.score(predictions[source[judged.frames]])
        return [scores[source.tobytes()] for source in sources]

    def _judged(self, output: Output) -> _Judged | None:
        """What is judged, and by what; None where there is nothing."""
        labels, about = np.concatenate(self._labels), self._about
        if about.frames is not None:
            about = replace(about, frames=about.frames[: len(labels)])
        if not self._labelled:
            given = np.concatenate(self._original) if self._original else None
            return None if given is None else _Judged(self._scoring, output, about, slice(None), _apart(given, output))
        known = labels >= 0
        if not known.any():
            return None
        about = about if about.frames is None else replace(about, frames=about.frames[known])
        of_labels = output.targets(labels[known]) if output.numbers else labels[known]
        truth = of_labels if output.truth is None else _of_labelled(of_labels, output)
        return _Judged(self._scoring, output, about, known, truth)


@dataclass(frozen=True)
class _Judged:
    """Frames of a video that answers are judged on, (frames,) bool or all, and by what."""

    scoring: Scoring
    output: Output
    about: ScoredVideo
    frames: np.ndarray | slice
    truth: GivenAnswers

    def score(self, answers: np.ndarray) -> float:
        """Of predictions for these frames."""
        return self.scoring.of_video(_apart(answers, self.output), self.truth, self.about.name, self.about)


def _apart(values: np.ndarray, output: Output) -> GivenAnswers:
    """Of several outputs each by its name."""
    return by_name(values, output.parts) if output.parts else values


def _of_labelled(targets: np.ndarray, output: Output) -> GivenAnswers:
    """Of several outputs those that have labels."""
    found = by_name(targets, output.parts)
    return {part.name: found[part.name] for part in output.parts if part.labels is not None}


def _mean(scores: np.ndarray, recordings: Sequence[str]) -> Estimate | None:
    return mean_with_interval(scores, recordings=recordings) if len(scores) and not np.isnan(scores).any() else None
