"""The frames at which the subject model is worst, as a table: the page shows their pictures."""

from __future__ import annotations

from deltafine.document.report import Report
from deltafine.report.figure_table import FigureTable
from deltafine.report.quantities import figures_of, subject
from deltafine.report.text import ABSENT, clean, significant
from deltafine.report.whom import class_name


def worst_answers(report: Report) -> list[FigureTable]:
    """One table; none where no frame is named, as in reports of earlier versions."""
    model = subject(report)
    figures = figures_of(report, model, "streams")
    numbers = figures.label_error is not None or figures.relative_error is not None

    def said(answer: float | None) -> str:
        if answer is None:
            return ABSENT
        return significant(answer) if numbers else clean(class_name(report, int(answer)))

    lines = [
        (one.video, str(one.frame), said(one.truth), said(one.original), said(one.answer), significant(one.lost, 2))
        for one in figures.worst_answers
    ]
    headings = ("video", "frame", "right", "original", model, "lost")
    return [FigureTable("Worst answers (streams)", headings, lines, 1)] if lines else []
