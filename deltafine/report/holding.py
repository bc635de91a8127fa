"""The subject model beside simpler ways to save: the original on every k-th frame, and behind a motion gate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from deltafine.document.controls import TrainedControl
from deltafine.document.report import Report
from deltafine.report.figure_table import FigureTable
from deltafine.report.quantities import figures_of, subject
from deltafine.report.text import ABSENT, clean, judged, points, share, significant, times


@dataclass(frozen=True)
class EqualCost:
    """The subject model and the original held for as many frames as make it as cheap, in MACs or in time.

    Attributes:
        model: the subject.
        judged_by: accuracy, error, fidelity or score.
        reached: by the subject model.
        held: by the original; interpolated between the measured k on a logarithmic scale of the cost.
        frames: k.
        dearer: the cost of the original held / that of the model; above 1 where the model costs less than the largest
            k that was measured.
        interpolated: whether this k was not measured.
        noun: what is held; a clip of a network that takes clips.
    """

    model: str
    judged_by: str
    reached: float
    held: float
    frames: float
    dearer: float
    interpolated: bool
    noun: str

    @property
    def gain(self) -> float:
        """What the model is better by: accuracy or fidelity, as a share; a score; of errors, the share of the held
        one."""
        if self.judged_by != "error":
            return self.reached - self.held
        if self.held == 0:
            return 0.0 if self.reached == 0 else -math.inf
        return 1 - self.reached / self.held

    @property
    def sentence(self) -> str:
        """At equal MACs in one line, whichever is better."""
        cost = f"With {times(self.dearer)} the MACs" if self.dearer > 1 else "At the same MACs"
        if not math.isfinite(self.dearer):
            cost = f"With {share(1 / self.frames)} of the dense MACs"
        return f"{cost}, {self._original(' has')}"

    @property
    def reaches(self) -> str:
        """What the original reaches at this cost, as the object of a sentence."""
        return self._original(":")

    def _original(self, verb: str) -> str:
        k = significant(self.frames, 2) if self.interpolated and self.frames < 10 else f"{self.frames:.0f}"
        held = "itself" if self.frames == 1 else f"held for {k} {self.noun}s"
        return f"the original {held}{verb} {self._reached}"

    @property
    def _reached(self) -> str:
        article = "an" if self.judged_by == "error" else "a"
        an = "" if self.judged_by == "accuracy" else f"{article} {self.judged_by} of "
        how = "; interpolated in log cost" if self.interpolated else ""
        return f"{an}{judged(self.held, self.judged_by)} ({self._difference}{how})"

    @property
    def _difference(self) -> str:
        if self.judged_by == "error":
            if not math.isfinite(self.gain):
                return f"the {self.model} model {share(self.reached)}"
            return (
                f"that of the {self.model} model is {share(abs(self.gain))} {'lower' if self.gain >= 0 else 'higher'}"
            )
        if self.judged_by == "score":
            return f"{significant(abs(self.gain))} {'less' if self.gain >= 0 else 'more'}"
        return f"{points(abs(self.gain)).lstrip('+')} points {'less' if self.gain >= 0 else 'more'}"


def held_curve(report: Report) -> list[tuple[int, float]]:
    """(k, quality) of the original, from k = 1 on; empty where it was not measured."""
    controls, original = report.controls, report.models.get("original")
    if controls is None or original is None or not controls.held:
        return []
    itself = controls.quality_of(original.streams)
    if itself is None:  # it is what others are compared with
        itself = 1.0 if controls.judged_by == "fidelity" else 0.0
    return [(1, itself), *((point.every, point.quality) for point in controls.held)]


def equal_macs(report: Report) -> EqualCost | None:
    """The comparison; None where the subject is the original, or one of both was not measured."""
    return compared_with(report, figures_of(report, subject(report), "streams").operations.mac_density)


def compared_with(report: Report, cost: float) -> EqualCost | None:
    """The subject model, and the original held so that it costs as much.

    Args:
        report: with held answers; None is returned where it has none.
        cost: of the subject model / of the original on every frame.
    """
    curve, name = held_curve(report), subject(report)
    if report.controls is None or not curve or name == "original":
        return None
    reached = report.controls.quality_of(figures_of(report, name, "streams"))
    if reached is None or not math.isfinite(cost):
        return None
    most, lowest = curve[-1]
    frames, held, dearer, interpolated = float(most), lowest, math.inf if cost <= 0 else 1 / (most * cost), False
    if cost * most >= 1:
        frames, dearer = max(1.0, 1 / cost), 1.0
        held, interpolated = _between(curve, frames)
    noun = "frame" if report.model.window is None else "clip"
    return EqualCost(name, report.controls.judged_by, reached, held, frames, dearer, interpolated, noun)


def _between(curve: Sequence[tuple[int, float]], frames: float) -> tuple[float, bool]:
    """Quality of a held k, and whether it is between two that were measured."""
    for (a, before), (b, after) in pairwise(curve):
        if a <= frames <= b and a < b:
            place = math.log(frames / a) / math.log(b / a)
            return before + place * (after - before), min(place, 1 - place) > 1e-9
    return curve[-1][1], False


def _trained_lines(trained: TrainedControl, said: Callable[[float], str]) -> list[tuple[str, str, str]]:
    held = [(1, trained.quality), *((point.every, point.quality) for point in trained.held)]
    return [(str(every), share(1 / every), said(quality)) for every, quality in held]


def control_tables(report: Report) -> list[FigureTable]:
    """The simpler ways to save, one table each."""
    controls = report.controls
    if controls is None:
        return []
    curve, what, noun = held_curve(report), controls.judged_by, "frame" if report.model.window is None else "clip"

    def said(quality: float) -> str:
        return judged(quality, what)

    held = [
        (str(point.every), share(1 / point.every), said(point.quality), f"{said(point.low)} to {said(point.high)}")
        for point in controls.held
    ]
    if curve:
        held.insert(0, ("1", share(1.0), said(curve[0][1]), ABSENT))
    trained = [] if controls.trained is None else _trained_lines(controls.trained, said)
    gated = [(f"{point.threshold:g}", share(point.share), said(point.quality)) for point in controls.motion_gate]
    refined = [(str(point.every), share(point.mac_density), said(point.quality)) for point in controls.refined_held]
    itself = figures_of(report, subject(report), "streams")
    if refined and (reached := controls.quality_of(itself)) is not None:
        refined.insert(0, ("1", share(itself.operations.mac_density), said(reached)))
    found = [
        FigureTable(f"The original held for k {noun}s (streams)", ("k", "MACs", what, "range over phases"), held),
        FigureTable("The original, trained as long without delta layers (streams)", ("k", "MACs", what), trained),
        FigureTable("The original behind a motion gate (streams)", ("difference above", "MACs", what), gated),
        FigureTable(f"The {subject(report)} model held for k {noun}s (streams)", ("k", "MACs", what), refined),
    ]
    ages = [
        (
            clean(point.model),
            str(point.every),
            str(point.changes),
            ABSENT if point.median is None else f"{point.median:.0f}",
            ABSENT if point.p95 is None else f"{point.p95:.0f}",
            share(point.followed),
        )
        for point in controls.answer_age
    ]
    headings = ("model", "k", "changes", "median", "95%", "followed")
    found.append(
        FigureTable(f"{noun.capitalize()}s until the answer follows a change of the label (streams)", headings, ages)
    )
    return [one for one in found if one.lines]
