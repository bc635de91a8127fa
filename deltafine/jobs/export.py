"""The refined model for others: written, compared on real frames, and noted."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from deltafine.errors import DeltafineError
from deltafine.jobs.export_record import keep
from deltafine.jobs.model_files import check_clip_output, trust_in
from deltafine.jobs.opened_videos import frames_of_videos, how_to_open
from deltafine.jobs.origin import HOW_IT_SPLIT, origin_of
from deltafine.jobs.refine import Quiet
from deltafine.settings import GivenSettings, checked
from deltafine.storage import run_files

if TYPE_CHECKING:
    from deltafine.exporting import Agreement, ExportFormat
    from deltafine.exporting.export_format import LabelledFrames, WantedFrames
    from deltafine.refinement.listener import Listener
    from deltafine.video.catalogue import Split
    from deltafine.video.further_values import Wanted

_VIDEOS_CHECKED = 4


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        file: where.
        agreement: of the file with the Keras model that was written; None where they were not compared.
        not_compared: why; "" where they were, or where there is no network in the file.
    """

    file: Path
    agreement: Agreement | None
    not_compared: str


def export(
    run: str | os.PathLike[str],
    *,
    form: str = "stripped",
    format: str | ExportFormat = "keras",
    output: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | None = None,
    check: bool = True,
    overwrite: bool = False,
    listener: Listener | None = None,
    **settings: Any,
) -> Exported:
    """Write a refined model in a format that others read.

    Args:
        run: a run directory, or its ``refined.keras``.
        form: ``"stripped"``: no thresholds; ``"quantized"``: rounds or holds; ``"streaming"``: frame by frame, with
            its state as inputs and outputs.
        format: ``"keras"``, ``"tflite"``, ``"onnx"``, ``"int8"``, ``"int8-onnx"``, ``"akida"``, ``"plan"``,
            ``"fixed-plan"``, ``"thresholds"``, ``"neurobench"``, or one of your own.
        output: the file; default: one in ``RUN/export``.
        data: videos to compare the file with Keras on; default: those of the run.
        check: whether to compare.
        overwrite: replace an existing file.
        listener: told how far reading is.
        settings: the fields of ``deltafine.settings.RefineSettings`` that say how the model is loaded, the clip
            length ``frames``, and how the videos are read; default: those of the run.

    Raises:
        DeltafineError: the model has no such form, the file exists, or there is nothing to compare on.

    Examples:
        >>> done = deltafine.export("run/", output="stripped.keras")
        >>> keras.models.load_model(done.file).input_shape
        (None, 16, 16, 3)
    """
    from deltafine.exporting import FORMATS, Source
    from deltafine.exporting.writing import write_export
    from deltafine.measurement.given_inputs import wanted_by
    from deltafine.model import load
    from deltafine.report import load_report

    chosen = FORMATS.get(format)
    run, given = Path(run), checked(**settings)
    path = run / run_files.REFINED if run.is_dir() else run
    target = Path(output) if output is not None else path.parent / run_files.EXPORT / chosen.file_name(form)
    if target.is_dir():
        raise DeltafineError(f"{target} is a folder: name the file as well.")
    if data is not None and check and not Path(data).exists():
        raise DeltafineError(f"There is nothing at {data}: give a folder of videos or a video file.")
    if not overwrite and (there := [file for file in chosen.files(target) if file.exists()]):
        raise DeltafineError(f"{there[0]} exists already: give --overwrite to replace it, or another --output.")
    refined = load(path, **trust_in(given))
    check_clip_output(refined, given.get("clip_output"))
    read: dict[str, Any] = {"model": path, "data": data, "given": given, "listener": listener or Quiet()}
    wanted = wanted_by(refined)
    agreement, why = write_export(
        refined,
        target,
        chosen,
        form=form,
        frames=given.get("frames"),
        real_frames=partial(_clips, further=wanted, **read) if check else None,
        source=Source(path, streams=partial(_judged, **read), report=partial(load_report, path.parent)),
    )
    said = agreement.sentence if agreement is not None else why
    keep(path.parent / run_files.EXPORT, target, format=chosen.name, form=form if chosen.forms else "", checked=said)
    return Exported(target, agreement, why)


def _videos(model: Path, data: str | os.PathLike[str] | None, given: GivenSettings) -> tuple[Path, GivenSettings]:
    """Where the videos are, and how they are read: as in the run, if they are its own."""
    try:
        origin = origin_of(model, needed=data is None)
    except DeltafineError as error:
        raise DeltafineError(f"{str(error).rstrip('.')}: give --data, or --no-check.") from error
    where = Path(data) if data is not None else None if origin is None else Path(origin.settings.data)
    if where is None:
        raise DeltafineError(
            f"{model.parent} has no {run_files.SETTINGS} that names videos: give --data, or --no-check."
        )
    if origin is not None and data is None:
        left_aside = ("classes",) if origin.settings.task == "distill" else ()
        taken = {*HOW_IT_SPLIT, "fps", "input"}.difference(left_aside)
        run = {name: value for name, value in origin.reading.items() if name in taken}
        given = {**run, **given}
    return where, given


def _judged(
    shape: tuple[int | None, ...],
    *,
    model: Path,
    data: str | os.PathLike[str] | None,
    given: GivenSettings,
    listener: Listener,
) -> Iterator[LabelledFrames]:
    """All frames that the run's model was judged on, with their labels; none where the videos have no labels."""
    from deltafine.video import open_dataset

    where, given = _videos(model, data, given)
    try:
        opened = open_dataset(where, **how_to_open(given))
    except DeltafineError:  # they can be looked at, as was done before, but have no classes
        return
    if not opened.classes:
        return
    height, width, channels = cast("tuple[int, int, int]", shape[1:])
    split: Split = "test" if opened.select("test") else "validation"
    read = partial(listener.progress, "reading through the videos")
    opened.scan(split, progress=read, within=read)
    fps = given.get("fps")
    total = sum(len(opened.examination.frame_numbers(video, fps)) for video in opened.select(split))
    done = 0
    for _, stream in opened.streams(split, size=(height, width), channels=channels, fps=fps):
        for piece in stream:
            yield piece
            done += len(piece[0])
            listener.progress("judging the file, frames", done, total)


def _clips(
    wanted: WantedFrames,
    *,
    model: Path,
    data: str | os.PathLike[str] | None,
    given: GivenSettings,
    listener: Listener,
    further: Sequence[Wanted],
) -> np.ndarray:
    """Some frames of the run's videos, (clips, time, height, width, channels); one clip for a per-frame model."""
    where, given = _videos(model, data, given)
    by_clip = len(wanted.shape) == 5
    height, width, channels = cast("tuple[int, int, int]", wanted.shape[2 if by_clip else 1 :])
    length = cast(int, wanted.shape[1]) if by_clip else wanted.per_video
    found = []
    how: Any = {"size": (height, width), "channels": channels, "chunk": length, "wanted": further}
    for _, stream in frames_of_videos(where, given, listener, **how)[1]:
        first = next(iter(stream), None)
        if first is not None and (len(first[0]) == length or not by_clip):
            found.append(np.asarray(first[0], "float32"))
        if len(found) == _VIDEOS_CHECKED:
            break
    if not found:
        raise DeltafineError(
            f"No video in {where} has {length if by_clip else 'any'} frames to compare on: give other --data, or "
            "--no-check."
        )
    return np.stack(found) if by_clip else np.concatenate(found)[None]
