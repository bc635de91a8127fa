"""The subject model beside the original held, in equal time: where `deltafine bench` has measured times."""

from __future__ import annotations

import math
from dataclasses import dataclass

from deltafine.document.report import Report, RuntimeTimes, Timing
from deltafine.report.holding import EqualCost, compared_with, held_curve
from deltafine.report.quantities import subject
from deltafine.report.text import clean, share, significant, times

IN_FLOAT32 = "deltafine float32"
"""What the delta runtime is called beside the same in int8."""


@dataclass(frozen=True)
class EqualTime:
    """The delta runtime on every frame, and the fastest dense runtime on every k-th that takes as long per frame.

    Attributes:
        runtime: the dense one, with its version.
        milliseconds: per frame, of the delta runtime: median.
        compared: the subject model and the original held; ``dearer`` is in time.
        faster: whether the dense runtime takes less time on every frame; then this share of it.
    """

    runtime: str
    milliseconds: float
    compared: EqualCost
    faster: float | None

    @property
    def sentence(self) -> str:
        """In one line, whichever is better."""
        time, dearer = f"{significant(self.milliseconds)} ms per frame", self.compared.dearer
        if self.faster is not None:
            when = f"In {share(self.faster)} of the time of deltafine ({time})"
        elif dearer > 1:
            when = f"In {times(dearer)} the time of deltafine ({time})"
        else:
            when = f"In the same time ({time})"
        return f"{when}, {clean(self.runtime)} runs {self.compared.reaches}"


def equal_time(report: Report) -> EqualTime | None:
    """The comparison; None where times or held answers were not measured, or the subject is the original."""
    timing, curve = _timing(report), held_curve(report)
    if timing is None or not curve or subject(report) == "original":
        return None
    ours, others = _ours(timing), [one for one in timing.runtimes[1:] if one.name != IN_FLOAT32]
    dense = min(others, key=lambda one: one.p50 if math.isfinite(one.p50) else math.inf, default=None)
    if dense is None or not (ours.p50 > 0 and dense.p50 > 0):
        return None
    compared = compared_with(report, ours.p50 / dense.p50)
    faster = dense.p50 / ours.p50
    return (
        None
        if compared is None
        else EqualTime(dense.name, ours.p50, compared, faster if faster < 1 and round(faster, 3) < 1 else None)
    )


def _timing(report: Report) -> Timing | None:
    """Of every frame, with the fewest threads; of these the last one."""
    whole = [timing for timing in report.timings if timing.every == 1]
    return min(reversed(whole), key=lambda timing: timing.threads, default=None)


def _ours(timing: Timing) -> RuntimeTimes:
    """The delta runtime in float32, in which the model's answers were measured; it stands beside one in int8."""
    return next((one for one in timing.runtimes if one.name == IN_FLOAT32), timing.runtimes[0])
