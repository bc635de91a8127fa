"""The rules of a run directory: what may be written into it, taken out of it, and gone on with."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from deltafine.errors import DeltafineError
from deltafine.settings import CHANGEABLE, TODAYS_DEFAULT, TRUSTING, RefineSettings, given_names, resolve
from deltafine.storage import run_files
from deltafine.storage.files import is_unfinished, remove_unfinished
from deltafine.video.cache import is_cache

PATHS = ("model", "data", "streams")
"""Settings that are paths: other ways of writing the same are not a change."""


def settings_of(directory: Path, wanted: RefineSettings, given: set[str]) -> RefineSettings:
    """The settings that a run was started with; other ones that the user gives now are refused.

    Args:
        directory: of the run.
        wanted: all settings as they are now.
        given: names of those that the user gives now.

    Raises:
        DeltafineError: there is no run, or it was started with others.
    """
    recipe = directory / run_files.SETTINGS
    if not recipe.exists():
        raise DeltafineError(f"{directory} holds no run that could be resumed: start it without --resume.")
    try:
        started_with = resolve(recipe, trusted=given)
    except DeltafineError as error:
        if str(recipe) in str(error):
            raise
        raise DeltafineError(f"{recipe} is damaged, so the run cannot be resumed. {error}") from error
    for name in sorted(given - set(CHANGEABLE)):
        before, now = getattr(started_with, name), getattr(wanted, name)
        if name == "at":  # the same words, which may have meant something else when the run was started
            now = before if _words(before) == _words(now) else now
        if before != now and not (name in PATHS and before and Path(before).resolve() == Path(now).resolve()):
            raise DeltafineError(
                f"The run in {directory} was started with {name} = {before!r}, not {now!r}: resume it without that, or "
                "start a new run."
            )
    changed: dict[str, Any] = {name: getattr(wanted, name) for name in given & set(CHANGEABLE)}
    if "start" not in given_names(recipe, trusted=TRUSTING):
        changed["start"] = None  # a run of an earlier version
    return started_with.model_copy(update=changed)


def _words(at: tuple[str, ...]) -> tuple[str, ...]:
    """The patterns as a user gives them."""
    return tuple("default" if word == TODAYS_DEFAULT else word for word in at) or ("default",)


def entries_of(directory: Path) -> list[Path]:
    """What is in a directory but for what a run that was killed in its beginning has left; nothing if it is not there.

    Frames are kept while videos are looked at, before anything is known of the run.
    """
    if not directory.is_dir():
        return []
    return [entry for entry in directory.iterdir() if not is_unfinished(entry) and not _is_frames(entry)]


def _is_frames(entry: Path) -> bool:
    """Whether it is the folder of a run's own frames, with nothing else in it."""
    if entry.name != run_files.FRAMES or entry.is_symlink() or not entry.is_dir():
        return False
    return all(is_cache(one) or is_unfinished(one) for one in entry.iterdir())


def check(directory: Path, *, overwrite: bool, resume: bool) -> None:
    """Refuse to write a run where that would lose something else.

    Raises:
        DeltafineError: the directory is a file, or holds a run that is not to be overwritten, or no run.
    """
    if directory.exists() and not directory.is_dir():
        raise DeltafineError(f"{directory} is a file: name a directory for the run with --out.")
    if entries_of(directory) and not resume:
        if not overwrite:
            raise DeltafineError(f"{directory} exists already: choose another --out, or give --overwrite or --resume.")
        if not (directory / run_files.SETTINGS).exists():
            raise DeltafineError(f"{directory} is not a run directory, so it is not overwritten: choose another --out.")


def clear(directory: Path, *, resume: bool) -> None:
    """Remove an older run, or what writers that were killed have left of the one to resume.

    Its settings go last, when the new ones take their place, so that it is known as a run all the time; and before
    anything that a resumed run could go on from, goes what says that it could.
    """
    try:
        remove_unfinished(directory)
        remove_unfinished(directory / run_files.CHECKPOINTS)
        for name in () if resume else (run_files.CALIBRATED, run_files.LAST):
            (directory / run_files.CHECKPOINTS / name).unlink(missing_ok=True)
        for entry in () if resume else entries_of(directory):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != run_files.SETTINGS:
                entry.unlink()
    except OSError as error:
        raise DeltafineError(f"The older run in {directory} cannot be removed: {error.strerror}.") from error


def remove_if_nothing_was_made(directory: Path) -> None:
    """Take away a directory that holds no more than settings and frames; the same command can then be given again."""
    entries = {entry.name for entry in directory.iterdir()} if directory.is_dir() else {""}
    if entries <= {run_files.SETTINGS, run_files.FRAMES}:
        shutil.rmtree(directory, ignore_errors=True)
