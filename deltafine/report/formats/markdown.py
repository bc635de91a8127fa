"""A report as Markdown, for pull requests and job summaries."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from deltafine.document.report import Report
from deltafine.report import timings
from deltafine.report.compare import Comparison
from deltafine.report.formats.report_format import ReportFormat
from deltafine.report.gate import Check
from deltafine.report.holding import control_tables
from deltafine.report.quantities import FEEDINGS, Feeding, Quantity, columns, subject
from deltafine.report.sensitivity_table import sensitivity_tables
from deltafine.report.summary import cautions, frozen, headline, layers_by_name, rows
from deltafine.report.text import ABSENT, clean, scaled, share, shown
from deltafine.report.whom import listings
from deltafine.report.worst_answers import worst_answers

_TITLES = {"streams": "Continuous streams", "clips": "Clips, as in training"}
MOST_PARTS = 10
"""Videos, classes and pairs of classes that are shown; report.json has all."""


class Markdown(ReportFormat):
    """The whole report as GitHub-flavoured Markdown, with the gate and the differences to baselines first."""

    name = "markdown"
    suffix = ".md"

    def render(
        self,
        document: Report,
        comparisons: Sequence[Comparison] = (),
        checks: Sequence[Check] = (),
        pictures: Mapping[str, bytes] | None = None,
    ) -> str:
        return _text(document, comparisons, checks)


def _text(report: Report, comparisons: Sequence[Comparison], checks: Sequence[Check]) -> str:
    found = headline(report)
    parts = [f"# {prose(report.title)}", f"**{prose(found.sentence)}** ({code(found.model)} model, continuous streams)"]
    if found.beside:
        parts.append("; ".join(prose(sentence) for sentence in found.beside) + ".")
    if warned := cautions(report):
        parts.append("\n".join(f"- ⚠ {prose(caution)}" for caution in warned))
    if checks:
        parts.append(_gate(checks))
    parts += [_comparison(comparison) for comparison in comparisons]
    for feeding in FEEDINGS:
        parts.append(f"## {_TITLES[feeding]}\n\n{_figures(report, feeding)}")
    for listing in (
        *listings(report, MOST_PARTS),
        *worst_answers(report),
        *control_tables(report),
        *sensitivity_tables(report),
    ):
        lines = [[prose(cell) for cell in cells] for cells in listing.lines]
        table = grid([prose(heading) for heading in listing.headings], lines, left=listing.names or 1)
        parts.append(f"## {prose(listing.title)}\n\n{table}")
    for timing in report.timings:
        table = grid(
            list(timings.headings(timing)), [[prose(cell) for cell in cells] for cells in timings.lines(timing)]
        )
        parts.append(f"## {timings.title(timing)}\n\n{table}\n\n{prose(timings.sentence(timing))}")
    if report.energy_table:
        parts.append(prose(report.energy_table.sentence))
    if layers := _layers(report):
        parts.append(f"## MAC density per layer (streams)\n\n{layers}")
    if held := frozen(report):
        parts.append(f"Of the model: {prose(held)}.")
    parts.append(
        f"{prose(report.created)}; deltafine {prose(report.versions.deltafine)}; data {code(report.data.path)}; "
        f"settings {code(report.settings_hash)}"
    )
    return "\n\n".join(parts) + "\n"


def _gate(checks: Sequence[Check]) -> str:
    failed = sum(not check.met for check in checks)
    title = f"## Gate: {failed} of {len(checks)} not met" if failed else f"## Gate: all {len(checks)} met"
    lines = [
        ["✅" if check.met else "❌", prose(check.subject), prose(check.measured), prose(check.limit)]
        for check in checks
    ]
    return f"{title}\n\n{grid(['', 'figure', 'measured', 'required'], lines, left=2)}"


def _comparison(comparison: Comparison) -> str:
    parts = [f"## Against {code(comparison.baseline)}"]
    if comparison.model_before != comparison.model_after:
        parts.append(f"Its {code(comparison.model_before)} model, this report's {code(comparison.model_after)} model.")
    parts += [f"- ⚠ Not comparable: {prose(obstacle)}." for obstacle in comparison.obstacles]
    parts += [f"- ⚠ {prose(doubt)}" for doubt in comparison.doubts]
    figures = [
        [
            _label(one.quantity),
            shown(one.before, one.quantity.unit),
            shown(one.after, one.quantity.unit),
            one.shown_change,
            one.verdict,
        ]
        for one in comparison.of("streams")
        if one.quantity.brief
    ]
    parts.append(grid(["streams", "baseline", "this report", "change", ""], figures))
    layers = [
        [
            code(layer.name, in_table=True),
            shown(layer.macs_before, "macs"),
            shown(layer.macs_after, "macs"),
            layer.shown_change,
        ]
        for layer in comparison.layers
    ]
    if layers:
        parts.append(grid(["layer", "MACs before", "after", "change"], layers))
    return "\n\n".join(parts)


def _label(quantity: Quantity) -> str:
    """A table cell keeps no indentation, so a sub-figure is marked by dots."""
    label = quantity.label
    return prose(f"… {label.strip()}" if label.startswith(" ") else label)


def _figures(report: Report, feeding: Feeding) -> str:
    lines = []
    for row in rows(report, feeding, brief=feeding == "clips"):
        cells = [
            f"{cell} {interval}" if interval != ABSENT else cell
            for cell, interval in zip(row.cells, row.intervals, strict=True)
        ]
        lines.append([_label(row.quantity), *map(prose, cells)])
    return grid(["", *map(prose, columns(report))], lines)


def _layers(report: Report) -> str:
    last = subject(report)
    lines = []
    for name, entries in layers_by_name(report, "streams"):
        first = next(iter(entries.values()))
        densities = [share(entries[m].mac_density) if m in entries else ABSENT for m in columns(report)]
        pixels = share(entries[last].pixel_density) if last in entries else ABSENT
        lines.append(
            [code(name, in_table=True), code(first.kind, in_table=True), scaled(first.dense_macs), *densities, pixels]
        )
    if not lines:
        return ""
    return grid(["layer", "kind", "MACs/frame", *map(prose, columns(report)), "pixels"], lines, left=2)


def grid(header: list[str], lines: list[list[str]], left: int = 1) -> str:
    """A table; the first `left` columns are aligned left, the others right. Cells are Markdown already."""
    rule = ["---"] * left + ["---:"] * (len(header) - left)
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *lines))


def prose(text: object) -> str:
    """Text with everything escaped that Markdown or HTML would obey."""
    return re.sub(r"([\\`*_{}\[\]<>()#!|~&@$])", r"\\\1", clean(text))


def code(text: object, in_table: bool = False) -> str:
    """A name as a code span, where neither HTML, links nor mentions work."""
    content = clean(text)
    longest = max((len(run) for run in re.findall("`+", content)), default=0)
    fence = "`" * (longest + 1)
    if content.startswith("`") or content.endswith("`") or not content.strip():
        content = f" {content} "
    if in_table:
        content = content.replace("|", "\\|")
    return f"{fence}{content}{fence}"
