"""The main job from end to end: refine, measure, report, in one run directory."""

from __future__ import annotations

import hashlib
import os
import platform
import resource
import shutil
import sys
import time
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deltafine.errors import DeltafineError
from deltafine.refinement.settings import RefineSettings, given_names, resolve

if TYPE_CHECKING:
    from deltafine.refinement.listener import Listener
    from deltafine.refinement.run import Outcome
    from deltafine.report import Report
    from deltafine.video import Dataset


SETTINGS_FILE = "settings.toml"
PATHS = ("model", "data", "streams")


class Quiet:
    """A listener that says nothing."""

    def say(self, text: str) -> None: ...

    def progress(self, what: str, done: int, total: int, figures: str = "") -> None: ...

    def epoch(self, epoch: Any, epochs: int) -> None: ...


def refine(
    model: str | os.PathLike[str],
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    recipe: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    pick: int | None = None,
    listener: Listener | None = None,
    **settings: Any,
) -> Report:
    """Refine a pretrained Keras model for temporal sparsity on a folder of videos.

    Args:
        model: path of a ``.keras`` or ``.h5`` file.
        data: path of the videos, see docs/data.md for the layouts.
        out: the run directory to make: ``refined.keras``, ``report.json``, ``.html`` and ``.md``,
            ``settings.toml``, ``history.csv``, ``checkpoints/``.
        recipe: a TOML file of settings, overridden by ``settings``.
        overwrite: replace an existing run directory.
        resume: go on with an existing run directory, with the settings it was started with.
        pick: with ``resume``, take this epoch's weights instead of the best, and measure and report them.
        listener: told how far the run is.
        settings: the fields of :class:`deltafine.refinement.RefineSettings`.

    Returns:
        The report, as written.

    Raises:
        DeltafineError: the input cannot be used as it is; nothing is lost.
    """
    started = time.monotonic()
    directory = Path(out)
    resolved = resolve(recipe, model=str(model), data=str(data), **settings)
    if pick is not None and not resume:
        raise DeltafineError("An epoch can be picked from a finished run only: give --resume as well.")
    if resume:
        given = given_names(recipe, model=model, data=data, **settings)
        resolved = _settings_of(directory, resolved, given)
    _check_model_exists(resolved)
    _check_directory(directory, overwrite=overwrite, resume=resume)
    was_there = directory.exists()
    try:
        report = _refine(resolved, directory, resume, pick, listener or Quiet(), started)
    except Exception:
        if not was_there:
            _remove_if_nothing_was_made(directory)
        raise
    return report


def _refine(
    settings: RefineSettings, out: Path, resume: bool, pick: int | None, listener: Listener, started: float
) -> Report:
    import keras
    import tensorflow as tf

    from deltafine.refinement.checkpoints import write_atomically
    from deltafine.refinement.run import Refinement
    from deltafine.report import write_report

    keras.utils.clear_session(free_memory=False)
    for device in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(device, True)
    run = Refinement(settings, out, listener)
    # Only now is it known that the input can be used: an older run is not lost to a misspelt path.
    _make_directory(out, resume=resume)
    text = settings.to_toml()
    write_atomically(out / SETTINGS_FILE, lambda path: path.write_text(text, encoding="utf-8"))
    outcome = run.run(resume=resume, pick=pick)
    report = assemble(outcome, seconds=time.monotonic() - started)
    write_report(report, out)
    return report


def assemble(outcome: Outcome, *, seconds: float) -> Report:
    """The report document of a refinement."""
    from deltafine.model import mac_layers
    from deltafine.report.document import ModelInfo, Report, SiteInfo, Uncovered
    from deltafine.report.summary import cautions

    prepared = outcome.prepared
    settings, model = prepared.settings, prepared.model
    layers = mac_layers(model, prepared.sample_shape)
    known = sum(entry.dense_macs or 0 for entry in layers)
    report = Report(
        title=f"{Path(settings.model).name} on {Path(settings.data).name or settings.data}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(seconds, 1),
        peak_memory_bytes=peak_memory_bytes(),
        versions=versions(),
        settings=settings.model_dump(mode="json"),
        settings_hash=settings.hash(),
        model=ModelInfo(
            name=Path(settings.model).name,
            sha256=sha256(Path(settings.model)),
            parameters=model.count_params(),
            input_shape=list(prepared.sample_shape),
            outputs=None if prepared.output.numbers or len(model.outputs[0].shape) > 2 else model.outputs[0].shape[-1],
            window=prepared.window,
            coverage=sum(entry.dense_macs or 0 for entry in layers if entry.covered) / known,
            uncovered=[
                Uncovered(name=entry.path, kind=type(entry.layer).__name__, dense_macs=entry.dense_macs)
                for entry in layers
                if not entry.covered
            ],
        ),
        data=_data_info(prepared.data),
        stream_data=None if prepared.streams is prepared.data else _data_info(prepared.streams),
        sites=[
            SiteInfo(
                name=site.name,
                kind=site.kind,
                shape=list(site.shape),
                consumers=list(site.consumers),
                fan_out_macs=site.fan_out_macs,
                mac_share=site.mac_share,
                selected=site.selected,
                reason=site.reason,
            )
            for site in prepared.sites
        ],
        models=outcome.measurements,
        history=outcome.history,
        front=outcome.front,
        warnings=outcome.warnings,
    )
    report.warnings = cautions(report)
    return report


def _data_info(data: Dataset) -> Any:
    from deltafine.report.document import DataInfo, Problem
    from deltafine.video.files import as_text

    return DataInfo(
        path=str(data.path),
        layout=data.layout,
        classes=[as_text(name) for name in data.classes],
        train_videos=len(data.select("train")),
        validation_videos=len(data.select("validation")),
        fingerprint=data.fingerprint(),
        problems=[Problem(video=as_text(problem.video), reason=problem.reason) for problem in data.problems],
    )


def versions() -> Any:
    """Versions of everything that makes the figures."""
    import av
    import keras
    import numpy
    import tensorflow

    from deltafine import __version__
    from deltafine.report.document import Versions

    return Versions(
        deltafine=__version__,
        python=platform.python_version(),
        keras=keras.__version__,
        tensorflow=tensorflow.__version__,
        numpy=numpy.__version__,
        av=av.__version__,
        platform=platform.platform(),
    )


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_model_exists(settings: RefineSettings) -> None:
    if not Path(settings.model).exists():
        raise DeltafineError(f"There is no model at {settings.model}: check the path.")


def _settings_of(directory: Path, wanted: RefineSettings, given: Collection[str]) -> RefineSettings:
    """The settings that a run was started with; other ones that the user gives now are refused."""
    recipe = directory / SETTINGS_FILE
    if not recipe.exists():
        raise DeltafineError(f"{directory} holds no run that could be resumed: start it without --resume.")
    started_with = resolve(recipe)
    for name in sorted(given):
        before, now = getattr(started_with, name), getattr(wanted, name)
        if before != now and not (name in PATHS and before and Path(before).resolve() == Path(now).resolve()):
            raise DeltafineError(
                f"The run in {directory} was started with {name} = {before!r}, not {now!r}: resume it without that, or "
                "start a new run."
            )
    return started_with


def _check_directory(directory: Path, *, overwrite: bool, resume: bool) -> None:
    if directory.exists() and not directory.is_dir():
        raise DeltafineError(f"{directory} is a file: name a directory for the run with --out.")
    if directory.exists() and any(directory.iterdir()) and not resume:
        if not overwrite:
            raise DeltafineError(f"{directory} exists already: choose another --out, or give --overwrite or --resume.")
        if not (directory / SETTINGS_FILE).exists():
            raise DeltafineError(f"{directory} is not a run directory, so it is not overwritten: choose another --out.")


def _make_directory(directory: Path, *, resume: bool) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for entry in () if resume else directory.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    except OSError as error:
        raise DeltafineError(f"Cannot make the run directory {directory}: {error.strerror}.") from error


def _remove_if_nothing_was_made(directory: Path) -> None:
    """Take away a directory that holds at most the settings, so that the same command can be given again."""
    if directory.is_dir() and {entry.name for entry in directory.iterdir()} == {SETTINGS_FILE}:
        (directory / SETTINGS_FILE).unlink()
        directory.rmdir()
