"""The frozen control: whether the videos of a report can tell a model that follows them from one that never updates.

Everything is found from the figures of the report, so that old ones obey the same rules as new ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deltafine.document.report import Estimate, Figures, Reference, Report
from deltafine.report.quantities import figures_of, subject
from deltafine.report.text import judged, share

TOLERANCE = 0.02
"""Of accuracy, fidelity or error: a control that is no further off is as good."""


@dataclass(frozen=True)
class Control:
    """The subject model on streams beside a network that never updates.

    Attributes:
        what: both are judged by.
        reached: by the subject model.
        frozen: by holding the original's first answer.
        goal: what the original reaches; None if it was not measured, or is the subject itself.
        as_good: the control is as good as the subject model, within its interval or the tolerance.
        untold: the videos cannot tell, since it is as good as the original; where there is none, as the subject.
    """

    what: Literal["accuracy", "error", "fidelity", "score"]
    reached: float
    frozen: float
    goal: float | None
    as_good: bool
    untold: bool

    def said(self, value: float) -> str:
        """A value of what both are judged by, in words."""
        return judged(value, self.what)

    @property
    def says_nothing(self) -> bool:
        """No saving can be told: the control is as good as the subject model, or as the original."""
        return self.as_good or self.untold

    @property
    def hardly_updates(self) -> bool:
        """The subject model is nearer to the control than to the original."""
        return self.goal is not None and abs(self.reached - self.frozen) < abs(self.reached - self.goal)


def judged_by(report: Report) -> Literal["accuracy", "error", "fidelity", "score"]:
    """What a training judges its epochs by, and the report the subject model on streams."""
    figures = figures_of(report, subject(report), "streams")
    if figures.score is not None:
        return "score"
    if _accuracy(figures) is not None:
        return "accuracy"
    if figures.label_error is not None or figures.relative_error is not None:
        return "error"
    return "accuracy" if figures.fidelity is None else "fidelity"


def of_epoch(quality: float, what: str) -> float:
    """What a training has kept of an epoch, as the report shows it: of numbers it is 1 - error."""
    return 1 - quality if what == "error" else quality


def control_of(report: Report) -> Control | None:
    """The frozen control of a report; None where none was measured."""
    name = subject(report)
    figures = figures_of(report, name, "streams")
    original = report.models["original"].streams if name != "original" and "original" in report.models else None
    if figures.score is not None:
        return _of_scores(figures, original)
    accuracy, frozen = _accuracy(figures), figures.frozen_accuracy
    if accuracy is not None:
        if frozen is None:
            return None
        of_original = None if original is None else _accuracy(original)
        goal = None if of_original is None else of_original.value
        as_good = _holds(frozen.value, accuracy, figures.gain_over_frozen)
        untold = as_good
        if original is not None and of_original is not None:
            untold = _holds(frozen.value, of_original, original.gain_over_frozen)
        return Control("accuracy", accuracy.value, frozen.value, goal, as_good, untold)
    if figures.frozen_error is not None:
        return _of_errors(figures, original, figures.frozen_error)
    if figures.fidelity is not None and figures.frozen_fidelity is not None:
        same, held = figures.fidelity, figures.frozen_fidelity
        goal = None if original is None else 1.0
        return Control("fidelity", same, held, goal, held >= same - TOLERANCE, held >= 1 - TOLERANCE)
    return None


def said_of(control: Control, model: str) -> tuple[str, str]:
    """What a headline says in place of a saving, and why, where no saving can be told."""
    an = "an" if control.what[0] in "ae" else "a"
    held = f"a network that never updates has {an} {control.what} of {control.said(control.frozen)}"
    if control.untold:
        original = "" if control.as_good or control.goal is None else f", the original {share(control.goal)}"
        return (
            "These videos cannot tell what is saved",
            f"the answer hardly changes in them, and {held}{original}, the {model} model "
            f"{control.said(control.reached)}",
        )
    assert control.goal is not None
    goal = f", the original {control.said(control.goal)}"
    return f"The {model} model hardly updates", f"{held}, the {model} model {control.said(control.reached)}{goal}"


def doubt(report: Report) -> str:
    """Why the costs of a report say nothing; empty where they do.

    A network that never updates costs nothing: where it is as good, a low cost is no merit. Nor is it where the
    original does not work.
    """
    if report.reference is not None and report.reference.broken:
        return f"the {report.reference.model} model does not work on these videos ({quality_of(report.reference)})"
    control = control_of(report)
    if control is None or not control.says_nothing:
        return ""
    if not control.as_good and control.goal is not None:
        reached = f"{control.what} {control.said(control.frozen)} against {control.said(control.goal)}"
        return f"a network that never updates is as good as the original on these videos ({reached})"
    reached = f"{control.what} {control.said(control.frozen)} against {control.said(control.reached)}"
    return f"a network that never updates is as good on these videos ({reached})"


def quality_of(reference: Reference) -> str:
    """What the original was found to be worth before anything was measured, in words."""
    if reference.value is None or reference.chance is None:
        return "its answers are constant"
    return f"{reference.judged_by} {share(reference.value)}, a constant answer {share(reference.chance)}"


def _of_scores(figures: Figures, original: Figures | None) -> Control | None:
    """The tolerance is a share of the score, which has a unit of its own."""
    score, frozen = figures.score, figures.frozen_score
    if score is None or frozen is None:
        return None
    goal = None if original is None or original.score is None else original.score.value
    tolerance = TOLERANCE * max(abs(score.value), abs(goal or 0.0))
    as_good = frozen.value >= score.value - tolerance
    untold = as_good if goal is None else frozen.value >= goal - tolerance
    return Control("score", score.value, frozen.value, goal, as_good, untold)


def _of_errors(figures: Figures, original: Figures | None, frozen: float) -> Control | None:
    reached = figures.label_error if figures.label_error is not None else figures.relative_error
    if reached is None:
        return None
    goal = None
    if original is not None:
        if figures.label_error is None:
            goal = 0.0
        elif (goal := original.label_error) is None:
            return None
    as_good = frozen <= reached + TOLERANCE
    untold = as_good if goal is None else frozen <= goal + TOLERANCE
    return Control("error", reached, frozen, goal, as_good, untold)


def _accuracy(figures: Figures) -> Estimate | None:
    return figures.frame_accuracy or figures.window_accuracy


def _holds(frozen: float, accuracy: Estimate, gain: Estimate | None) -> bool:
    """Whether the control is as good as this accuracy, or cannot be told from it: by the paired gain, where known."""
    within = frozen >= accuracy.low if gain is None else gain.low <= 0
    return frozen >= accuracy.value - TOLERANCE or within
