"""Threshold health: whether the delta layers of a report do their work, in figures and in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from deltafine.document.report import DeltaFigures, Report
from deltafine.report.quantities import figures_of, subject
from deltafine.report.text import counted, share

MANY_CHANNELS = 0.5
FAR = 10.0
SMALL_LAYER = 0.01
"""Layers below this share of the MACs are not worth a warning."""


def movement(report: Report) -> dict[str, float]:
    """Median threshold of the refined model / the one that training started from, by delta layer; where it is known.

    The calibrated model stands beside in other thresholds: they spend what calibration alone may.
    """
    if "refined" not in report.models:
        return {}
    before = report.start_thresholds
    return {
        delta.name: delta.threshold_median / before[delta.name]
        for delta in report.models["refined"].streams.deltas
        if before.get(delta.name)
    }


def health_cautions(report: Report) -> list[str]:
    """What is wrong with the delta layers of the subject model on streams."""
    figures = figures_of(report, subject(report), "streams")
    moved = movement(report) if subject(report) == "refined" else {}

    def named(ill: Callable[[DeltaFigures], bool]) -> str:
        return listed(delta.name for delta in figures.deltas if ill(delta))

    found = []
    if names := named(lambda delta: delta.silent_channels == 1):
        found.append(f"Delta layers that never fired after the first frame: {names}.")
    if names := named(lambda delta: MANY_CHANNELS <= delta.silent_channels < 1):
        found.append(
            f"At least half of the channels never fired in {names}: they are dead, or their thresholds too large."
        )
    if names := named(lambda delta: delta.saturated_channels >= MANY_CHANNELS):
        found.append(
            f"At least half of the channels fired everywhere in every frame in {names}: their thresholds are too small "
            "to save anything."
        )
    if names := named(lambda delta: bool(delta.thresholds_at_floor)):
        found.append(f"Thresholds at their floor, so that every change is sent: {names}.")
    if names := named(lambda delta: not 1 / FAR <= moved.get(delta.name, 1.0) <= FAR):
        found.append(f"Training moved the thresholds more than {FAR:.0f} times away from where it started: {names}.")
    dense = sum(layer.dense_macs for layer in figures.layers)
    losing = [
        layer
        for layer in figures.layers
        if layer.break_even_density is not None
        and layer.delta_density > layer.break_even_density
        and layer.dense_macs >= SMALL_LAYER * dense
    ]
    if losing and figures.deltas:
        lost = sum(layer.dense_macs for layer in losing) / dense
        found.append(
            f"In {counted(len(losing), 'layer')} with {share(lost)} of the MACs more changes than the break-even "
            "density, so that the overhead of delta inference exceeds its saving: "
            f"{listed(layer.name for layer in losing)}."
        )
    return found


def listed(names: Iterable[str], most: int = 4) -> str:
    """A few names in a sentence: a, b, c and 7 more."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
