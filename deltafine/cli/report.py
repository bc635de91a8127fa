"""`deltafine report`: show a saved report, compare it and gate it. Never loads TensorFlow for a saved report."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deltafine.errors import DeltafineError

if TYPE_CHECKING:
    from deltafine.report import Report
    from deltafine.report.compare import Comparison
    from deltafine.report.gate import Check

_GATE = "Gate (exit code 1 if a threshold is not met)"
_SHARE = "SHARE"


class Format(StrEnum):
    table = "table"
    json = "json"
    csv = "csv"
    markdown = "markdown"
    html = "html"
    junit = "junit"


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory or a report.json.")],
    format: Annotated[Format, typer.Option("--format", "-f", help="How to show it.")] = Format.table,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the format there; show the table here.")
    ] = None,
    baseline: Annotated[
        list[Path] | None, typer.Option(metavar="RUN", help="Compare with this run or report.json; several allowed.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Compare although data or definitions differ.")] = False,
    gate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="pyproject.toml or another TOML file with thresholds.", rich_help_panel=_GATE
        ),
    ] = None,
    min_sparsity: Annotated[
        str | None, typer.Option(metavar=_SHARE, help="Least delta sparsity, 0.9 or 90%.", rich_help_panel=_GATE)
    ] = None,
    max_macs_ratio: Annotated[
        str | None, typer.Option(metavar=_SHARE, help="Most effective MACs / dense MACs.", rich_help_panel=_GATE)
    ] = None,
    max_pixel_density: Annotated[
        str | None, typer.Option(metavar=_SHARE, help="Most changed positions.", rich_help_panel=_GATE)
    ] = None,
    max_accuracy_drop: Annotated[
        str | None, typer.Option(metavar=_SHARE, help="Most accuracy lost, 0.01 or 1%.", rich_help_panel=_GATE)
    ] = None,
    accuracy_drop_at: Annotated[
        str | None,
        typer.Option(
            metavar="value|low", help="Check the estimate or the lower end of its interval.", rich_help_panel=_GATE
        ),
    ] = None,
    max_regression: Annotated[
        str | None, typer.Option(metavar=_SHARE, help="Most that may be worse than a baseline.", rich_help_panel=_GATE)
    ] = None,
) -> None:
    """Show the report of a run, compare it with others, and gate it."""
    from deltafine.report import load_report
    from deltafine.report.compare import compare
    from deltafine.report.gate import check, read_thresholds

    document = _document(run)
    comparisons = [compare(document, load_report(path), str(path), force) for path in baseline or ()]
    thresholds = read_thresholds(
        gate,
        {
            "min-sparsity": min_sparsity,
            "max-macs-ratio": max_macs_ratio,
            "max-pixel-density": max_pixel_density,
            "max-accuracy-drop": max_accuracy_drop,
            "accuracy-drop-at": accuracy_drop_at,
            "max-regression": max_regression,
        },
    )
    checks = check(document, thresholds, comparisons)
    _survive_narrow_encodings()
    if format is Format.table and output is not None:
        raise DeltafineError("--output needs a --format other than table: json, csv, markdown, html or junit.")
    if format is not Format.table:
        text = _rendered(format, run, document, comparisons, checks)
        if output is None:
            sys.stdout.write(text)
        else:
            _write(output, text)
    if format is Format.table or output is not None:
        _show(document, comparisons, checks)
    _tell_github(document, comparisons, checks)
    failed = [one for one in checks if not one.met]
    if failed:
        if format is not Format.table and output is None:
            for one in failed:
                print(f"Not met: {one.sentence}", file=sys.stderr)
        raise typer.Exit(1)


def _document(run: Path) -> Report:
    """The report to show: the saved one. (A model measured afresh would come in here.)"""
    from deltafine.report import load_report

    return load_report(run)


def _rendered(
    format: Format, run: Path, document: Report, comparisons: Sequence[Comparison], checks: Sequence[Check]
) -> str:
    from deltafine.report import csv, html, junit, markdown
    from deltafine.report.outcome import outcome
    from deltafine.report.store import json_text, load_pictures

    if format is Format.json:
        if not (comparisons or checks):
            return json_text(document)
        return json.dumps(outcome(document, comparisons, checks), indent=1) + "\n"
    if format is Format.csv:
        return csv.render_comparisons(comparisons) if comparisons else csv.render(document)
    if format is Format.markdown:
        return markdown.render(document, comparisons, checks)
    if format is Format.html:
        return html.render(document, load_pictures(run, document), comparisons, checks)
    if not checks:
        raise DeltafineError("--format junit shows a gate, and none is set: give thresholds, or a file with --gate.")
    return junit.render(document, checks)


def _write(file: Path, text: str) -> None:
    from deltafine.files import write_atomically

    write_atomically(file, text.encode("utf-8"))


def _show(document: Report, comparisons: Sequence[Comparison], checks: Sequence[Check]) -> None:
    from rich.console import Console

    from deltafine.report import terminal

    console = Console()
    terminal.show(document, console)
    for comparison in comparisons:
        terminal.show_comparison(comparison, console)
    if checks:
        terminal.show_checks(checks, console)


def _tell_github(document: Report, comparisons: Sequence[Comparison], checks: Sequence[Check]) -> None:
    import os

    from deltafine.report import github, markdown

    if os.environ.get(github.SUMMARY_VARIABLE):
        github.add_summary(markdown.render(document, comparisons, checks))
    if github.in_actions():
        # The runner reads commands from both streams; standard output may be a file format.
        for command in github.error_commands(checks):
            print(command, file=sys.stderr)


def _survive_narrow_encodings() -> None:
    """A name that the output's encoding cannot hold is escaped; it must not end the command."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
