"""The held control: how good the original is on every k-th frame of a stream, its answer held between."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from deltafine.document.controls import AnswerAgePoint, HeldPoint
from deltafine.measurement.answer_age import AnswerAge
from deltafine.measurement.judging import Judge
from deltafine.measurement.metric import Answered
from deltafine.measurement.output import Output
from deltafine.measurement.records import Record, inner_record, nested

EVERY = (2, 3, 4, 5, 8, 10, 16, 24, 32, 48)


class HeldAnswers:
    """Scores of held answers, in all phases, found from the answers to all frames.

    In phase p of every k-th, the network runs on the frames p, p + k, p + 2k, ... of each stream, and on its first. Of
    a network that takes clips a window counts as a frame; what is held is its last answer.

    Args:
        output, labelled: as for ``Judge``.
    """

    def __init__(self, output: Output, labelled: bool) -> None:
        self._every = np.repeat(EVERY, EVERY)[:, None]
        self._phase = np.concatenate([np.arange(every) for every in EVERY])[:, None]
        self.judge = Judge(output, labelled, len(self._every))
        self._age = AnswerAge(len(self._every))
        self.begin()

    def begin(self) -> None:
        """A new stream."""
        self._past: np.ndarray | None = None
        self._seen = 0
        self._age.begin()

    def update(self, answered: Answered, work_item: int, *, window: bool = False) -> None:
        """Judge the next piece of a stream, one row; with ``window``, its frames went through the network at once."""
        truth = self.judge.truth(answered)
        if truth is None:
            return
        answers = self.judge.answers(answered.predictions[0])
        most = max(EVERY) - 1
        past = np.repeat(answers[:1], most, axis=0) if self._past is None else self._past
        frames, runs = len(answers), 1 if window else len(answers)
        line = np.concatenate([past, answers[-runs:]])
        scores = np.array(
            [
                self.judge.scores(answers if ago == 0 else _repeated(line[most - ago :][:runs], frames), truth)
                for ago in range(most + 1)
            ]
        )  # (frames ago, frames, ...)
        ago = self._ago(runs)
        self.judge.expect(truth, work_item)
        self.judge.add_scores(scores[ago, np.arange(frames)].sum(axis=1), work_item)
        if self.judge.has_changes and runs == frames:
            self._age.update(line[most + np.arange(runs) - ago], truth)
        self._past, self._seen = line[runs:], self._seen + runs

    def _ago(self, runs: int) -> np.ndarray:
        """(ways, runs) how many runs ago the network ran last."""
        number = np.arange(self._seen, self._seen + runs)
        return np.minimum((number - self._phase) % self._every, number)

    def record(self) -> Record:
        return nested({"judge": self.judge.record(), "age": self._age.record()})

    def add(self, record: Record) -> None:
        self.judge.add(inner_record(record, "judge"))
        self._age.add(inner_record(record, "age"))

    def points(self) -> list[HeldPoint]:
        """For each k; nothing if no answer was judged."""
        found = self.judge.results()
        if found is None:
            return []
        return [
            HeldPoint(every=every, quality=float(np.mean(found[of])), low=min(found[of]), high=max(found[of]))
            for every, of in _phases()
        ]

    def ages(self, model: str) -> list[AnswerAgePoint]:
        """For each k; nothing if no label changed."""
        return [point for every, of in _phases() if (point := self._age.point(model, every, of))]


def _phases() -> list[tuple[int, slice]]:
    """Each k, with its ways."""
    bounds = pairwise(np.cumsum([0, *EVERY]).tolist())
    return [(every, slice(*of)) for every, of in zip(EVERY, bounds, strict=True)]


def _repeated(answers: np.ndarray, frames: int) -> np.ndarray:
    return answers if len(answers) == frames else np.repeat(answers, frames, axis=0)
