"""The run that a model came from, and whether what it is measured on was trained on there."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deltafine.errors import DeltafineError, DeltafineWarning
from deltafine.settings import DECLARED, TRUSTING, RefineSettings, resolve
from deltafine.settings.score_names import BUILT_IN_SCORES
from deltafine.storage import run_files

if TYPE_CHECKING:
    from deltafine.measurement.task import Read
    from deltafine.settings import GivenSettings
    from deltafine.video import Dataset

HOW_IT_SPLIT = ("layout", "split", "classes", "validation", "seed")
HOW_IT_READ = ("task", "output_weight", "input", "frames", "size", "fps", *HOW_IT_SPLIT)
"""Settings of a run with which its model is measured again; not those that have to be trusted each time."""


@dataclass(frozen=True)
class Origin:
    """A run.

    Attributes:
        directory: of the run.
        settings: that it was started with.
        fingerprint: of its videos and their split; None where its report cannot be read.
    """

    directory: Path
    settings: RefineSettings
    fingerprint: str | None

    @property
    def reading(self) -> GivenSettings:
        """How the run read its model and its videos."""
        values = {name: getattr(self.settings, name) for name in HOW_IT_READ}
        if self.settings.score in BUILT_IN_SCORES:  # any other imports a module
            values["score"] = self.settings.score
        return {name: value for name, value in values.items() if value is not None}

    def had(self, data: Dataset) -> bool:
        """Whether these are the videos of the run, split as there."""
        from deltafine.measurement.task import without_labels

        if self.fingerprint is None:
            return Path(self.settings.data).resolve() == data.path.resolve()
        return any(one.fingerprint() == self.fingerprint for one in (data, without_labels(data)))


def origin_of(model: Path, *, needed: bool = False) -> Origin | None:
    """The run in whose directory a model lies, or the one whose export it is; None where there is none.

    Raises:
        DeltafineError: ``needed``, and its settings cannot be read; else that is said, and there is none.
    """
    from deltafine.report import load_report

    for folder in (model.parent, model.parent.parent) if model.parent.name == run_files.EXPORT else (model.parent,):
        if (folder / run_files.SETTINGS).exists():
            try:
                settings = resolve(folder / run_files.SETTINGS, trusted=TRUSTING, model=str(model))
            except DeltafineError as error:
                if needed and run_files.SETTINGS in str(error):
                    raise
                if needed:
                    raise DeltafineError(f"{folder / run_files.SETTINGS} cannot be used: {error}") from error
                warnings.warn(
                    f"The settings of the run in {folder} are not used: {error}", DeltafineWarning, stacklevel=2
                )
                continue
            fingerprint = None
            with suppress(DeltafineError):
                fingerprint = load_report(folder).data.fingerprint
            return Origin(folder, settings, fingerprint)
    return None


def videos_of(run: Path) -> Path:
    """The streams that a run was measured on, or where it had none all of its videos.

    Args:
        run: a run directory, or the model in it.

    Raises:
        DeltafineError: there is no run that names any.
    """
    model = run / run_files.REFINED if run.is_dir() else run
    try:
        origin = origin_of(model, needed=True)
    except DeltafineError as error:
        raise DeltafineError(f"{str(error).rstrip('.')}: give --data.") from error
    if origin is None:
        raise DeltafineError(f"{model.parent} has no {run_files.SETTINGS} that names videos: give --data.")
    return Path(origin.settings.streams or origin.settings.data)


def cut_as_in_run(
    origin: Origin | None, data: Dataset, read: Read, sample: Sequence[int]
) -> tuple[Dataset, str | None]:
    """A single video as a run has cut it in one segment to train on and one to measure on; and what to say of that.

    ``sample`` is the shape of what the model takes.
    """
    from deltafine.measurement.task import split_in_time

    if origin is not None and len(data.videos) == 1 and not data.select("train"):
        cut, said = split_in_time(data, origin.settings.validation, read, sample)
        if origin.had(cut):
            return cut, said
    return data, None


def about_training(model: Path, origin: Origin | None, data: Dataset, used: RefineSettings) -> str | None:
    """What to say of videos that a model is measured on and may have been trained on; None where it was not.

    Args:
        model: that is measured.
        origin: the run that it came from, if that is known.
        data: of which the test or validation videos are measured on.
        used: the settings with which these were opened.
    """
    from deltafine.measurement.task import open_data

    if origin is None:
        return (
            f"{model} does not lie in the directory of a run, so it is not known which videos it was trained on: "
            "some of those measured here may be among them."
        )
    if origin.had(data):
        return None
    run = origin.settings
    with suppress(DeltafineError):
        how = {**{name: getattr(run, name) for name in HOW_IT_SPLIT}, "allow_outside": used.allow_outside}
        as_in_run = open_data(data.path, run.task, **how)
        if origin.had(as_in_run):
            return _overlap(origin, as_in_run, data, used)
    return (
        f"The videos in {data.path}, or their split, are not those of the run in {origin.directory}: it is not known "
        "whether some of those measured here were trained on."
    )


def _overlap(origin: Origin, as_in_run: Dataset, data: Dataset, used: RefineSettings) -> str | None:
    trained = {video.source for video in as_in_run.select("train")}
    measured = {video.source for video in data.select("test") or data.select("validation")}
    if not (both := trained & measured):
        return None
    others = [DECLARED[name].option for name in HOW_IT_SPLIT if getattr(used, name) != getattr(origin.settings, name)]
    return (
        f"{len(both)} of the {len(measured)} videos measured here were trained on by the run in {origin.directory}, "
        f"which was started with another {' and '.join(others)}: leave that out to measure on none of them."
    )
