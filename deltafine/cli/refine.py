"""`deltafine refine`: the main job."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deltafine.cli.given_paths import refuse_missing_model, refuse_missing_videos
from deltafine.cli.options import takes_settings
from deltafine.errors import DeltafineError
from deltafine.settings import GivenSettings
from deltafine.storage import run_files

if TYPE_CHECKING:
    from deltafine.report import Report
    from deltafine.settings import RefineSettings


@takes_settings("refine")
def refine(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Pretrained model (.keras, .h5 or .onnx).")],
    data: Annotated[Path, typer.Option(metavar="DIR", help="Videos, such as a folder per class.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Run directory to make.")],
    recipe: Annotated[Path | None, typer.Option(metavar="FILE", help="TOML file of settings.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any setting, such as warmup=5%.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing run.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an existing run.")] = False,
    pick: Annotated[int | None, typer.Option(metavar="EPOCH", help="With --resume: use this epoch.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and end.")] = False,
    workers: Annotated[str | None, typer.Option(metavar="HOST:PORT,...", help="Machines that share one run.")] = None,
    worker_index: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Index of this one; 0 is the chief.")
    ] = None,
    **settings: Any,
) -> None:
    """Refine a model on videos, measure it, and write the refined model and its report.

    Listed are the common settings. --set takes every setting; python -m deltafine.settings prints them.

    Options and --set override the recipe. A FRACTION is 0.05 or 5%.
    """
    from deltafine.settings import assigned, resolve

    settings |= _not_given_twice(assigned(set_ or ()), settings)
    planned = resolve(recipe, model=str(model), data=str(data), **settings)  # refused before TensorFlow is loaded
    if workers is None:  # else all of them are to hear of it
        refuse_missing_model(model)
        if not dry_run:  # which looks at no video
            refuse_missing_videos(data, planned.streams)
    if dry_run:
        _show_plan(planned)
        return
    how: dict[str, Any] = {"recipe": recipe, "overwrite": overwrite, "resume": resume, "pick": pick}
    run(model, data, out, workers=workers, worker_index=worker_index, **how, **settings)


def _not_given_twice(assigned: GivenSettings, options: GivenSettings) -> GivenSettings:
    """What ``--set`` gives.

    Raises:
        DeltafineError: an option or an argument gives one of these as well.
    """
    if twice := [name for name in assigned if name in options or name in ("model", "data")]:
        raise DeltafineError(f"The setting '{twice[0]}' is given twice: leave --set {twice[0]}=... out.")
    return assigned


def _show_plan(settings: RefineSettings) -> None:
    """What `inspect` shows, with the settings of this run."""
    from rich.console import Console

    from deltafine.cli.console import load_tensorflow
    from deltafine.cli.inspect import show_plan
    from deltafine.jobs.inspect import plan_of

    load_tensorflow()
    show_plan(plan_of(settings), Console(highlight=False))


def run(model: Path, data: Path, out: Path, **settings: Any) -> None:
    """Refine with progress, and show the report; Ctrl-C says what is left and exits with 130."""
    from deltafine.cli.console import Talk, load_tensorflow
    from deltafine.jobs.refine import refine as refine_model
    from deltafine.refinement.run.interruption import Requests
    from deltafine.workers import cluster_of

    cluster = cluster_of(settings.get("workers"), settings.get("worker_index"))
    leads = cluster is None or cluster.index == 0
    with Requests(), Talk(quiet=not leads) as talk:
        try:
            load_tensorflow(talk)
            report = refine_model(model, data, out, listener=talk, **settings)
        except KeyboardInterrupt as stop:
            saved = getattr(stop, "saved", None)
            left = f"the best model so far is {saved}; go on with --resume" if saved else _what_is_left(out, settings)
            talk.say(f"Interrupted: {left}.")
            raise typer.Exit(128 + getattr(stop, "signal", signal.SIGINT)) from stop
    if leads:
        _show(report, out)
    if report.kept_budget is False:
        raise typer.Exit(1)


def _show(report: Report, out: Path) -> None:
    from rich.console import Console

    from deltafine.cli.console import print_text
    from deltafine.report import terminal

    terminal.show(report, Console())
    print_text(f"\nWritten to {out}: refined.keras, report.html, report.json, report.md")
    if report.kept_budget is False:
        print_text("The budget is not kept: see the warnings above.")


def _what_is_left(out: Path, given: GivenSettings) -> str:
    """After a stop before an epoch was over, or after the training; ``given`` beside the run's directory."""
    from deltafine.settings import TRUSTING, resolve

    if not (out / run_files.SETTINGS).exists():
        return "nothing was written; start again"
    refined = out / run_files.REFINED
    if refined.exists():
        return f"the refined model is {refined}, its report is not written yet; go on with --resume"
    if (out / run_files.CHECKPOINTS).exists():
        return "no epoch was over; go on with --resume"
    started = (out / run_files.SETTINGS).stat().st_mtime
    known = given.get("cache") or resolve(out / run_files.SETTINGS, trusted=TRUSTING).cache
    cache = Path(known or out / run_files.FRAMES)  # others may have put theirs there before
    if any(kept.stat().st_mtime >= started for kept in cache.glob(f"{run_files.TRIALS}*")):
        return "the calibration was not over, and what it tried is kept; go on with --resume"
    return "nothing was saved yet; go on with --resume"
