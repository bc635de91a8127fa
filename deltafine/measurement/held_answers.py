"""The held control: how good the original is on every k-th frame of a stream, its answer held between."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from deltafine.document.controls import HeldPoint
from deltafine.measurement.judging import Judge
from deltafine.measurement.metric import Answered
from deltafine.measurement.output import Output
from deltafine.measurement.records import Record

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
        self.begin()

    def begin(self) -> None:
        """A new stream."""
        self._past: np.ndarray | None = None
        self._seen = 0

    def update(self, answered: Answered, unit: int, *, window: bool = False) -> None:
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
        self.judge.expect(truth, unit)
        self.judge.add_scores(scores[self._ago(runs), np.arange(frames)].sum(axis=1), unit)
        self._past, self._seen = line[runs:], self._seen + runs

    def _ago(self, runs: int) -> np.ndarray:
        """(ways, runs) how many runs ago the network ran last."""
        number = np.arange(self._seen, self._seen + runs)
        return np.minimum((number - self._phase) % self._every, number)

    def record(self) -> Record:
        return self.judge.record()

    def add(self, record: Record) -> None:
        self.judge.add(record)

    def points(self) -> list[HeldPoint]:
        """For each k; nothing if no answer was judged."""
        found = self.judge.results()
        if found is None:
            return []
        bounds = pairwise(np.cumsum([0, *EVERY]).tolist())
        return [
            HeldPoint(every=every, quality=float(np.mean(found[a:b])), low=min(found[a:b]), high=max(found[a:b]))
            for every, (a, b) in zip(EVERY, bounds, strict=True)
        ]


def _repeated(answers: np.ndarray, frames: int) -> np.ndarray:
    return answers if len(answers) == frames else np.repeat(answers, frames, axis=0)
