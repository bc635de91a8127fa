"""A report or a comparison as one long table, a figure a line, for spreadsheets and data frames."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence

from deltafine.document.report import DeltaFigures, Estimate, LayerFigures, Report
from deltafine.report.compare import Comparison
from deltafine.report.formats.report_format import ReportFormat
from deltafine.report.gate import Check
from deltafine.report.quantities import FEEDINGS, columns, figures_of, quantities_of, subject
from deltafine.report.text import clean

Cell = str | int | float | None

REPORT_HEAD = ("model", "feeding", "scope", "name", "position", "figure", "value", "low", "high")
COMPARISON_HEAD = ("baseline", "feeding", "scope", "name", "position", "figure", "before", "after", "change")


class Csv(ReportFormat):
    """Every figure of every model; `position` tells apart layers of one name, and is the k of held answers.

    With baselines, every difference instead; `change` is after - before in the figure's own unit.
    """

    name = "csv"
    suffix = ".csv"

    def render(
        self,
        document: Report,
        comparisons: Sequence[Comparison] = (),
        checks: Sequence[Check] = (),
        pictures: Mapping[str, bytes] | None = None,
    ) -> str:
        if comparisons:
            return _text(COMPARISON_HEAD, _comparison_lines(comparisons))
        return _text(REPORT_HEAD, _report_lines(document))


def _text(header: tuple[str, ...], lines: Iterable[Sequence[Cell]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([clean(cell) if isinstance(cell, str) else cell for cell in line] for line in lines)
    return stream.getvalue()


def _report_lines(report: Report) -> Iterator[Sequence[Cell]]:
    for model in columns(report):
        for feeding in FEEDINGS:
            figures = figures_of(report, model, feeding)
            for quantity in quantities_of(figures):
                value = quantity.read(figures)
                figure = quantity.key.rpartition(".")[2]
                if isinstance(value, Estimate):
                    yield model, feeding, "model", "", 0, figure, value.value, value.low, value.high
                elif value is not None:
                    yield model, feeding, "model", "", 0, figure, value, None, None
            tables: list[tuple[str, Sequence[LayerFigures | DeltaFigures]]] = [
                ("layer", figures.layers),
                ("delta", figures.deltas),
            ]
            for scope, entries in tables:
                for position, entry in enumerate(entries):
                    for figure, value in entry:
                        if isinstance(value, int | float):
                            yield model, feeding, scope, entry.name, position, figure, value, None, None
    yield from _control_lines(report)
    yield from _sensitivity_lines(report)


def _control_lines(report: Report) -> Iterator[Sequence[Cell]]:
    if report.controls is None:
        return
    for held in report.controls.held:
        yield "original", "streams", "held", "", held.every, "quality", held.quality, held.low, held.high
    for place, gate in enumerate(report.controls.motion_gate):
        for figure in ("threshold", "share", "quality"):
            yield "original", "streams", "motion_gate", "", place, figure, getattr(gate, figure), None, None
    for refined in report.controls.refined_held:
        for figure in ("quality", "mac_density"):
            value = getattr(refined, figure)
            yield subject(report), "streams", "held", "", refined.every, figure, value, None, None
    for age in report.controls.answer_age:
        for figure in ("changes", "followed", "median", "p95"):
            if (value := getattr(age, figure)) is not None:
                yield age.model, "streams", "answer_age", "", age.every, figure, value, None, None


def _sensitivity_lines(report: Report) -> Iterator[Sequence[Cell]]:
    if (curve := report.sensitivity) is None:
        return
    for place, point in enumerate(curve.points):
        for figure, value in point:
            yield curve.model, "streams", "sensitivity", "", place, figure, value, None, None


def _comparison_lines(comparisons: Sequence[Comparison]) -> Iterator[Sequence[Cell]]:
    for comparison in comparisons:
        for one in comparison.differences:
            figure = one.quantity.key.rpartition(".")[2]
            yield comparison.baseline, one.feeding, "model", "", 0, figure, one.before, one.after, one.change
        for position, layer in enumerate(comparison.layers):
            for figure, before, after in (
                ("effective_macs_delta", layer.macs_before, layer.macs_after),
                ("mac_density", layer.density_before, layer.density_after),
            ):
                change = None if before is None or after is None else after - before
                yield comparison.baseline, "streams", "layer", layer.name, position, figure, before, after, change
