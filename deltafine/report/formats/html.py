"""A report as one self-contained page: no network, light and dark, phone and print."""

from __future__ import annotations

import math
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from deltafine.document.report import MODEL_NAMES, Report
from deltafine.report import text, timings
from deltafine.report.compare import Comparison
from deltafine.report.controls_plot import controls_plot, curve_terms, with_checkpoints
from deltafine.report.formats.report_format import ReportFormat
from deltafine.report.gate import Check
from deltafine.report.health import movement
from deltafine.report.holding import control_tables
from deltafine.report.plots import plots
from deltafine.report.quantities import FEEDINGS, columns, figures_of, subject
from deltafine.report.savings import savings
from deltafine.report.sensitivity_table import sensitivity_tables
from deltafine.report.summary import (
    cautions,
    delta_rules,
    deltas_by_name,
    frozen,
    headline,
    layers_by_name,
    rows,
    site_state,
)
from deltafine.report.timelines import timelines
from deltafine.report.whom import listings

if TYPE_CHECKING:
    from jinja2 import Environment


_TITLES = {"streams": "Continuous streams", "clips": "Clips, as in training"}
_SECTIONS = (
    ("gate", "Gate", "checks"),
    ("curve", "Quality against cost", "curve"),
    ("pictures", "Where events happen", "pictures"),
    ("worst", "Worst answers", "worst"),
    ("courses", "Frame by frame", "timelines"),
    ("whom", "Whom it hurts", "parts"),
    ("controls", "Simpler ways to save", "control_tables"),
    ("sensitivity", "Other thresholds", "sensitivity_tables"),
    ("figures", "Figures", ""),
    ("timings", "Times", "timings"),
    ("layers", "Layers", "layers"),
    ("frames", "Worst frames", ""),
    ("plots", "Training", "plots"),
    ("deltas", "Delta layers", "deltas"),
    ("sites", "Activations", "sites"),
    ("problems", "Problems", "problems"),
    ("meanings", "What figures mean", ""),
    ("origin", "Origin", ""),
)
"""Anchors of the page, what a link to them says, and what must be there for them; "" for nothing."""
MOST_PARTS = 200
"""Videos, classes and pairs of classes that are shown; report.json has all."""


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("deltafine.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_typeset,
    )
    environment.filters.update(
        share=text.share,
        points=text.points,
        times=text.times,
        scaled=text.scaled,
        significant=text.significant,
        duration=text.duration,
        clean=text.clean,
        width=bar_width,
        colour=_colour,
    )
    return environment


def _typeset(value: Any) -> Any:
    """Control characters out of every string that the template prints; numbers and markup as they are."""
    return text.clean(value) if type(value) is str else value


def _colour(model: str) -> str:
    """The colour class of a model: each of the three that a run has its own, any other one that of the refined."""
    return model if model in MODEL_NAMES else MODEL_NAMES[-1]


def bar_width(value: float, whole: float = 1.0) -> str:
    """The width of a bar in percent, never wider than its track and never invisible unless 0."""
    if not (math.isfinite(value) and whole > 0) or value <= 0:
        return "0"
    return f"{max(0.5, min(100.0, 100 * value / whole)):.1f}"


def anchor_of(key: str) -> str:
    """Where the page says what a figure means."""
    return f"meaning-{re.sub(r'[^a-z0-9_]+', '-', key)}"


@dataclass(frozen=True)
class FrameCosts:
    """Effective MACs of the median, the 95th percentile and the worst frame of one model."""

    model: str
    median: float
    high: float
    worst: float
    dense: float


class Html(ReportFormat):
    """The page, with everything that it needs inside."""

    name = "html"
    suffix = ".html"
    shows_pictures = True

    def render(
        self,
        document: Report,
        comparisons: Sequence[Comparison] = (),
        checks: Sequence[Check] = (),
        pictures: Mapping[str, bytes] | None = None,
    ) -> str:
        return _page(document, comparisons, checks, pictures or {})


def _page(
    report: Report, comparisons: Sequence[Comparison], checks: Sequence[Check], pictures: Mapping[str, bytes]
) -> str:
    last = subject(report)
    layers = layers_by_name(report, "streams")
    dense = sum(next(iter(entries.values())).dense_macs for _, entries in layers)
    operations = {model: figures_of(report, model, "streams").operations for model in columns(report)}
    controlled = controls_plot(report)
    there = controlled is not None and with_checkpoints(report)
    drawn = [plot for plot in plots(report) if plot.key != "front" or not there]
    curve = controlled or next((plot for plot in drawn if plot.key == "front"), None)
    tables = [(feeding, _TITLES[feeding], rows(report, feeding)) for feeding in FEEDINGS]
    encoded = [
        (picture, b64encode(pictures[picture.file]).decode("ascii"))
        for picture in report.pictures
        if picture.file in pictures
    ]
    shown: dict[str, Any] = {
        "report": report,
        "headline": headline(report),
        "frozen": frozen(report),
        "comparisons": comparisons,
        "checks": checks,
        "shown": text.shown,
        "cautions": cautions(report),
        "columns": columns(report),
        "last": last,
        "tables": tables,
        "meanings": list({row.quantity.key: row.quantity for _, _, of in tables for row in of}.values()),
        "anchor_of": anchor_of,
        "layers": layers,
        "dense": dense,
        "frame_costs": [
            FrameCosts(model, o.frame_macs_p50, o.frame_macs_p95, o.frame_macs_worst, o.dense_macs)
            for model, o in operations.items()
        ],
        "deltas": [(name, entries[last]) for name, entries in deltas_by_name(report, "streams") if last in entries],
        "rules": delta_rules(report, last),
        "with_even": any(layer.break_even_density is not None for layer in figures_of(report, last, "streams").layers),
        "with_bits": any(delta.bits is not None for delta in figures_of(report, last, "streams").deltas),
        "moved": movement(report) if last == "refined" else {},
        "plots": [plot for plot in drawn if plot is not curve],
        "curve": curve,
        "curve_terms": curve_terms(report) if controlled else [],
        "control_tables": control_tables(report),
        "sensitivity_tables": sensitivity_tables(report),
        "parts": listings(report, MOST_PARTS),
        "savings": savings(report),
        "timings": timings,
        "pictures": [one for one in encoded if one[0].kind == "events"],
        "worst": [one for one in encoded if one[0].kind == "worst"],
        "timelines": timelines(report),
        "problems": [*report.data.problems, *(report.stream_data.problems if report.stream_data else ())],
        "site_state": site_state,
        "settings": sorted(_flat(report.settings)),
        "absent": text.ABSENT,
    }
    parts_there = {**shown, "timings": report.timings, "sites": report.sites}
    shown["anchors"] = [(anchor, name) for anchor, name, of in _SECTIONS if not of or parts_there[of]]
    page: str = _environment().get_template("report.html.j2").render(shown)
    return page


def _flat(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found = []
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", str(value)))
    return found
