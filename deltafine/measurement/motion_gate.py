"""The motion gate: how good the original is if it runs only where the picture has changed enough."""

from __future__ import annotations

import numpy as np

from deltafine.document.controls import GatePoint
from deltafine.measurement.held_answers import sources
from deltafine.measurement.judging import Judge
from deltafine.measurement.metric import Answered
from deltafine.measurement.output import Output
from deltafine.measurement.records import Record, inner_record, nested
from deltafine.measurement.scored_ways import ScoredWays
from deltafine.measurement.scoring import Scoring

THRESHOLDS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 20.0, 32.0)
"""Mean absolute differences of pixels, 0 to 255."""

MOST_IN_32_BITS = (2**32 - 1) // 255
"""Bytes whose sum fits."""


class MotionGate:
    """Scores of a network that runs on the first frame of a stream, and then on each frame whose mean absolute
    difference to the frame that it ran on last exceeds a threshold.

    Of a network that takes clips a window counts as a frame; what is held is its last answer.

    Args:
        output, labelled: as for ``Judge``.
        thresholds: of 0 to 255, ascending.
        scoring: judges answers in place of accuracy, error and fidelity, if anything does.
    """

    def __init__(
        self,
        output: Output,
        labelled: bool,
        thresholds: tuple[float, ...] = THRESHOLDS,
        scoring: Scoring | None = None,
    ) -> None:
        self._thresholds = thresholds
        self.judge = Judge(output, labelled, len(thresholds))
        self._scored = None if scoring is None else ScoredWays(scoring, labelled, output, len(thresholds))
        self._ran = np.zeros(len(thresholds), np.int64)
        self._of = 0
        self.begin()

    def begin(self) -> None:
        """A new stream."""
        self._last: list[np.ndarray] = []  # by threshold: the frame that the network ran on last
        self._held: np.ndarray | None = None  # (ways, ...) its answers
        self._seen, self._last_run = 0, np.zeros(len(self._thresholds), np.int64)
        if self._scored is not None:
            self._scored.begin()

    def update(self, frames: np.ndarray, answered: Answered, work_item: int, *, window: bool = False) -> None:
        """Judge the next piece of a stream.

        Args:
            frames: (frames, height, width, channels) uint8 at the model's input size.
            answered: what the network answered to them, one row.
            work_item: by which floating-point sums are kept.
            window: whether the frames went through the network at once.
        """
        truth = self.judge.truth(answered)
        if truth is None:
            return
        answers = self.judge.answers(answered.predictions[0])
        pictures, ways = frames[None] if window else frames, len(self._thresholds)
        held = answers[:1].repeat(ways, axis=0) if self._held is None else self._held
        line = np.concatenate([held, answers[-len(pictures) :]])  # what may be held after this piece
        source = np.empty((ways, len(pictures)), np.int64)
        last = np.arange(ways)
        for number, picture in enumerate(pictures):
            ran = self._runs_on(picture)
            last[ran] = ways + number
            source[:, number] = last
        self._held = line[last]
        self._ran += (source == ways + np.arange(len(pictures))).sum(axis=1)
        self._of += len(pictures)
        before, self._last_run = self._last_run, np.where(last < ways, self._last_run, self._seen + last - ways)
        self._seen += len(pictures)
        if self._scored is not None:
            seen = self._seen - len(pictures)
            ran = np.where(source < ways, before[:, None], seen + source - ways)
            self._scored.update(answered.predictions[0], answered, sources(ran, seen, len(answers)))
            return
        self.judge.expect(truth, work_item)
        given = [answers if window and of[0] == ways else _repeated(line[of], len(answers)) for of in source]
        self.judge.add_scores(np.array([self.judge.scores(way, truth).sum(axis=0) for way in given]), work_item)

    def _runs_on(self, picture: np.ndarray) -> np.ndarray:
        """(ways,) bool; a difference to a frame that several thresholds have in common is computed once."""
        if self._last:
            differences = {key: mean_difference(picture, last) for key, last in {id(p): p for p in self._last}.items()}
            ran = np.array([differences[id(last)] for last in self._last]) > self._thresholds
        else:
            ran, self._last = np.ones(len(self._thresholds), bool), [picture] * len(self._thresholds)
        if ran.any():
            kept = picture.copy()  # not the whole piece
            self._last = [kept if runs else last for runs, last in zip(ran, self._last, strict=True)]
        return ran

    def record(self) -> Record:
        return nested({"gate": {"ran": self._ran, "of": np.asarray(self._of)}, "judge": self._judges.record()})

    def add(self, record: Record) -> None:
        gate = inner_record(record, "gate")
        self._ran += gate["ran"]
        self._of += int(gate["of"])
        self._judges.add(inner_record(record, "judge"))

    @property
    def _judges(self) -> Judge | ScoredWays:
        return self._scored or self.judge

    def points(self) -> list[GatePoint]:
        """For each threshold; nothing if no answer was judged."""
        found = self._judges.results()
        if found is None:
            return []
        return [
            GatePoint(threshold=threshold, share=int(ran) / self._of, quality=quality)
            for threshold, ran, quality in zip(self._thresholds, self._ran, found, strict=True)
        ]


def mean_difference(one: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute difference of two arrays of bytes, exactly."""
    difference = np.maximum(one, other)
    difference -= np.minimum(one, other)
    fast = np.uint32 if one.size <= MOST_IN_32_BITS else np.uint64  # NumPy adds faster in 32 bits
    return int(difference.sum(dtype=fast)) / one.size


def _repeated(answers: np.ndarray, frames: int) -> np.ndarray:
    return answers if len(answers) == frames else answers.repeat(frames, axis=0)
