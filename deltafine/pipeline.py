"""The main job from end to end: refine, measure, report, in one run directory."""

from __future__ import annotations

import hashlib
import os
import platform
import resource
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deltafine.errors import DeltafineError
from deltafine.files import is_unfinished, make_folder, remove_unfinished, write_atomically
from deltafine.refinement.interruption import Requests
from deltafine.refinement.lock import locked
from deltafine.refinement.settings import CHANGEABLE, RefineSettings, given_names, resolve

if TYPE_CHECKING:
    from deltafine.refinement.listener import Listener
    from deltafine.refinement.run import Outcome, Refinement
    from deltafine.report import Report
    from deltafine.video import Dataset
    from deltafine.workers import Workers


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
    workers: str | Sequence[str] | None = None,
    worker_index: int | None = None,
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
        resume: go on with an existing run directory, with the settings it was started with; start where there is none.
        pick: with ``resume``, take this epoch's weights instead of the best, and measure and report them.
        workers: ``host:port`` of several processes that do the run together, the chief first; or ``TF_CONFIG``.
        worker_index: which of them this one is. Only the chief reads and writes ``out``.
        listener: told how far the run is.
        settings: the fields of :class:`deltafine.refinement.RefineSettings`.

    Returns:
        The report, as written.

    Raises:
        DeltafineError: the input cannot be used as it is; nothing is lost.
        Interrupted: on Ctrl-C or SIGTERM; the run can be resumed.
        WorkerLost: another of the processes has ended.
    """
    from deltafine.workers import ALONE, cluster_of, join

    started = time.monotonic()
    directory = Path(out)
    listener = listener or Quiet()
    resolved = resolve(recipe, model=str(model), data=str(data), **settings)
    if pick is not None and not resume:
        raise DeltafineError("An epoch can be picked from a finished run only: give --resume as well.")
    cluster = cluster_of(workers, worker_index)
    team = ALONE if cluster is None else join(cluster)
    given = given_names(recipe, model=model, data=data, **settings)
    with Requests() as requests, ExitStack() as locks:
        was_there = ours = team.chief and directory.exists()
        try:

            def begin() -> list[Any]:
                going_on = resume
                if resume and not _entries(directory) and pick is None:
                    listener.say(f"There is no run in {directory} yet: it starts from the beginning.")
                    going_on = False
                chosen = _settings_of(directory, resolved, given) if going_on else resolved
                _check_model_exists(chosen)
                _check_directory(directory, overwrite=overwrite, resume=going_on)
                if was_there:
                    locks.enter_context(locked(directory))
                return [chosen.model_dump(mode="json"), going_on]

            told, resume = team.lead(begin)
            mine = {name: getattr(resolved, name) for name in (*PATHS, "cache")}
            final = RefineSettings.model_validate(told if team.chief else {**told, **mine})
            run = _prepare(final, directory, listener, requests, team)

            def make() -> None:
                nonlocal ours
                # Only now is it known that the input can be used: an older run is not lost to a misspelt path.
                make_folder(directory)
                if not was_there:
                    locks.enter_context(locked(directory))
                    _check_directory(directory, overwrite=overwrite, resume=resume)  # another may have been quicker
                    ours = True
                _clear(directory, resume=resume)
                write_atomically(directory / SETTINGS_FILE, final.to_toml().encode("utf-8"))

            team.lead(make)
            outcome = run.run(resume=resume, pick=pick)
            report = _told(team, lambda: _write_report(outcome, directory, started))
            if not team.chief:
                _remove_own_frames(outcome.own_cache)
        except Exception:
            if ours and not was_there:
                _remove_if_nothing_was_made(directory)
            raise
    return report


def _prepare(settings: RefineSettings, out: Path, listener: Listener, requests: Requests, team: Workers) -> Refinement:
    import keras

    from deltafine.devices import prepare_devices
    from deltafine.refinement.run import Refinement
    from deltafine.workers import all_devices

    keras.utils.clear_session(free_memory=False)
    prepare_devices(deterministic=settings.deterministic)
    team = all_devices() if team.count == 1 else team
    if team.strategy is not None:
        listener.say(team.summary())
    return Refinement(settings, out, listener, requests, team)


def _write_report(outcome: Outcome, out: Path, started: float) -> Report:
    from deltafine.report import write_report

    pictures = _pictures(outcome)
    shutil.rmtree(outcome.own_cache, ignore_errors=True)  # a cache elsewhere is the user's, and stays
    report = assemble(outcome, seconds=time.monotonic() - started)
    report.pictures = [picture for picture, _ in pictures]
    write_report(report, out, {picture.file: drawn for picture, drawn in pictures})
    return report


def _told(team: Workers, write: Callable[[], Report]) -> Report:
    """What the chief writes, for all."""
    from deltafine.report import Report

    if team.count == 1:
        return write()
    return Report.model_validate(team.lead(lambda: write().model_dump(mode="json")))


def _remove_own_frames(cache: Path) -> None:
    """Of a worker that does not share the chief's run directory."""
    shutil.rmtree(cache, ignore_errors=True)
    with suppress(OSError):  # the chief's run is in there
        cache.parent.rmdir()


def _pictures(outcome: Outcome) -> list[tuple[Any, bytes]]:
    """Where events happen in a few validation clips, in the original and in the refined model."""
    from deltafine.report.pictures import draw_pictures

    prepared = outcome.prepared
    if prepared.window is not None:
        return []  # a window is one picture to such a network
    models = {"original": outcome.original, list(outcome.measurements)[-1]: outcome.refined}
    return draw_pictures(models, prepared.data, frames=prepared.frames)


def assemble(outcome: Outcome, *, seconds: float) -> Report:
    """The report document of a refinement."""
    from deltafine.measurement.energy import HOROWITZ
    from deltafine.report.document import Report, SiteInfo
    from deltafine.report.summary import cautions

    prepared = outcome.prepared
    settings, model = prepared.settings, prepared.model
    report = Report(
        title=f"{Path(settings.model).name} on {Path(settings.data).name or settings.data}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(seconds, 1),
        peak_memory_bytes=peak_memory_bytes(),
        versions=versions(),
        settings=settings.model_dump(mode="json"),
        settings_hash=settings.hash(),
        model=model_info(
            model,
            Path(settings.model),
            prepared.sample_shape,
            window=prepared.window,
            class_vector=not prepared.output.numbers and len(model.outputs[0].shape) == 2,
        ),
        data=data_info(prepared.data),
        stream_data=None if prepared.streams is prepared.data else data_info(prepared.streams),
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
        energy_table=HOROWITZ,
        history=outcome.history,
        front=outcome.front,
        start_steps=outcome.start_steps,
        warnings=outcome.warnings,
    )
    report.warnings = cautions(report)
    return report


def model_info(
    model: Any, path: Path, sample_shape: Sequence[int], *, window: int | None = None, class_vector: bool = True
) -> Any:
    """What a report says of a model that takes samples of this shape, and gives a class vector or something else."""
    from deltafine.model import mac_layers
    from deltafine.report.document import ModelInfo, Uncovered

    layers = mac_layers(model, tuple(sample_shape))
    known = sum(entry.dense_macs or 0 for entry in layers)
    return ModelInfo(
        name=path.name,
        sha256=sha256(path),
        parameters=model.count_params(),
        input_shape=list(sample_shape),
        outputs=model.outputs[0].shape[-1] if class_vector else None,
        window=window,
        coverage=sum(entry.dense_macs or 0 for entry in layers if entry.covered) / known if known else 0.0,
        uncovered=[
            Uncovered(name=entry.path, kind=type(entry.layer).__name__, dense_macs=entry.dense_macs)
            for entry in layers
            if not entry.covered
        ],
    )


def data_info(data: Dataset) -> Any:
    """What a report says of a data set."""
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


def _settings_of(directory: Path, wanted: RefineSettings, given: set[str]) -> RefineSettings:
    """The settings that a run was started with; other ones that the user gives now are refused."""
    recipe = directory / SETTINGS_FILE
    if not recipe.exists():
        raise DeltafineError(f"{directory} holds no run that could be resumed: start it without --resume.")
    started_with = resolve(recipe, trusted=given)
    for name in sorted(given - set(CHANGEABLE)):
        before, now = getattr(started_with, name), getattr(wanted, name)
        if before != now and not (name in PATHS and before and Path(before).resolve() == Path(now).resolve()):
            raise DeltafineError(
                f"The run in {directory} was started with {name} = {before!r}, not {now!r}: resume it without that, or "
                "start a new run."
            )
    return started_with.model_copy(update={name: getattr(wanted, name) for name in given & set(CHANGEABLE)})


def _entries(directory: Path) -> list[Path]:
    """What is in a directory but for what a writer that was killed has left; nothing if it is not there."""
    return [entry for entry in directory.iterdir() if not is_unfinished(entry)] if directory.is_dir() else []


def _check_directory(directory: Path, *, overwrite: bool, resume: bool) -> None:
    if directory.exists() and not directory.is_dir():
        raise DeltafineError(f"{directory} is a file: name a directory for the run with --out.")
    if _entries(directory) and not resume:
        if not overwrite:
            raise DeltafineError(f"{directory} exists already: choose another --out, or give --overwrite or --resume.")
        if not (directory / SETTINGS_FILE).exists():
            raise DeltafineError(f"{directory} is not a run directory, so it is not overwritten: choose another --out.")


def _clear(directory: Path, *, resume: bool) -> None:
    """Remove an older run, or what writers that were killed have left of the one to resume.

    Its settings go last, when the new ones take their place, so that it is known as a run all the time; and before
    anything that a resumed run could go on from, goes what says that it could.
    """
    try:
        remove_unfinished(directory)
        remove_unfinished(directory / "checkpoints")
        for name in () if resume else ("calibrated.h5", "last.h5"):
            (directory / "checkpoints" / name).unlink(missing_ok=True)
        for entry in () if resume else directory.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != SETTINGS_FILE:
                entry.unlink()
    except OSError as error:
        raise DeltafineError(f"The older run in {directory} cannot be removed: {error.strerror}.") from error


def _remove_if_nothing_was_made(directory: Path) -> None:
    """Take away a directory that holds no more than settings and frames; the same command can then be given again."""
    entries = {entry.name for entry in directory.iterdir()} if directory.is_dir() else {""}
    if entries <= {SETTINGS_FILE, "cache"}:
        shutil.rmtree(directory, ignore_errors=True)
