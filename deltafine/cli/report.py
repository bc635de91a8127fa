"""`deltafine report`: show a saved report, compare it and gate it. Never loads TensorFlow for a saved report."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deltafine.cli.options import takes_settings
from deltafine.errors import DeltafineError

if TYPE_CHECKING:
    from deltafine.report import Report
    from deltafine.report.compare import Comparison
    from deltafine.report.gate import Check

_AFRESH = "Measuring a model (MODEL --data DIR; defaults: those of its run)"
_GATE = "Gate (exit code 1 if a threshold is not met)"
_FRACTION = "FRACTION"


class Format(StrEnum):
    table = "table"
    json = "json"
    csv = "csv"
    markdown = "markdown"
    html = "html"
    junit = "junit"


@takes_settings("report", panel=_AFRESH, defaults=False)
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, a report.json, or a model.")],
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
        str | None, typer.Option(metavar=_FRACTION, help="Least delta sparsity, 0.9 or 90%.", rich_help_panel=_GATE)
    ] = None,
    max_macs_ratio: Annotated[
        str | None, typer.Option(metavar=_FRACTION, help="Most effective MACs / dense MACs.", rich_help_panel=_GATE)
    ] = None,
    max_pixel_density: Annotated[
        str | None, typer.Option(metavar=_FRACTION, help="Most changed positions.", rich_help_panel=_GATE)
    ] = None,
    max_accuracy_drop: Annotated[
        str | None, typer.Option(metavar=_FRACTION, help="Most accuracy lost, 0.01 or 1%.", rich_help_panel=_GATE)
    ] = None,
    accuracy_drop_at: Annotated[
        str | None,
        typer.Option(
            metavar="value|low", help="Check the estimate or the lower end of its interval.", rich_help_panel=_GATE
        ),
    ] = None,
    max_regression: Annotated[
        str | None,
        typer.Option(metavar=_FRACTION, help="Most that may be worse than a baseline.", rich_help_panel=_GATE),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Videos to measure it on.", rich_help_panel=_AFRESH)
    ] = None,
    original: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="What it was refined from.", rich_help_panel=_AFRESH)
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT,...", help="Several processes that measure.", rich_help_panel=_AFRESH),
    ] = None,
    worker_index: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Which of them this is; 0 reports.", rich_help_panel=_AFRESH),
    ] = None,
    **settings: Any,
) -> None:
    """Show the report of a run, compare it with others, and gate it; or measure a model."""
    from deltafine.report import load_report
    from deltafine.report.compare import compare
    from deltafine.report.gate import check, read_thresholds

    # What is wrong with the command is said before anything is measured.
    if format is Format.table and output is not None:
        raise DeltafineError("--output needs a --format other than table: json, csv, markdown, html or junit.")
    _survive_narrow_encodings()
    if data is None:
        given = {"original": original, "workers": workers, "worker_index": worker_index, **settings}
        if unused := [name for name, value in given.items() if value is not None]:
            option = f"--{unused[0].replace('_', '-')}"
            raise DeltafineError(f"{option} is for measuring a model: give --data VIDEOS as well.")
        document, pictures = _saved(run, with_pictures=format is Format.html)
    else:
        options = {"original": original, "workers": workers, "worker_index": worker_index, **settings}
        leads = _leads(workers, worker_index)
        silent = not leads or (format is not Format.table and output is None)
        document, pictures = _measured(run, data, options, silent)
        if not leads:
            return
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
    if format is not Format.table:
        text = _rendered(format, pictures, document, comparisons, checks)
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


def _leads(workers: str | None, worker_index: int | None) -> bool:
    from deltafine.workers import cluster_of

    cluster = cluster_of(workers, worker_index)
    return cluster is None or cluster.index == 0


def _saved(run: Path, with_pictures: bool) -> tuple[Report, dict[str, bytes]]:
    from deltafine.report import load_report
    from deltafine.report.store import load_pictures

    document = load_report(run)
    return document, load_pictures(run, document) if with_pictures else {}


def _measured(model: Path, data: Path, options: dict[str, Any], silent: bool) -> tuple[Report, dict[str, bytes]]:
    """The report of a model that is measured now; what is said meanwhile would break a file format."""
    from deltafine.cli.console import Talk, load_tensorflow
    from deltafine.jobs.measure import measure_model

    if model.is_dir() or model.suffix == ".json":
        raise DeltafineError(f"{model} is no model to measure: give a .keras or .h5 file, such as RUN/refined.keras.")
    load_tensorflow()
    if silent:
        document, pictures = measure_model(model, data, **options)
    else:
        with Talk() as talk:
            document, pictures = measure_model(model, data, listener=talk, **options)
    return document, {picture.file: drawn for picture, drawn in pictures}


def _rendered(
    format: Format,
    pictures: dict[str, bytes],
    document: Report,
    comparisons: Sequence[Comparison],
    checks: Sequence[Check],
) -> str:
    from deltafine.report import csv, html, junit, markdown
    from deltafine.report.outcome import outcome
    from deltafine.report.store import json_text

    if format is Format.json:
        if not (comparisons or checks):
            return json_text(document)
        return json.dumps(outcome(document, comparisons, checks), indent=1) + "\n"
    if format is Format.csv:
        return csv.render_comparisons(comparisons) if comparisons else csv.render(document)
    if format is Format.markdown:
        return markdown.render(document, comparisons, checks)
    if format is Format.html:
        return html.render(document, pictures, comparisons, checks)
    if not checks:
        raise DeltafineError("--format junit shows a gate, and none is set: give thresholds, or a file with --gate.")
    return junit.render(document, checks)


def _write(file: Path, text: str) -> None:
    from deltafine.storage.files import write_atomically

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
