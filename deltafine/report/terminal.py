"""A report as rich tables that fit 80 columns, plain ASCII when piped.

Every string from the document becomes a `Text`, never markup: a layer may be called "[bold]".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deltafine.document.report import LayerFigures, Report, Timing
from deltafine.report import timings
from deltafine.report.compare import Comparison
from deltafine.report.figure_table import FigureTable
from deltafine.report.folding import add_figures, add_names, add_words, print_table, table
from deltafine.report.gate import Check
from deltafine.report.health import movement
from deltafine.report.holding import control_tables
from deltafine.report.quantities import Feeding, columns, figures_of, subject
from deltafine.report.sensitivity_table import sensitivity_tables
from deltafine.report.summary import (
    beside_frames,
    cautions,
    delta_rules,
    deltas_by_name,
    frozen,
    headline,
    layers_by_name,
    rows,
)
from deltafine.report.text import ABSENT, clean, counted, duration, scaled, share, shown, significant
from deltafine.report.whom import listings
from deltafine.report.worst_answers import worst_answers

_VERDICT_STYLES = {"better": "green", "worse": "red", "same": "dim", "": ""}
_STREAMS_TITLE = "Continuous streams (the headline)"
_CLIPS_TITLE = "Clips, as in training"
MOST_PARTS = 5
"""Videos, classes and pairs of classes that are shown; report.json has all."""


def show(report: Report, console: Console) -> None:
    """Print the whole report."""
    _show_headline(report, console)
    _show_figures(report, console, "streams", _STREAMS_TITLE, brief=False)
    _show_figures(report, console, "clips", _CLIPS_TITLE, brief=True)
    for found in (
        *listings(report, MOST_PARTS),
        *worst_answers(report),
        *control_tables(report),
        *sensitivity_tables(report),
    ):
        _show_listing(found, console)
    for timing in report.timings:
        show_timing(timing, console)
    if report.energy_table:
        line(console, report.energy_table.sentence, "dim")
        console.print()
    _show_layers(report, console)
    _show_deltas(report, console)
    _show_skipped(report, console)
    _show_problems(report, console)
    _show_origin(report, console)


def section(console: Console, title: str, made: Table, footnote: str = "") -> None:
    """A table below its title; nothing where it has no rows."""
    if made.row_count:
        line(console, title, "bold")
        print_table(made, console)
        if footnote:
            line(console, footnote, "dim")
        console.print()


def name(value: object) -> Text:
    """A name from the data, safe to print."""
    return Text(clean(value), overflow="fold")


def line(console: Console, text: str, style: str = "") -> None:
    """One paragraph, wrapped at the console's width."""
    console.print(Text(clean(text), style=style), highlight=False)


def _show_headline(report: Report, console: Console) -> None:
    found = headline(report)
    line(console, f"{report.title} ({found.model} model, continuous streams)", "dim")
    line(console, found.sentence, "bold red" if found.doubtful else "bold green")
    for sentence in found.beside:
        line(console, sentence[0].upper() + sentence[1:] + ".")
    for caution in cautions(report):
        line(console, f"! {caution}", "yellow")
    console.print()


def _show_figures(report: Report, console: Console, feeding: Feeding, title: str, brief: bool) -> None:
    made = table(console)
    made.add_column("", min_width=22, no_wrap=True)
    add_figures(made, *columns(report))
    for row in rows(report, feeding, brief):
        made.add_row(Text(row.quantity.label), *map(Text, row.cells))
        if row.has_intervals:
            made.add_row(Text("  95% interval", style="dim"), *(Text(cell, style="dim") for cell in row.intervals))
    section(console, title, made)


def _show_listing(found: FigureTable, console: Console) -> None:
    made = table(console)
    if found.names:
        add_names(made, *found.headings[: found.names])
    else:
        add_words(made, found.headings[0])
    add_figures(made, *found.headings[found.names or 1 :])
    for cells in found.lines:
        names, figures = cells[: found.names], cells[found.names :]
        made.add_row(*map(name, names), *map(Text, figures))
    section(console, clean(found.title), made)


def show_timing(timing: Timing, console: Console) -> None:
    """Print what the runtimes took per frame."""
    made = table(console)
    add_words(made, "")
    add_figures(made, *timings.headings(timing)[1:])
    for cells in timings.lines(timing):
        made.add_row(*map(Text, cells))
    section(console, timings.title(timing), made, timings.sentence(timing))


def _show_layers(report: Report, console: Console) -> None:
    title = "MAC density per layer (streams, first frames left out)"
    made = table(console)
    roomy = console.width >= 100
    add_names(made, "layer", *(["kind"] if roomy else []))
    add_figures(made, "MACs", *columns(report), "pixels", *(["changed", "breaks even at"] if roomy else []))
    last = subject(report)
    for layer_name, entries in layers_by_name(report, "streams"):
        first = next(iter(entries.values()))
        made.add_row(
            name(layer_name),
            *([name(first.kind)] if roomy else []),
            scaled(first.dense_macs),
            *(share(entries[m].mac_density) if m in entries else ABSENT for m in columns(report)),
            share(entries[last].pixel_density) if last in entries else ABSENT,
            *([shown(_of(entries, last, "delta_density"), "share")] if roomy else []),
            *([shown(_of(entries, last, "break_even_density"), "share")] if roomy else []),
        )
    section(console, title, made)


def _of(entries: Mapping[str, LayerFigures], model: str, figure: str) -> float | None:
    return getattr(entries[model], figure) if model in entries else None


def _show_deltas(report: Report, console: Console) -> None:
    last = subject(report)
    if not figures_of(report, last, "streams").deltas:
        return
    title = f"Delta layers ({clean(last)} model, streams)"
    made = table(console)
    roomy = console.width >= 76  # else nothing would be left of the names
    add_names(made, "delta layer")
    add_figures(made, "threshold", "events", "pixels", "staleness", *(["silent", "always"] if roomy else []))
    moved = movement(report) if roomy and last == "refined" else {}
    with_bits = roomy and any(delta.bits is not None for delta in figures_of(report, last, "streams").deltas)
    add_figures(made, *(["moved"] if moved else []), *(["bits"] if with_bits else []))
    for delta_name, entries in deltas_by_name(report, "streams"):
        delta = entries.get(last)
        if delta is None:
            continue
        made.add_row(
            name(delta_name),
            significant(delta.threshold_median),
            share(delta.delta_density),
            share(delta.pixel_density),
            significant(delta.staleness, 2),
            *([share(delta.silent_channels), share(delta.saturated_channels)] if roomy else []),
            *([f"{significant(moved[delta_name], 2)}x" if delta_name in moved else ABSENT] if moved else []),
            *([ABSENT if delta.bits is None else str(delta.bits)] if with_bits else []),
        )
    footnote = (
        f"Rule: {', '.join(delta_rules(report, last))}. threshold: the median of the layer; staleness in thresholds"
        + ("; silent, always: share of channels that never fired, or fired in every element and frame" if roomy else "")
        + ("; moved: the median threshold against the one that training started from." if moved else ".")
    )
    section(console, title, made, footnote)


def _show_skipped(report: Report, console: Console) -> None:
    skipped = [site for site in report.sites if not site.selected]
    if not skipped:
        return
    title = f"Activations without a delta layer ({len(skipped)} of {len(report.sites)})"
    made = table(console)
    add_names(made, "activation", "kind", "reason")
    for site in skipped:
        made.add_row(name(site.name), name(site.kind), name(site.reason or "not chosen"))
    section(console, title, made)


def _show_problems(report: Report, console: Console) -> None:
    problems = [*report.data.problems, *(report.stream_data.problems if report.stream_data else ())]
    if not problems:
        return
    title = "Problems of videos"
    made = table(console)
    add_names(made, "video", "what is wrong")
    for problem in problems:
        made.add_row(name(problem.video), name(problem.reason))
    section(console, title, made)


def _show_origin(report: Report, console: Console) -> None:
    data, versions = report.data, report.versions
    unknown = any(layer.dense_macs is None for layer in report.model.uncovered)
    line(
        console,
        f"Model {report.model.name}: {scaled(report.model.parameters)} parameters, {beside_frames(report)}"
        f"{f'{held}, ' if (held := frozen(report)) else ''}{share(report.model.coverage)} of its "
        f"{'known ' * unknown}MACs measured. "
        f"Data {data.path}: {counted(data.train_videos, 'video')} to train, {data.validation_videos} to validate"
        + (f", {data.test_videos} to test." if data.test_videos else ".")
        + (f" Streams from {report.stream_data.path}." if report.stream_data else ""),
        "dim",
    )
    line(
        console,
        f"{report.created}, {duration(report.seconds)}, {scaled(report.peak_memory_bytes, 'B')} of memory at most; "
        f"deltafine {versions.deltafine}, Keras {versions.keras}, TensorFlow {versions.tensorflow}.",
        "dim",
    )


def show_comparison(comparison: Comparison, console: Console) -> None:
    """Print the differences to one baseline."""
    console.print()
    line(console, f"Against {comparison.baseline}", "bold")
    if comparison.model_before != comparison.model_after:
        line(console, f"Its {comparison.model_before} model, this report's {comparison.model_after} model.")
    for obstacle in comparison.obstacles:
        line(console, f"! Not comparable: {obstacle}.", "yellow")
    for doubt in comparison.doubts:
        line(console, f"! {doubt}", "yellow")
    for feeding, title in (("streams", _STREAMS_TITLE), ("clips", _CLIPS_TITLE)):
        made = table(console)
        add_words(made, "")
        add_figures(made, "baseline", "this report", "change")
        add_words(made, "")
        for one in comparison.differences:
            if one.feeding == feeding and (feeding == "streams" or one.quantity.brief):
                unit = one.quantity.unit
                made.add_row(
                    Text(one.quantity.label),
                    shown(one.before, unit),
                    shown(one.after, unit),
                    one.shown_change,
                    Text(one.verdict, style=_VERDICT_STYLES[one.verdict]),
                )
        section(console, title, made)
    made = table(console)
    add_names(made, "layer")
    add_figures(made, "MACs before", "after", "change")
    for layer in comparison.layers:
        made.add_row(
            name(layer.name), shown(layer.macs_before, "macs"), shown(layer.macs_after, "macs"), layer.shown_change
        )
    section(console, "Effective MACs per frame and layer (streams)", made)


def show_checks(checks: Sequence[Check], console: Console) -> None:
    """Print what a gate demanded and found."""
    failed = sum(not check.met for check in checks)
    made = table(console)
    add_words(made, "")
    add_names(made, "figure")
    add_figures(made, "measured", "required")
    for check in checks:
        verdict = Text("ok", style="green") if check.met else Text("NOT MET", style="bold red")
        made.add_row(verdict, name(check.subject), Text(check.measured), Text(check.limit))
    console.print()
    title = f"Gate: {failed} of {len(checks)} not met" if failed else f"Gate: all {len(checks)} met"
    section(console, title, made)
