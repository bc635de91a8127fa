"""`deltafine report`: show a saved report, compare it and gate it. Never loads TensorFlow for a saved report."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deltafine.cli.given_paths import refuse_missing_model, refuse_missing_videos
from deltafine.cli.options import format_option, takes_settings
from deltafine.errors import DeltafineError
from deltafine.report.formats import FORMATS
from deltafine.settings import GivenSettings

if TYPE_CHECKING:
    from deltafine.report import Report
    from deltafine.report.compare import Comparison
    from deltafine.report.gate import Check

_AFRESH = "Measuring MODEL on --data (defaults: those of its run)"
_GATE = "Gate (exit code 1 if a limit is not met)"
_FRACTION = "FRACTION"


@takes_settings("report", panel=_AFRESH, defaults=False)
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, a report.json, or a model.")],
    format: Annotated[str, format_option(FORMATS.names, "Format of the report.")] = "table",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="File to write the format to.")
    ] = None,
    baseline: Annotated[
        list[Path] | None, typer.Option(metavar="RUN", help="Compare with this run or report.json; several allowed.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Compare even if data or definitions differ.")] = False,
    gate: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="pyproject.toml or another TOML file with limits.", rich_help_panel=_GATE),
    ] = None,
    min_sparsity: Annotated[
        str | None, typer.Option(metavar=_FRACTION, help="Lowest delta sparsity allowed.", rich_help_panel=_GATE)
    ] = None,
    max_macs_ratio: Annotated[
        str | None, typer.Option(metavar=_FRACTION, help="Highest MAC density allowed.", rich_help_panel=_GATE)
    ] = None,
    max_pixel_density: Annotated[
        str | None, typer.Option(metavar=_FRACTION, help="Highest pixel density allowed.", rich_help_panel=_GATE)
    ] = None,
    max_accuracy_drop: Annotated[
        str | None, typer.Option(metavar=_FRACTION, help="Largest accuracy drop allowed.", rich_help_panel=_GATE)
    ] = None,
    accuracy_drop_at: Annotated[
        str | None,
        typer.Option(
            metavar="[value|low]",
            help="Check the estimate or the lower end of its interval (default value).",
            rich_help_panel=_GATE,
        ),
    ] = None,
    min_gain_over_hold: Annotated[
        str | None,
        typer.Option(
            metavar="POINTS",
            help="Least accuracy above that of the original held, at equal MACs and in equal time, 2% or 0.02.",
            rich_help_panel=_GATE,
        ),
    ] = None,
    max_regression: Annotated[
        str | None,
        typer.Option(metavar=_FRACTION, help="Largest change for the worse since a baseline.", rich_help_panel=_GATE),
    ] = None,
    min_accuracy: Annotated[
        str | None, typer.Option(metavar=_FRACTION, help="Least accuracy.", rich_help_panel=_GATE)
    ] = None,
    max_error: Annotated[
        str | None,
        typer.Option(metavar=_FRACTION, help="Most error of numbers, of their spread.", rich_help_panel=_GATE),
    ] = None,
    min_fidelity: Annotated[
        str | None, typer.Option(metavar=_FRACTION, help="Least fidelity to the original.", rich_help_panel=_GATE)
    ] = None,
    min_score: Annotated[
        str | None, typer.Option(metavar="NUMBER", help="Least score (of --score).", rich_help_panel=_GATE)
    ] = None,
    max_score_drop: Annotated[
        str | None,
        typer.Option(metavar="NUMBER", help="Largest fall of the score below the original's.", rich_help_panel=_GATE),
    ] = None,
    min_: Annotated[
        list[str] | None,
        typer.Option("--min", metavar="FIGURE=NUMBER", help="Least of any figure.", rich_help_panel=_GATE),
    ] = None,
    max_: Annotated[
        list[str] | None,
        typer.Option(
            "--max",
            metavar="FIGURE=NUMBER",
            help="Most of any figure, as energy_delta=2e-3 or milliseconds=10.",
            rich_help_panel=_GATE,
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Videos to measure the model on.", rich_help_panel=_AFRESH)
    ] = None,
    original: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="Model that it was refined from.", rich_help_panel=_AFRESH)
    ] = None,
    every: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="K", help="Let it run on every K-th frame, its answers held.", rich_help_panel=_AFRESH
        ),
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT,...", help="Processes that measure together.", rich_help_panel=_AFRESH),
    ] = None,
    worker_index: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Index of this one; 0 reports.", rich_help_panel=_AFRESH),
    ] = None,
    **settings: Any,
) -> None:
    """Show the report of a run, compare it with others, and gate it; or measure a model."""
    from deltafine.report import load_report
    from deltafine.report.compare import compare
    from deltafine.report.gate import check, read_gate

    # What is wrong with the command is said before anything is measured.
    chosen = FORMATS.get(format)
    if chosen.suffix is None and output is not None:
        *most, last = (one.name for one in FORMATS if one.suffix is not None)
        raise DeltafineError(f"--output needs a --format other than {format}: {', '.join(most)} or {last}.")
    wanted = read_gate(
        gate,
        {
            "min-sparsity": min_sparsity,
            "max-macs-ratio": max_macs_ratio,
            "max-pixel-density": max_pixel_density,
            "max-accuracy-drop": max_accuracy_drop,
            "accuracy-drop-at": accuracy_drop_at,
            "min-gain-over-hold": min_gain_over_hold,
            "max-regression": max_regression,
            "min-accuracy": min_accuracy,
            "max-error": max_error,
            "min-fidelity": min_fidelity,
            "min-score": min_score,
            "max-score-drop": max_score_drop,
            "min": min_,
            "max": max_,
        },
    )
    _survive_narrow_encodings()
    if data is None:
        given = {"original": original, "every": every, "workers": workers, "worker_index": worker_index, **settings}
        if unused := [name for name, value in given.items() if value is not None]:
            option = f"--{unused[0].replace('_', '-')}"
            raise DeltafineError(f"{option} is for measuring a model: give --data VIDEOS as well.")
        document, pictures = _saved(run, with_pictures=chosen.shows_pictures)
    else:
        options = {"original": original, "every": every, "workers": workers, "worker_index": worker_index, **settings}
        leads = _leads(workers, worker_index)
        silent = not leads or (chosen.suffix is not None and output is None)
        document, pictures = _measured(run, data, options, silent)
        if not leads:
            return
    comparisons = [compare(document, load_report(path), str(path), force) for path in baseline or ()]
    checks = check(document, wanted, comparisons)
    content = chosen.render(document, comparisons, checks, pictures)
    if output is not None:
        _write(output, content)
        content = FORMATS.get("table").render(document, comparisons, checks, pictures)
    _print(content)
    _tell_github(document, comparisons, checks)
    failed = [one for one in checks if not one.met]
    if failed:
        if chosen.suffix is not None and output is None:
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


def _measured(model: Path, data: Path, options: GivenSettings, silent: bool) -> tuple[Report, dict[str, bytes]]:
    """The report of a model that is measured now; what is said meanwhile would break a file format."""
    from deltafine.cli.console import Talk, load_tensorflow
    from deltafine.jobs.measure import measure_model

    if model.is_dir() or model.suffix == ".json":
        raise DeltafineError(
            f"{model} is no model to measure: give a .keras, .h5 or .onnx file, such as RUN/refined.keras."
        )
    if options.get("workers") is None:  # else all of them are to hear of it
        refuse_missing_model(model, options.get("original"))
        refuse_missing_videos(data, options.get("streams"))
    load_tensorflow()
    if silent:
        document, pictures = measure_model(model, data, **options)
    else:
        with Talk() as talk:
            document, pictures = measure_model(model, data, listener=talk, **options)
    return document, {picture.file: drawn for picture, drawn in pictures}


def _write(file: Path, content: str | bytes) -> None:
    from deltafine.storage.files import write_atomically

    write_atomically(file, content if isinstance(content, bytes) else content.encode("utf-8"))


def _print(content: str | bytes) -> None:
    if isinstance(content, bytes):
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
    else:
        sys.stdout.write(content)


def _tell_github(document: Report, comparisons: Sequence[Comparison], checks: Sequence[Check]) -> None:
    import os

    from deltafine.report import github
    from deltafine.report.formats.markdown import Markdown

    if os.environ.get(github.SUMMARY_VARIABLE):
        github.add_summary(Markdown().render(document, comparisons, checks))
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
