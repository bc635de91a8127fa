"""The held control: how good the original is on every k-th frame of a stream, its answer held between."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, pairwise

import numpy as np

from deltafine.document.controls import AnswerAgePoint, HeldPoint
from deltafine.measurement.answer_age import AnswerAge
from deltafine.measurement.judging import Judge
from deltafine.measurement.metric import Answered
from deltafine.measurement.output import Output
from deltafine.measurement.records import Record, inner_record, nested
from deltafine.measurement.scored_ways import ScoredWays
from deltafine.measurement.scoring import Scoring

EVERY = (2, 3, 4, 5, 8, 10, 16, 24, 32, 48)
ALL_SCORED, MOST_SCORED = 10, 4
"""The k up to which all phases are judged by a score, and how many of a larger k, spread over all: what a function of
the user's takes is not known."""


class HeldAnswers:
    """Scores of held answers, in all phases, found from the answers to all frames.

    In phase p of every k-th, the network runs on the frames p, p + k, p + 2k, ... of each stream, and on its first. Of
    a network that takes clips a window counts as a frame; what is held is its last answer.

    Args:
        output, labelled: as for ``Judge``.
        scoring: judges answers in place of accuracy, error and fidelity, if anything does.
    """

    def __init__(self, output: Output, labelled: bool, scoring: Scoring | None = None) -> None:
        self._every = np.repeat(EVERY, EVERY)[:, None]
        self._phase = np.concatenate([np.arange(every) for every in EVERY])[:, None]
        self.judge = Judge(output, labelled, len(self._every))
        self._age = AnswerAge(len(self._every))
        self._scored: ScoredWays | None = None
        self._judged: list[Sequence[int]] = [range(of.start, of.stop) for _, of in _phases()]
        if scoring is not None:
            self._judged = [spread(of, len(of) if len(of) <= ALL_SCORED else MOST_SCORED) for of in self._judged]
            self._scored = ScoredWays(scoring, labelled, output, sum(map(len, self._judged)))
        self.begin()

    def begin(self) -> None:
        """A new stream."""
        self._past: np.ndarray | None = None
        self._seen = 0
        self._age.begin()
        if self._scored is not None:
            self._scored.begin()

    def update(self, answered: Answered, work_item: int, *, window: bool = False) -> None:
        """Judge the next piece of a stream, one row; with ``window``, its frames went through the network at once."""
        truth = self.judge.truth(answered)
        if truth is None:
            return
        answers = self.judge.answers(answered.predictions[0])
        most = max(EVERY) - 1
        past = np.repeat(answers[:1], most, axis=0) if self._past is None else self._past
        frames, runs = len(answers), 1 if window else len(answers)
        line = np.concatenate([past, answers])
        ago = self._ago(runs)
        if self._scored is not None:
            ran = self._seen + np.arange(runs) - ago[np.concatenate(self._judged)]
            self._scored.update(answered.predictions[0], answered, sources(ran, self._seen, frames))
        else:
            own, agos = most + np.arange(frames), np.arange(most + 1)[:, None]
            source = np.where(agos, most - agos, own) if window else own - agos
            scores = self.judge.scores_of(line, source, truth)  # (frames ago, frames, ...)
            self.judge.expect(truth, work_item)
            self.judge.add_scores(scores[ago, np.arange(frames)].sum(axis=1), work_item)
        if self.judge.has_changes and runs == frames:
            self._age.update(line[most + np.arange(runs) - ago], truth)
        self._past, self._seen = np.concatenate([past, answers[-runs:]])[runs:], self._seen + runs

    def _ago(self, runs: int) -> np.ndarray:
        """(ways, runs) how many runs ago the network ran last."""
        number = np.arange(self._seen, self._seen + runs)
        return np.minimum((number - self._phase) % self._every, number)

    def record(self) -> Record:
        return nested({"judge": self._judges.record(), "age": self._age.record()})

    def add(self, record: Record) -> None:
        self._judges.add(inner_record(record, "judge"))
        self._age.add(inner_record(record, "age"))

    @property
    def _judges(self) -> Judge | ScoredWays:
        return self._scored or self.judge

    def points(self) -> list[HeldPoint]:
        """For each k; nothing if no answer was judged."""
        found = iter(self._judges.results() or ())
        by_k = [list(islice(found, len(of))) for of in self._judged]
        return [
            HeldPoint(every=every, quality=float(np.mean(of)), low=min(of), high=max(of))
            for every, of in zip(EVERY, by_k, strict=True)
            if of
        ]

    def ages(self, model: str) -> list[AnswerAgePoint]:
        """For each k; nothing if no label changed."""
        return [point for every, of in _phases() if (point := self._age.point(model, every, of))]


def _phases() -> list[tuple[int, slice]]:
    """Each k, with its ways."""
    bounds = pairwise(np.cumsum([0, *EVERY]).tolist())
    return [(every, slice(*of)) for every, of in zip(EVERY, bounds, strict=True)]


def spread(of: Sequence[int], most: int) -> list[int]:
    """At most so many of them, at even distances, the first among them."""
    return [of[number * len(of) // most] for number in range(most)] if len(of) > most else list(of)


def sources(ran: np.ndarray, seen: int, frames: int) -> np.ndarray:
    """Which answer of a stream stands for each frame of a piece.

    Args:
        ran: (ways, runs) the run, counted from the first of the stream, whose answer stands for each run of the piece.
        seen: runs before the piece.
        frames: answers in the piece: one for each run; or more, of a run that gives several, whose last one is held.

    Returns:
        (ways, frames), counted from the first answer of the stream.
    """
    each = frames // ran.shape[1]
    own = seen + np.arange(ran.shape[1])
    held = np.repeat((ran + 1) * each - 1, each, axis=1)
    return np.where(np.repeat(ran == own, each, axis=1), seen * each + np.arange(frames), held)
