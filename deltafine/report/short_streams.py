"""Streams so short that their first frames are most of the cost: they cannot tell what is saved on longer video."""

from __future__ import annotations

import statistics

from deltafine.document.figures import Figures
from deltafine.document.report import Report
from deltafine.report.quantities import figures_of, subject
from deltafine.report.text import share

MOST_OF_FIRST = 0.5
"""Share of the cost that first frames may have."""


def first_frames_share(figures: Figures, window: int | None) -> float:
    """Of the MACs of a model on streams: what the first frames take, or the first clips; each counts as dense."""
    whole = figures.operations.mac_density_with_first * figures.frames / (window or 1)
    return min(1.0, figures.videos / whole) if whole > 0 else 0.0


def why_untold(report: Report) -> str:
    """Why such streams cannot tell what is saved; empty where they can, or labels change within them."""
    figures = figures_of(report, subject(report), "streams")
    lengths = [one.frames for one in figures.by_video if one.labelled]
    part = first_frames_share(figures, report.model.window)
    if not lengths or part < MOST_OF_FIRST or any(one.label_changes for one in figures.by_video):
        return ""
    return (
        f"half of them have at most {statistics.median(lengths):.0f} frames, the label never changes in one, and their "
        f"first frames, which are computed whole, take {share(part)} of the MACs; --streams measures on whole "
        "recordings"
    )
