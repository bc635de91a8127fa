"""The main job from end to end: refine, measure, report, in one run directory."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deltafine.errors import DeltafineError
from deltafine.refinement.run import directory as run_directory
from deltafine.refinement.run.interruption import Requests
from deltafine.refinement.run.lock import locked
from deltafine.settings import RefineSettings, given_names, resolve
from deltafine.storage import run_files
from deltafine.storage.files import make_folder, write_atomically
from deltafine.video.frames import Limits, limited

if TYPE_CHECKING:
    from deltafine.document.history import Epoch
    from deltafine.document.report import Picture
    from deltafine.refinement.listener import Listener
    from deltafine.refinement.run.refinement import Outcome, Refinement
    from deltafine.report import Report
    from deltafine.workers import Workers


class Quiet:
    """A listener that says nothing."""

    def say(self, text: str) -> None: ...

    def progress(self, what: str, done: int, total: int, figures: str = "") -> None: ...

    def epoch(self, epoch: Epoch, epochs: int) -> None: ...


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
        model: path of a ``.keras``, ``.h5`` or ``.onnx`` file.
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
        settings: the fields of ``deltafine.settings.RefineSettings``.

    Returns:
        The report, as written.

    Raises:
        DeltafineError: the input cannot be used as it is; nothing is lost.
        Interrupted: on Ctrl-C or SIGTERM; the run can be resumed.
        WorkerLost: another of the processes has ended.

    Examples:
        >>> report = deltafine.refine("model.keras", "videos/", "calibrated/", epochs=0, frames=4)
        >>> sorted(report.models)
        ['calibrated', 'original']
    """
    from deltafine.workers import ALONE, cluster_of, join

    started = time.monotonic()
    directory = Path(out)
    listener = listener or Quiet()
    resolved = resolve(recipe, model=str(model), data=str(data), **settings)
    if resume and overwrite:
        raise DeltafineError("To resume goes on with a run, and to overwrite replaces it: ask for one of them.")
    if pick is not None and not resume:
        raise DeltafineError("An epoch can be picked from a finished run only: give --resume as well.")
    given = given_names(recipe, model=model, data=data, **settings)
    if resolved.epochs is not None and "time" in given_names(**settings):
        raise DeltafineError("The epochs follow from the time that a run may take: give --time or --epochs, not both.")
    cluster = cluster_of(workers, worker_index)
    team = ALONE if cluster is None else join(cluster)
    with Requests() as requests, ExitStack() as locks:
        was_there = team.chief and directory.exists()
        began = made = False
        try:

            def begin() -> list[Any]:
                nonlocal began
                going_on = resume
                if resume and not run_directory.entries_of(directory) and pick is None:
                    listener.say(f"There is no run in {directory} yet: it starts from the beginning.")
                    going_on = False
                chosen = run_directory.settings_of(directory, resolved, given) if going_on else resolved
                _check_inputs(chosen)
                run_directory.check(directory, overwrite=overwrite, resume=going_on)
                make_folder(directory)
                locks.enter_context(locked(directory))
                run_directory.check(directory, overwrite=overwrite, resume=going_on)  # another may have been quicker
                began = True
                return [chosen.model_dump(mode="json"), going_on]

            told, resume = team.lead(begin)
            mine = {name: getattr(resolved, name) for name in (*run_directory.PATHS, "cache")}
            final = RefineSettings.model_validate(told if team.chief else {**told, **mine})
            locks.enter_context(limited(Limits(frames=final.max_frames, seconds=final.max_seconds)))
            run = _prepare(final, directory, listener, requests, team)
            if pick is not None and not run.trains:
                raise DeltafineError(f"The run in {directory} trains nothing, so it has no epoch {pick} to pick.")

            def make() -> None:
                nonlocal made
                # Only now is it known that the input can be used: an older run is not lost to a misspelt path.
                made = True
                run_directory.clear(directory, resume=resume)
                write_atomically(directory / run_files.SETTINGS, run.settings.to_toml().encode("utf-8"))

            team.lead(make)
            outcome = run.run(resume=resume, pick=pick)
            listener.progress("drawing pictures and writing the report", 0, 0)
            report = _told(team, lambda: _write_report(outcome, directory, started))
            if not team.chief:
                _remove_own_frames(outcome.own_cache)
        except BaseException as error:
            if began and not made and not resume:
                _remove_own_frames(directory / run_files.FRAMES)
            elif made and not was_there and isinstance(error, Exception):
                run_directory.remove_if_nothing_was_made(directory)
            raise
    return report


def _prepare(settings: RefineSettings, out: Path, listener: Listener, requests: Requests, team: Workers) -> Refinement:
    import keras

    from deltafine.refinement.run.refinement import Refinement
    from deltafine.workers import all_devices
    from deltafine.workers.devices import prepare_devices

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
    report = _document(outcome, seconds=time.monotonic() - started)
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
    """Of a run that has not begun, or a worker that does not share the chief's run directory."""
    shutil.rmtree(cache, ignore_errors=True)
    with suppress(OSError):  # the chief's run is in there
        cache.parent.rmdir()


def _pictures(outcome: Outcome) -> list[tuple[Picture, bytes]]:
    """Where events happen in a few validation clips, and the frames of the streams at which the model is worst."""
    from deltafine.jobs.pictures import draw_pictures
    from deltafine.jobs.worst_pictures import worst_pictures

    prepared = outcome.prepared
    if prepared.window is not None:
        return []  # a window is one picture to such a network
    last = list(outcome.measurements)[-1]
    drawn = draw_pictures({"original": outcome.original, last: outcome.refined}, prepared.data, frames=prepared.frames)
    return drawn + worst_pictures(
        last,
        outcome.measurements[last].streams,
        prepared.streams,
        shape=(*prepared.size, prepared.channels),
        fps=prepared.settings.fps,
        numbers=prepared.output.numbers,
    )


def _document(outcome: Outcome, *, seconds: float) -> Report:
    """The report of a refinement."""
    from deltafine.document.report import SiteInfo
    from deltafine.jobs.assembly import assemble
    from deltafine.jobs.facts import model_info, score_info
    from deltafine.measurement.given_inputs import sources_of

    prepared = outcome.prepared
    settings, model = prepared.settings, prepared.model
    return assemble(
        settings=settings.model_dump(mode="json"),
        settings_hash=settings.hash(),
        model=model_info(
            model,
            Path(settings.model),
            prepared.sample_shape,
            window=prepared.window,
            class_vector=not prepared.output.numbers and len(model.outputs[0].shape) == 2,
            frozen=outcome.frozen if prepared.epochs else None,
            further=sources_of(prepared.data),
        ),
        data=prepared.data,
        streams=prepared.streams,
        models=outcome.measurements,
        controls=outcome.controls,
        sensitivity=outcome.sensitivity,
        warnings=outcome.warnings,
        seconds=seconds,
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
        history=outcome.history,
        front=outcome.front,
        kept_budget=outcome.kept_budget,
        reference=outcome.reference,
        activity=outcome.activity,
        start_thresholds=outcome.start_thresholds,
        score=score_info(prepared.scoring, prepared.labelled),
    )


def _check_inputs(settings: RefineSettings) -> None:
    if not 0 < settings.validation < 1:
        raise DeltafineError(
            f"The setting 'validation' is {settings.validation:g}, and a run needs videos to train on and to validate "
            "on: give a share above 0 and below 1."
        )
    if settings.cache is not None and Path(settings.cache).exists() and not Path(settings.cache).is_dir():
        raise DeltafineError(f"The cache {settings.cache} is a file: give a folder, or the name of a new one.")
    if not Path(settings.model).exists():
        raise DeltafineError(f"There is no model at {settings.model}: check the path.")
