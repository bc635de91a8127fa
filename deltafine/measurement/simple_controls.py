"""What simple ways to save would reach on the same streams: held answers, a motion gate, the refined model held."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from deltafine.document.controls import AnswerAgePoint, Controls
from deltafine.measurement.answer_age import AnswerAge
from deltafine.measurement.held_answers import HeldAnswers
from deltafine.measurement.metric import Answered, Subject
from deltafine.measurement.motion_gate import MotionGate
from deltafine.measurement.records import Record, inner_record, nested
from deltafine.measurement.refined_held import RefinedHeld
from deltafine.measurement.scoring import Scoring

ORIGINAL, REFINED = "original", "refined"
REFINED_HELD = (24,)
"""For which k the refined model is measured on every k-th frame of streams of their own. Each takes 1/k of the time of
measuring that model, so smaller ones cost more than a fiftieth of all measuring; ``--every`` measures any."""


class SimpleControls:
    """Scores of the controls while streams are measured.

    Args:
        subjects: the models, and how they are measured.
        labelled: whether the streams have labels.
        refined_held: for which k the model that the report is about runs on every k-th frame as well.
        scoring: judges answers in place of accuracy, error and fidelity, if anything does.
    """

    def __init__(
        self,
        subjects: Mapping[str, Subject],
        *,
        labelled: bool,
        refined_held: Sequence[int] = (),
        scoring: Scoring | None = None,
    ) -> None:
        output = next(iter(subjects.values())).output
        self._labelled = labelled
        self._window = next(iter(subjects.values())).probe.window is not None
        self._height = next(iter(subjects.values())).probe.frame_shape[0]
        self._scoring = scoring
        self._held = HeldAnswers(output, labelled, scoring)
        self._gate = MotionGate(output, labelled, scoring=scoring)
        self._with_original = ORIGINAL in subjects
        self._name = name = REFINED if REFINED in subjects else list(subjects)[-1]
        judged = name != ORIGINAL and (labelled or self._with_original)
        self._subset = [RefinedHeld(subjects[name], k, labelled, scoring) for k in refined_held if judged]
        self._ages = {one: AnswerAge(1) for one in (ORIGINAL, name) if one in subjects}

    def begin(self) -> None:
        """A new stream."""
        self._held.begin()
        self._gate.begin()
        for one in self._subset:
            one.begin()
        for age in self._ages.values():
            age.begin()

    def update(self, frames: np.ndarray, answers: Mapping[str, Answered], work_item: int) -> None:
        """Judge the next piece of a stream.

        Args:
            frames: (frames, height, width, channels) uint8, with the lines of further values.
            answers: of the models, one row.
            work_item: by which floating-point sums are kept.
        """
        if self._with_original:
            self._held.update(answers[ORIGINAL], work_item, window=self._window)
            self._gate.update(frames[..., : self._height, :, :], answers[ORIGINAL], work_item, window=self._window)
        for one in self._subset:
            one.update(frames, next(iter(answers.values())), work_item)
        for name, age in self._ages.items():
            age.look(self._held.judge, answers[name].predictions[0], answers[name].labels[0])

    def record(self) -> Record:
        """Everything counted, for :meth:`add` of another one."""
        return nested({name: one.record() for name, one in self._counting().items()})

    def add(self, record: Record) -> None:
        """Add what another one has counted."""
        for name, one in self._counting().items():
            one.add(inner_record(record, name))

    def _counting(self) -> dict[str, HeldAnswers | MotionGate | RefinedHeld | AnswerAge]:
        refined = {f"refined held {number}": one for number, one in enumerate(self._subset)}
        ages = {f"age {number}": age for number, age in enumerate(self._ages.values())}
        return {"held": self._held, "gate": self._gate, **refined, **ages}

    def result(self) -> Controls | None:
        """None if there is nothing to judge answers by."""
        held, gate = self._held.points(), self._gate.points()
        refined = [point for one in self._subset for point in one.points()]
        if not held and not refined:
            return None
        return Controls(
            judged_by=self._held.judge.judged_by if self._scoring is None else "score",
            held=held,
            motion_gate=gate,
            refined_held=refined,
            answer_age=list(self._answer_ages()),
        )

    def _answer_ages(self) -> Iterator[AnswerAgePoint]:
        for name, age in self._ages.items():
            if point := age.point(name, 1):
                yield point
            if name == ORIGINAL:
                yield from self._held.ages(name)
        for one in self._subset:
            if point := one.age.point(self._name, one.every):
                yield point
