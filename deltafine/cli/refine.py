"""`deltafine refine`: the main job."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated, Any

import typer

from deltafine.cli.inspect import plan_of, show_plan
from deltafine.errors import DeltafineError
from deltafine.storage import run_files

_BUDGET, _MODEL, _DELTAS, _DATA, _TRAINING = "Budget", "Model", "Delta layers", "Data", "Training"
_WORKERS = "Several machines"


def refine(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Pretrained Keras model (.keras or .h5).")],
    data: Annotated[
        Path, typer.Option("--data", metavar="DIR", help="Videos: a folder per class, or UCF101's layout.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Run directory to make.")],
    epochs: Annotated[int | None, typer.Option(min=0, help="Epochs; 0 only calibrates. (default 4)")] = None,
    recipe: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TOML file of settings; options go first.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of everything random. (default 0)")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing run.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an existing run.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and end.")] = False,
    target_macs: Annotated[
        float | None, typer.Option(help="MAC density to reach, e.g. 0.05.", rich_help_panel=_BUDGET)
    ] = None,
    target_sparsity: Annotated[
        float | None, typer.Option(help="Delta sparsity to reach.", rich_help_panel=_BUDGET)
    ] = None,
    target_pixels: Annotated[
        float | None, typer.Option(help="Pixel density to reach.", rich_help_panel=_BUDGET)
    ] = None,
    max_accuracy_drop: Annotated[
        str | None, typer.Option(metavar="1%", help="Save as much as that allows.", rich_help_panel=_BUDGET)
    ] = None,
    max_divergence: Annotated[
        float | None,
        typer.Option(metavar="NATS", help="What calibration alone may spend.", rich_help_panel=_BUDGET),
    ] = None,
    penalty: Annotated[
        float | None, typer.Option(help="λ to begin with: what an event costs.", rich_help_panel=_BUDGET)
    ] = None,
    pick: Annotated[
        int | None, typer.Option(metavar="EPOCH", help="With --resume: another epoch.", rich_help_panel=_BUDGET)
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="classification, regression or distill.", rich_help_panel=_MODEL)
    ] = None,
    clip_output: Annotated[
        str | None, typer.Option(help="What stands for a clip: mean, last, per-frame.", rich_help_panel=_MODEL)
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Frames, if the model takes any.", rich_help_panel=_MODEL)
    ] = None,
    custom_objects: Annotated[
        list[str] | None,
        typer.Option(metavar="MODULE:NAME", help="A layer or function of your own.", rich_help_panel=_MODEL),
    ] = None,
    unsafe_lambda: Annotated[
        bool,
        typer.Option("--unsafe-lambda", help="Run Python code stored in the file.", rich_help_panel=_MODEL),
    ] = False,
    workers: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT,...", help="Several processes at one run.", rich_help_panel=_WORKERS),
    ] = None,
    worker_index: Annotated[
        int | None, typer.Option(min=0, help="Which of them this is; 0 leads.", rich_help_panel=_WORKERS)
    ] = None,
    at: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Only after these layers.", rich_help_panel=_DELTAS)
    ] = None,
    skip: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Not after these layers.", rich_help_panel=_DELTAS)
    ] = None,
    rule: Annotated[str | None, typer.Option(help="send-on-delta or quantize.", rich_help_panel=_DELTAS)] = None,
    granularity: Annotated[
        str | None, typer.Option(help="element, or pixel: all channels at once.", rich_help_panel=_DELTAS)
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="deltafine, or a baseline: paper, l1.", rich_help_panel=_DELTAS)
    ] = None,
    relative_threshold: Annotated[
        float | None, typer.Option(help="Threshold / RMS of the activations.", rich_help_panel=_DELTAS)
    ] = None,
    streams: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Continuous videos to measure on.", rich_help_panel=_DATA)
    ] = None,
    classes: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="In the order of the outputs.", rich_help_panel=_DATA)
    ] = None,
    rescale: Annotated[
        str | None, typer.Option(help="0..1 or -1..1; default pixels 0-255.", rich_help_panel=_DATA)
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep decoded frames there.", rich_help_panel=_DATA)
    ] = None,
    layout: Annotated[str | None, typer.Option(help="Found by itself.", rich_help_panel=_DATA)] = None,
    split: Annotated[int | None, typer.Option(min=1, help="Number of the split list.", rich_help_panel=_DATA)] = None,
    fps: Annotated[float | None, typer.Option(help="Take frames at this rate.", rich_help_panel=_DATA)] = None,
    allow_outside: Annotated[
        bool, typer.Option("--allow-outside", help="Lists may name files elsewhere.", rich_help_panel=_DATA)
    ] = False,
    max_bad_videos: Annotated[
        int | None, typer.Option(min=0, help="Unreadable videos tolerated.", rich_help_panel=_DATA)
    ] = None,
    frames: Annotated[
        int | None, typer.Option(help="Length of a clip; default the model's or 8.", rich_help_panel=_TRAINING)
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Clips per step.", rich_help_panel=_TRAINING)] = None,
    learning_rate: Annotated[float | None, typer.Option(rich_help_panel=_TRAINING)] = None,
    threshold_learning_rate: Annotated[
        float | None, typer.Option(help="Of log threshold; 0: thresholds stay.", rich_help_panel=_TRAINING)
    ] = None,
    distill: Annotated[
        float | None, typer.Option(help="Share of the original's answers.", rich_help_panel=_TRAINING)
    ] = None,
    freeze: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Layers not to train.", rich_help_panel=_TRAINING)
    ] = None,
    unfreeze: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Frozen ones to train.", rich_help_panel=_TRAINING)
    ] = None,
    early_stopping: Annotated[
        int | None, typer.Option(metavar="EPOCHS", help="End when none was better.", rich_help_panel=_TRAINING)
    ] = None,
    mixed_precision: Annotated[
        bool, typer.Option("--mixed-precision", help="Train in bfloat16.", rich_help_panel=_TRAINING)
    ] = False,
    on_nan: Annotated[
        str | None,
        typer.Option(metavar="stop|rollback", help="When the loss diverges.", rich_help_panel=_TRAINING),
    ] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Repeat to the last bit on GPUs too.", rich_help_panel=_TRAINING)
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write its logs into the run.", rich_help_panel=_TRAINING)
    ] = False,
) -> None:
    """Refine a model on videos, measure it, and write the refined model and its report."""
    settings: dict[str, Any] = {
        "task": task,
        "clip_output": clip_output,
        "size": size,
        "custom_objects": tuple(custom_objects) if custom_objects else None,
        "unsafe_lambda": unsafe_lambda or None,
        "cache": None if cache is None else str(cache),
        "epochs": epochs,
        "max_divergence": max_divergence,
        "penalty": penalty,
        "seed": seed,
        "at": tuple(at) if at else None,
        "skip": tuple(skip) if skip else None,
        "rule": rule,
        "granularity": granularity,
        "method": method,
        "relative_threshold": relative_threshold,
        "streams": None if streams is None else str(streams),
        "classes": None if classes is None else tuple(name.strip() for name in classes.split(",")),
        "rescale": rescale,
        "layout": layout,
        "split": split,
        "max_bad_videos": max_bad_videos,
        "frames": frames,
        "batch": batch,
        "learning_rate": learning_rate,
        "threshold_learning_rate": threshold_learning_rate,
        "distill": distill,
        "target_macs": target_macs,
        "target_sparsity": target_sparsity,
        "target_pixels": target_pixels,
        "max_accuracy_drop": None if max_accuracy_drop is None else _share(max_accuracy_drop),
        "freeze": tuple(freeze) if freeze else None,
        "unfreeze": tuple(unfreeze) if unfreeze else None,
        "fps": fps,
        "allow_outside": allow_outside or None,
        "early_stopping": early_stopping,
        "mixed_precision": mixed_precision or None,
        "on_nan": on_nan,
        "deterministic": deterministic or None,
        "tensorboard": tensorboard or None,
    }
    if dry_run:
        _show_plan(recipe, model=str(model), data=str(data), **settings)
        return
    how: dict[str, Any] = {"recipe": recipe, "overwrite": overwrite, "resume": resume, "pick": pick}
    run(model, data, out, workers=workers, worker_index=worker_index, **how, **settings)


def _show_plan(recipe: Path | None, **given: Any) -> None:
    """What `inspect` shows, with the settings of this run."""
    from rich.console import Console

    from deltafine.settings import resolve

    chosen = resolve(recipe, **given)
    plan = plan_of(
        chosen.model,
        chosen.at,
        chosen.skip,
        chosen.threshold_per,
        chosen.size,
        chosen.frames,
        chosen.custom_objects,
        chosen.unsafe_lambda,
        chosen.clip_output,
        chosen.freeze,
        chosen.unfreeze,
    )
    show_plan(plan, Console(highlight=False))


def _share(text: str) -> float:
    """``1%`` or ``0.01``."""
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise DeltafineError(f"--max-accuracy-drop {text} is neither a number nor a percentage: try 1%.") from None


def run(model: Path, data: Path, out: Path, **settings: Any) -> None:
    """Refine with progress, and show the report; Ctrl-C says what is left and exits with 130."""
    from rich.console import Console

    from deltafine.cli.console import Talk, load_tensorflow
    from deltafine.jobs.refine import refine as refine_model
    from deltafine.refinement.run.interruption import Requests
    from deltafine.report import terminal
    from deltafine.workers import cluster_of

    cluster = cluster_of(settings.get("workers"), settings.get("worker_index"))
    leads = cluster is None or cluster.index == 0
    with Requests(), Talk(quiet=not leads) as talk:
        try:
            load_tensorflow()
            report = refine_model(model, data, out, listener=talk, **settings)
        except KeyboardInterrupt as stop:
            saved = getattr(stop, "saved", None)
            left = f"the best model so far is {saved}; go on with --resume" if saved else _what_is_left(out)
            talk.say(f"Interrupted: {left}.")
            raise typer.Exit(128 + getattr(stop, "signal", signal.SIGINT)) from stop
    if not leads:
        return
    terminal.show(report, Console())
    print(f"\nWritten to {out}: refined.keras, report.html, report.json, report.md")


def _what_is_left(out: Path) -> str:
    """After a stop before an epoch was over, or after the training."""
    if not (out / run_files.SETTINGS).exists():
        return "nothing was written; start again"
    refined = out / run_files.REFINED
    if refined.exists():
        return f"the refined model is {refined}, its report is not written yet; go on with --resume"
    if (out / run_files.CHECKPOINTS).exists():
        return "no epoch was over; go on with --resume"
    return "nothing was saved yet; go on with --resume"
