"""A stream from its first frame to its last: what was right, what was answered, and what it cost, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby

from markupsafe import Markup

from deltafine.document.figures import Timeline
from deltafine.document.report import Report
from deltafine.report.plots import Plot
from deltafine.report.quantities import figures_of, subject
from deltafine.report.text import clean, share, significant
from deltafine.report.whom import class_name

COLOURS = 8
"""Classes with a colour of their own; others have that of a class so many before."""
WIDTH = 420
_LEFT, _RIGHT = 62, 12
_ROW, _LINES, _MACS, _BOTTOM = 14, 70, 46, 34
"""Heights: of a row of classes, of lines of numbers, of the MACs, and of what is written below."""


def timelines(report: Report) -> list[Plot]:
    """Those of the subject model; none in reports of earlier versions."""
    name = subject(report)
    found = []
    for number, one in enumerate(figures_of(report, name, "streams").timelines):
        rows = [("right", one.truth), ("original", one.original), (name, one.answers)]
        if one.truth == one.original:  # without labels
            rows = rows[1:]
        rows = [(label, values) for label, values in rows if any(value is not None for value in values)]
        numbers = report.score is None and _are_numbers(report)
        drawing, legend = _drawn(report, name, one, rows, numbers)
        each = "" if one.each == 1 else f"; a point stands for {one.each} frames"
        found.append(Plot(f"timeline-{number + 1}", clean(one.video), drawing, legend, f"{one.frames} frames{each}"))
    return found


def _are_numbers(report: Report) -> bool:
    figures = figures_of(report, subject(report), "streams")
    return figures.label_error is not None or figures.relative_error is not None


def _drawn(
    report: Report, name: str, one: Timeline, rows: Sequence[tuple[str, Sequence[float | None]]], numbers: bool
) -> tuple[Markup, list[tuple[str, str]]]:
    inner = WIDTH - _LEFT - _RIGHT
    points = len(one.macs)

    def across(point: float) -> float:
        return round(_LEFT + inner * point / points, 1)

    answers = _LINES if numbers and rows else _ROW * len(rows)
    height = answers + 10 + _MACS + _BOTTOM
    title = f"{one.video}: answers and MACs of the {name} model, frame by frame"
    parts = [
        Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, height, clean(title))
    ]
    legend: list[tuple[str, str]] = []
    if numbers and rows:
        parts += _lines(rows, across, answers)
        legend = [(_line_colour(label), label) for label, _ in rows]
    else:
        for row, (label, values) in enumerate(rows):
            parts += _row(report, label, values, across, row * _ROW)
        seen = sorted({int(value) for _, values in rows for value in values if value is not None})
        legend = [(f"class{index % COLOURS}", clean(class_name(report, index))) for index in seen[:COLOURS]]
    parts += _area(one, across, answers + 10, name)
    for x, text, anchor in ((_LEFT, "frame 0", "start"), (WIDTH - _RIGHT, f"{one.frames - 1}", "end")):
        parts.append(Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(x, height - 18, anchor, text))
    parts.append(Markup("</svg>"))
    return Markup("").join(parts), [*legend, ("macs", "MACs")]


def _row(
    report: Report, label: str, values: Sequence[float | None], across: Callable[[float], float], top: float
) -> list[Markup]:
    parts = [Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(_LEFT - 6, top + 10, clean(label)[:10])]
    begin = 0
    for value, run in groupby(values):
        end = begin + len(list(run))
        if value is not None:
            named = f"{clean(label)}: {clean(class_name(report, int(value)))}, points {begin} to {end - 1}"
            parts.append(
                Markup('<rect class="class{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>').format(
                    int(value) % COLOURS, across(begin), top, max(0.3, round(across(end) - across(begin), 1)), 11, named
                )
            )
        begin = end
    return parts


def _line_colour(label: str) -> str:
    """Of lines of numbers: the model's own is the refined one's."""
    return {"right": "control", "original": "original"}.get(label, "refined")


def _lines(
    rows: Sequence[tuple[str, Sequence[float | None]]], across: Callable[[float], float], height: float
) -> list[Markup]:
    known = [value for _, values in rows for value in values if value is not None and math.isfinite(value)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    spread = high - low or 1.0
    parts = [
        Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(_LEFT - 6, place, significant(value))
        for place, value in ((8, high), (height - 1, low))
    ]
    for label, values in rows:
        colour = _line_colour(label)
        for is_there, run in groupby(enumerate(values), key=lambda pair: pair[1] is not None):
            drawn = [
                f"{across(point + 0.5)},{round(2 + (high - value) / spread * (height - 4), 1)}"
                for point, value in run
                if value is not None and math.isfinite(value)
            ]
            if is_there and drawn:
                parts.append(Markup('<polyline class="thin {}" points="{}"/>').format(colour, " ".join(drawn)))
    return parts


def _area(one: Timeline, across: Callable[[float], float], top: float, name: str) -> list[Markup]:
    """The MACs; the scale ends at the dearest point but the first, which is dense."""
    most = max(one.macs[1:], default=1.0) or 1.0
    corners = [f"{_LEFT},{top + _MACS}"]
    for point, macs in enumerate(one.macs):
        y = round(top + _MACS * (1 - min(1.0, macs / most)), 1)
        corners += [f"{across(point)},{y}", f"{across(point + 1)},{y}"]
    corners.append(f"{WIDTH - _RIGHT},{top + _MACS}")
    note = f"MACs of the {clean(name)} model: at most {share(most)} of dense after the first point"
    return [
        Markup('<polygon class="macs" points="{}"><title>{}</title></polygon>').format(" ".join(corners), note),
        Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(_LEFT - 6, top + 9, share(most)),
        Markup('<text x="{}" y="{}" text-anchor="end">MACs</text>').format(_LEFT - 6, top + _MACS),
    ]
