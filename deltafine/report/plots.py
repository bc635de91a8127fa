"""Line and dot plots as inline SVG that follows the page's colours, so that light, dark and print need one drawing.

Drawn by hand because a plotting library takes a second to load, and draws colours and sizes that a page cannot change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup, escape

from deltafine.document.report import Epoch, FrontPoint, Report
from deltafine.report.control import judged_by, of_epoch
from deltafine.report.plot_labels import NamedLevel, NamedPoint, labels
from deltafine.report.text import judged, share, significant

WIDTH, HEIGHT = 420, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 12, 10, 40
_DECADES = 4
"""Up to which a logarithmic scale has ticks within a power of ten."""


@dataclass(frozen=True)
class Series:
    """Points in data units; `colour` is one of the page's colour classes; notes are shown on hovering and touching;
    `name` is written beside the first point."""

    label: str
    points: Sequence[tuple[float, float]]
    colour: str
    line: bool = True
    notes: Sequence[str] = ()
    big: frozenset[int] = frozenset()
    name: str = ""


@dataclass(frozen=True)
class Level:
    """A horizontal line to compare with."""

    label: str
    value: float
    colour: str


@dataclass(frozen=True)
class Plot:
    """A finished drawing with what to write around it."""

    key: str
    title: str
    drawing: Markup
    legend: Sequence[tuple[str, str]]
    note: str = ""


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) that lie within the range, at most `most` + 1 of them."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, or these powers alone, between the powers `low` and `high` of ten."""
    powers = range(max(-300, math.floor(low)), min(300, math.ceil(high)) + 1)
    few = high - low <= _DECADES
    found = [
        factor * 10.0**power
        for power in powers[:: 1 if few else len(powers) // _DECADES + 1]
        for factor in (1, 2, 5)[: 3 if few else 1]
    ]
    return [one for one in found if low - 1e-9 <= math.log10(one) <= high + 1e-9]


def _span(values: Iterable[float], from_zero: bool) -> tuple[float, float]:
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if from_zero:
        low = min(low, 0.0)
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return (low if from_zero and low == 0 else low - room), high + room


def draw(
    description: str,
    series: Sequence[Series],
    x_label: str,
    levels: Sequence[Level] = (),
    x_text: Callable[[float], str] = significant,
    y_text: Callable[[float], str] = significant,
    x_from_zero: bool = False,
    y_from_zero: bool = False,
    whole_x: bool = False,
    x_log: bool = False,
    y_label: str = "",
) -> Markup:
    """One plot, with ``y_label`` along its vertical axis.

    Points that are not finite are left out, and break the line; so are those not above 0 with `x_log`.
    """
    if x_log:
        series = [replace(one, points=[(x if x > 0 else math.nan, y) for x, y in one.points]) for one in series]
    scale = math.log10 if x_log else float
    x_low, x_high = _span((scale(x) for one in series for x, _ in one.points), x_from_zero)
    y_low, y_high = _span(
        [*(y for one in series for _, y in one.points), *(level.value for level in levels)], y_from_zero
    )

    def across(x: float) -> float:
        return round(_LEFT + (scale(x) - x_low) / (x_high - x_low) * (WIDTH - _LEFT - _RIGHT), 1)

    def down(y: float) -> float:
        return round(HEIGHT - _BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - _TOP - _BOTTOM), 1)

    parts = [
        Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, HEIGHT, description)
    ]
    for y in ticks(y_low, y_high):
        parts.append(
            Markup('<line class="rule" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                _LEFT, WIDTH - _RIGHT, down(y), down(y)
            )
        )
        parts.append(
            Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(_LEFT - 6, down(y) + 4, y_text(y))
        )
    for x in log_ticks(x_low, x_high) if x_log else ticks(x_low, x_high, 6):
        if whole_x and not float(x).is_integer():
            continue
        parts.append(
            Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(
                across(x), HEIGHT - _BOTTOM + 17, x_text(x)
            )
        )
    parts.append(
        Markup('<text class="axis" x="{}" y="{}" text-anchor="middle">{}</text>').format(
            (_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 5, x_label
        )
    )
    if y_label:
        middle = (_TOP + HEIGHT - _BOTTOM) / 2
        parts.append(
            Markup('<text class="axis" text-anchor="middle" transform="translate(11 {}) rotate(-90)">{}</text>').format(
                middle, y_label
            )
        )
    for level in levels:
        if math.isfinite(level.value):
            parts.append(
                Markup('<line class="level {}" x1="{}" x2="{}" y1="{}" y2="{}"><title>{}: {}</title></line>').format(
                    level.colour,
                    _LEFT,
                    WIDTH - _RIGHT,
                    down(level.value),
                    down(level.value),
                    level.label,
                    y_text(level.value),
                )
            )
    for one in series:
        parts.extend(_drawn(one, across, down, x_text, y_text))
    there = [
        (one, number, across(x), down(y))
        for one in series
        for number, (x, y) in enumerate(one.points)
        if math.isfinite(x) and math.isfinite(y)
    ]
    named = [NamedPoint(x, y, one.name, one.colour) for one, number, x, y in there if one.name and number == 0]
    lines = [NamedLevel(down(one.value), one.label, one.colour) for one in levels if math.isfinite(one.value)]
    inside = (_LEFT, 0.0, WIDTH - 2.0, float(HEIGHT - _BOTTOM))
    parts.extend(labels(named, inside, [(x, y) for _, _, x, y in there], lines))
    parts.append(Markup("</svg>"))
    return Markup("").join(parts)


def _drawn(
    series: Series,
    across: Callable[[float], float],
    down: Callable[[float], float],
    x_text: Callable[[float], str],
    y_text: Callable[[float], str],
) -> list[Markup]:
    parts = []
    if series.line:
        pieces: list[list[str]] = [[]]
        for x, y in series.points:
            if math.isfinite(x) and math.isfinite(y):
                pieces[-1].append(f"{across(x)},{down(y)}")
            else:
                pieces.append([])
        parts += [
            Markup('<polyline class="{}" points="{}"/>').format(series.colour, " ".join(piece))
            for piece in pieces
            if len(piece) > 1
        ]
    for index, (x, y) in enumerate(series.points):
        if not (math.isfinite(x) and math.isfinite(y)):
            continue
        note = series.notes[index] if index < len(series.notes) else f"{series.label}: {x_text(x)}, {y_text(y)}"
        parts.append(
            Markup('<circle class="{}{}" cx="{}" cy="{}" r="{}"><title>{}</title></circle>').format(
                series.colour,
                " big" if index in series.big else "",
                across(x),
                down(y),
                6.5 if index in series.big else 3,
                escape(note),
            )
        )
    return parts


def plots(report: Report) -> list[Plot]:
    """The plots of training that this report has the numbers for: the front, then the curves."""
    return [*_front(report), *_curves(report.history, judged_by(report))]


def front_is_comparable(report: Report) -> bool:
    """Training watches the streams of `data`: what was measured on other streams does not belong beside it."""
    return "original" in report.models and report.stream_data is None


def _front(report: Report) -> list[Plot]:
    front = report.front
    if not front:
        return []
    what, levels = judged_by(report), []
    original = report.models["original"].streams if front_is_comparable(report) else None
    if original is not None:
        by = {"score": original.score, "accuracy": original.frame_accuracy}
        frozen = {"score": original.frozen_score, "accuracy": original.frozen_accuracy}
        for label, known, colour in (("original model", by, "original"), ("never updating", frozen, "control")):
            if (level := known.get(what)) is not None:
                levels.append(Level(label, level.value, colour))
    series = Series(
        "checkpoint",
        [(point.mac_density, of_epoch(point.accuracy, what)) for point in front],
        "refined",
        line=False,
        notes=[front_note(point, what) for point in front],
        big=frozenset(index for index, point in enumerate(front) if point.chosen),
    )
    return [
        Plot(
            "front",
            f"{what.capitalize()} against MACs, checkpoint by checkpoint",
            draw(
                f"{what.capitalize()} against MAC density of every checkpoint",
                [series],
                "MAC density on streams",
                levels,
                share,
                lambda quality: judged(quality, what),
                x_from_zero=True,
                y_label=what,
            ),
            [("refined", "epoch or calibrated (large: chosen)"), *((level.colour, level.label) for level in levels)],
        )
    ]


def front_note(point: FrontPoint, what: str) -> str:
    """What is shown on hovering over a checkpoint."""
    chosen = ", chosen" if point.chosen else ""
    name = f"epoch {point.epoch}" if point.divergence is None else f"calibrated, {significant(point.divergence)} nats"
    return (
        f"{name}{chosen}: {what} {judged(of_epoch(point.accuracy, what), what)}, "
        f"MAC density {share(point.mac_density)}, pixel density {share(point.pixel_density)}, "
        f"λ {significant(point.penalty)}"
    )


def _curves(history: Sequence[Epoch], what: str) -> list[Plot]:
    if not history:
        return []
    validated = ("validation_accuracy", "validation", "refined")
    curves: list[tuple[str, str, Callable[[float], str], tuple[tuple[str, str, str], ...]]] = [
        (
            "accuracy",
            what.capitalize(),
            lambda quality: judged(quality, what),
            (validated,) if what == "score" else (("accuracy", "training", "calibrated"), validated),
        ),
        (
            "density",
            "Density on validation streams",
            share,
            (("validation_mac_density", "MACs", "refined"), ("validation_pixel_density", "pixels", "calibrated")),
        ),
        (
            "loss",
            "Loss",
            significant,
            (
                ("loss", "total", "original"),
                ("task_loss", "task", "refined"),
                ("penalty_loss", "penalty", "calibrated"),
            ),
        ),
    ]

    def read(epoch: Epoch, field: str) -> float:
        value: float = getattr(epoch, field)
        return of_epoch(value, what) if field == "validation_accuracy" else value

    found = []
    for key, title, y_text, lines in curves:
        series = [
            Series(label, [(e.epoch, read(e, field)) for e in history if getattr(e, field) is not None], colour)
            for field, label, colour in lines
        ]
        series = [one for one in series if one.points]
        if series:
            drawing = draw(
                f"{title} by epoch",
                series,
                "epoch",
                (),
                _whole,
                y_text,
                y_from_zero=key != "accuracy",
                whole_x=True,
            )
            found.append(Plot(key, f"{title} by epoch", drawing, [(one.colour, one.label) for one in series]))
    return found


def _whole(value: float) -> str:
    return f"{value:.0f}"
