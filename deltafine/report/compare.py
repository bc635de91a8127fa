"""Two reports against each other, figure by figure and layer by layer.

Only reports of the same videos and of the same definitions can be compared; anything else needs `force`, and says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deltafine.document.report import LayerFigures, Report
from deltafine.errors import DeltafineError
from deltafine.report.control import doubt
from deltafine.report.quantities import FEEDINGS, Feeding, Quantity, figures_of, quantities_of, subject
from deltafine.report.summary import pairs
from deltafine.report.text import ABSENT, clean, points, share

Verdict = Literal["better", "worse", "same", ""]


@dataclass(frozen=True)
class Difference:
    """One figure of the subject model, in the baseline (`before`) and in the report (`after`)."""

    quantity: Quantity
    feeding: Feeding
    before: float | None
    after: float | None
    judged: bool = True  # False of costs where a network that never updates is as good

    @property
    def change(self) -> float | None:
        """after - before, in the figure's own unit."""
        return None if self.before is None or self.after is None else self.after - self.before

    @property
    def verdict(self) -> Verdict:
        """Whether the change is an improvement; empty where it is neither, cannot be judged or was not measured."""
        if self.change is None or self.quantity.better is None or not self.judged:
            return ""
        if self.change == 0:
            return "same"
        return "better" if (self.change < 0) == (self.quantity.better == "lower") else "worse"

    @property
    def shown_change(self) -> str:
        """Accuracies in points, everything else relative to the baseline."""
        if self.quantity.group == "Accuracy":
            return ABSENT if self.change is None else f"{points(self.change)} points"
        return relative(self.before, self.after)


@dataclass(frozen=True)
class LayerDifference:
    """Effective MACs per frame and MAC density of one layer on streams; None where one side lacks the layer."""

    name: str
    macs_before: float | None
    macs_after: float | None
    density_before: float | None
    density_after: float | None

    @property
    def shown_change(self) -> str:
        return relative(self.macs_before, self.macs_after)


@dataclass(frozen=True)
class Comparison:
    """The subject model of a report against that of one baseline; ``doubts`` say why costs cannot be compared."""

    baseline: str
    model_before: str
    model_after: str
    obstacles: tuple[str, ...]
    differences: tuple[Difference, ...]
    layers: tuple[LayerDifference, ...]
    doubts: tuple[str, ...] = ()

    def of(self, feeding: Feeding) -> list[Difference]:
        return [difference for difference in self.differences if difference.feeding == feeding]


def relative(before: float | None, after: float | None) -> str:
    """A change relative to `before`: -12.3%, 0.0%, or in words where there is nothing to divide by."""
    if before is None or after is None:
        return ABSENT
    if before == after:
        return "0.0%"
    return f"{'+' if after > before else ''}{share((after - before) / abs(before))}" if before else "from 0"


def obstacles(report: Report, baseline: Report) -> list[str]:
    """Why the figures of two reports do not mean the same thing; empty where they can be compared."""
    found = []
    if report.score and baseline.score and report.score != baseline.score:
        names = f"{clean(baseline.score.name)} and {clean(report.score.name)}"
        same = report.score.name == baseline.score.name
        found.append(f"their scores are different functions ({names}{', whose file has changed' if same else ''})")
    if report.definitions != baseline.definitions:
        found.append(f"the figures are defined differently ({baseline.definitions} and {report.definitions})")
    now, then = report.stream_data or report.data, baseline.stream_data or baseline.data
    if now.fingerprint != then.fingerprint:
        found.append(f"the streams come from different videos ({clean(then.path)} and {clean(now.path)})")
    elif report.data.fingerprint != baseline.data.fingerprint:
        found.append(
            f"the clips come from different videos ({clean(baseline.data.path)} and {clean(report.data.path)})"
        )
    else:
        for feeding in FEEDINGS:
            frames_now = figures_of(report, subject(report), feeding).frames
            frames_then = figures_of(baseline, subject(baseline), feeding).frames
            if frames_now != frames_then:
                found.append(f"different numbers of frames were measured on {feeding} ({frames_then} and {frames_now})")
                break
        videos_now, videos_then = (figures_of(one, subject(one), "streams").videos for one in (report, baseline))
        if videos_now != videos_then and not found:
            found.append(f"the same frames were measured as {videos_then} and as {videos_now} streams")
    return found


def compare(report: Report, baseline: Report, name: str, force: bool = False) -> Comparison:
    """Compare the subject models of two reports; `name` says which baseline this is.

    Raises DeltafineError where data or definitions differ, unless `force`.
    """
    reasons = obstacles(report, baseline)
    if reasons and not force:
        raise DeltafineError(
            f"{clean(name)} cannot be compared with this report because {' and '.join(reasons)}: measure both on the "
            "same videos with one version of deltafine, or give --force to compare nevertheless."
        )
    before, after = subject(baseline), subject(report)
    doubts = tuple(
        f"The costs of {whose} say nothing, since {why}."
        for whose, why in (("the baseline", doubt(baseline)), ("this report", doubt(report)))
        if why
    )
    differences = []
    for feeding in FEEDINGS:
        then, now = figures_of(baseline, before, feeding), figures_of(report, after, feeding)
        for quantity in quantities_of(then, now):
            if quantity.group == "Measured on":
                continue  # equal, or an obstacle
            judged = not (doubts and quantity.of_updates)
            difference = Difference(quantity, feeding, quantity.point(then), quantity.point(now), judged)
            if quantity.rare and not (difference.before or difference.after):
                continue
            if difference.before is not None or difference.after is not None:
                differences.append(difference)
    layers = [
        _layer_difference(layer, entries.get("before"), entries.get("after"))
        for layer, entries in pairs(
            {
                "before": figures_of(baseline, before, "streams").layers,
                "after": figures_of(report, after, "streams").layers,
            }
        )
    ]
    return Comparison(name, before, after, tuple(reasons), tuple(differences), tuple(layers), doubts)


def _layer_difference(name: str, before: LayerFigures | None, after: LayerFigures | None) -> LayerDifference:
    return LayerDifference(
        name,
        before.effective_macs_delta if before else None,
        after.effective_macs_delta if after else None,
        before.mac_density if before else None,
        after.mac_density if after else None,
    )
