"""Quality and cost against the number that all thresholds are multiplied with, as every way to show a report has it."""

from __future__ import annotations

from deltafine.document.report import Report
from deltafine.report.figure_table import FigureTable
from deltafine.report.text import clean, counted, judged, share


def sensitivity_tables(report: Report) -> list[FigureTable]:
    """One of two lines, with a column for each number; none where it was not measured."""
    curve = report.sensitivity
    if curve is None:
        return []
    found = FigureTable(
        f"All thresholds times a number ({clean(curve.model)} model, {counted(curve.frames, 'frame')} of "
        f"{counted(curve.videos, 'stream')})",
        ("times", *(f"{point.sensitivity:g}" for point in curve.points)),
        [
            (curve.judged_by, *(judged(point.quality, curve.judged_by) for point in curve.points)),
            ("MACs", *(share(point.mac_density) for point in curve.points)),
        ],
    )
    return [found]
