"""The subject model on every k-th frame of the streams, its answers held between: with its own costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from deltafine.document.controls import RefinedHeldPoint
from deltafine.measurement.answer_age import AnswerAge
from deltafine.measurement.effective_macs import EffectiveMacs
from deltafine.measurement.held_runs import HeldState, run_held
from deltafine.measurement.judging import Judge
from deltafine.measurement.metric import Answered, Shown, Subject
from deltafine.measurement.records import Record, inner_record, nested
from deltafine.measurement.scored_ways import ScoredWays
from deltafine.measurement.scoring import Scoring


@dataclass(frozen=True)
class _Waiting:
    """A piece of a stream whose answers are not known yet.

    Attributes:
        frames: those that the model runs on.
        runs: (frames,) which of the piece these are.
        beside: what answers are judged by.
        work_item: by which floating-point sums are kept.
    """

    frames: np.ndarray
    runs: np.ndarray
    beside: Answered
    work_item: int


class RefinedHeld:
    """A model that runs on every k-th frame.

    Frames wait until there are as many to run on as come in a piece: one run of 32 frames takes much less time than
    eight of 4. The counts and answers are the same.

    Args:
        subject: the model.
        every: k.
        labelled: whether the streams have labels.
        scoring: judges answers in place of accuracy, error and fidelity, if anything does.
    """

    def __init__(self, subject: Subject, every: int, labelled: bool, scoring: Scoring | None = None) -> None:
        self._subject, self.every = subject, every
        self.age = AnswerAge(1)
        self._judge = Judge(subject.output, labelled, 1)
        self._scored = None if scoring is None else ScoredWays(scoring, labelled, subject.output, 1)
        self._macs = EffectiveMacs()
        self._macs.begin(subject)
        self._frames = self._streams = 0
        self._waiting: list[_Waiting] = []
        self.begin()

    def begin(self) -> None:
        """A new stream."""
        self._flush()
        self._state: Any = None
        self._window_state: HeldState | None = None
        self._held: np.ndarray | None = None
        self._seen = self._answered = 0
        self.age.begin()
        if self._scored is not None:
            self._scored.begin()

    def update(self, frames: np.ndarray, beside: Answered, work_item: int) -> None:
        """The next piece of a stream; ``beside`` has what its answers are judged by."""
        if self._subject.probe.window is not None:
            piece, self._window_state = run_held(self._subject.probe, frames[None], self._window_state, self.every)
            self._macs.update(Shown(piece, beside))
            self._judge_answers(self._subject.output.scores(piece.predictions)[0], beside, work_item)
            return
        runs = (self._seen + np.arange(len(frames))) % self.every == 0
        self._streams += self._seen == 0
        self._seen += len(frames)
        self._frames += len(frames)
        self._waiting.append(_Waiting(frames[runs], runs, beside, work_item))
        if sum(len(one.frames) for one in self._waiting) >= len(frames):
            self._flush()

    def _flush(self) -> None:
        """Run on the frames that wait, and judge their pieces."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        frames = np.concatenate([one.frames for one in waiting])
        line = self._held  # answers, that of the frame before first
        if len(frames):
            piece = self._subject.probe.run(frames[None], self._state)
            self._state = piece.state
            self._macs.update(Shown(piece, waiting[0].beside))
            found = self._subject.output.scores(piece.predictions)[0]
            line = np.concatenate([found[:1] if line is None else line, found])
        assert line is not None  # every stream begins with a run
        ran = 0
        for one in waiting:
            self._judge_answers(line[ran + np.cumsum(one.runs)], one.beside, one.work_item)
            ran += int(one.runs.sum())
        self._held = line[-1:]

    def _judge_answers(self, predictions: np.ndarray, beside: Answered, work_item: int) -> None:
        truth = self._judge.truth(beside)
        if truth is None:
            return
        self.age.look(self._judge, predictions, beside.labels[0])
        if self._scored is not None:
            own = self._answered + np.arange(len(predictions))
            self._answered += len(predictions)
            self._scored.update(predictions, beside, own[None])
            return
        answers = self._judge.answers(predictions)
        self._judge.expect(truth, work_item)
        self._judge.add_scores(self._judge.scores(answers, truth).sum(axis=0, keepdims=True), work_item)

    def record(self) -> Record:
        """Everything counted, for :meth:`add` of another one."""
        self._flush()
        seen = {"frames": np.asarray(self._frames), "streams": np.asarray(self._streams)}
        records = {"macs": self._macs.record(), "judge": self._judges.record(), "age": self.age.record()}
        return nested({**records, "seen": seen})

    def add(self, record: Record) -> None:
        """Add what another one has counted."""
        self._flush()
        self._macs.add(inner_record(record, "macs"))
        self._judges.add(inner_record(record, "judge"))
        self.age.add(inner_record(record, "age"))
        seen = inner_record(record, "seen")
        self._frames += int(seen["frames"])
        self._streams += int(seen["streams"])

    @property
    def _judges(self) -> Judge | ScoredWays:
        return self._scored or self._judge

    def points(self) -> list[RefinedHeldPoint]:
        """The one for this k; nothing if no answer was judged, or no frame had one before it."""
        self._flush()
        found, density = self._judges.results(), self._density()
        return (
            []
            if found is None or density is None
            else [RefinedHeldPoint(every=self.every, quality=found[0], mac_density=density)]
        )

    def _density(self) -> float | None:
        """Per frame of the video: a frame that is left out costs nothing."""
        macs = self._macs
        if self._subject.probe.window is not None:
            return macs.delta_steady / macs.dense_total if macs.measured else None
        steady = self._frames - self._streams
        if not steady:
            return None
        ran = macs.frames - self._streams
        return macs.delta_steady / macs.dense_total * ran / steady if macs.measured else 0.0
