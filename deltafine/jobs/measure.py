"""Measuring any Keras model afresh on videos: a report without a refinement."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from deltafine import __version__
from deltafine.errors import DeltafineError
from deltafine.jobs.facts import data_info, model_info, peak_memory_bytes, sha256, versions
from deltafine.jobs.refine import Quiet

if TYPE_CHECKING:
    from deltafine.document.report import ModelInfo, Picture, Report
    from deltafine.measurement.output import ClipOutput, Output
    from deltafine.measurement.task import Answers, Task
    from deltafine.refinement.listener import Listener
    from deltafine.video import Dataset

ORIGINAL, REFINED, MEASURED = "original", "refined", "measured"


def measure_model(
    model: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    original: str | os.PathLike[str] | None = None,
    streams: str | os.PathLike[str] | None = None,
    task: Task = "classification",
    classes: Sequence[str] | None = None,
    layout: str | None = None,
    split: int = 1,
    frames: int | None = None,
    size: str | None = None,
    fps: float | None = None,
    rescale: str | None = None,
    custom_objects: Sequence[str] = (),
    unsafe_lambda: bool = False,
    workers: str | Sequence[str] | None = None,
    worker_index: int | None = None,
    listener: Listener | None = None,
) -> tuple[Report, list[tuple[Picture, bytes]]]:
    """Measure a model on the test videos of some data, or the validation videos where there are no others.

    Args:
        model: a model of frames or clips, as it is or refined, with its delta layers inside.
        data: path of the videos, see docs/data.md for the layouts.
        original: the model that the first was refined from, to compare with.
        streams: path of other videos for the continuous streams.
        task: how the output is read; ``"distill"`` leaves labels aside.
        classes, layout, split: of the data, as for ``open_dataset``.
        frames: length T of the clips; default: the model's own, or else 8.
        size: ``"HEIGHTxWIDTH"`` of the frames, for a model that takes any.
        fps: frames are taken at this rate; None for all frames.
        rescale: ``"0..1"`` or ``"-1..1"`` where a model that is not refined wants its pixels so.
        custom_objects, unsafe_lambda: as for ``deltafine.model.load``.
        workers, worker_index: of several processes that measure together, as for ``deltafine.refine``.
        listener: told how far it is.

    Returns:
        The report, whose model is called ``"refined"`` if it has delta layers; and pictures with their PNGs.

    Raises:
        DeltafineError: the model or the videos cannot be used as they are.
        WorkerLost: another of the processes has ended.

    Examples:
        >>> report, pictures = measure_model("model.keras", "videos/", frames=4)
        >>> "original" in report.models
        True
    """
    from deltafine.document.energy import HOROWITZ
    from deltafine.document.report import Report
    from deltafine.jobs.pictures import draw_pictures
    from deltafine.measurement import measure
    from deltafine.measurement.task import Task, check_labels, held_out, open_data, open_streams, output_of
    from deltafine.model import delta_layers, load
    from deltafine.model.custom_objects import import_objects
    from deltafine.report.summary import cautions
    from deltafine.workers import ALONE, cluster_of, join

    if task not in get_args(Task):
        raise DeltafineError(f"The task must be one of {', '.join(get_args(Task))}, not '{task}'.")
    started = time.monotonic()
    listener = listener or Quiet()
    cluster = cluster_of(workers, worker_index)
    team = ALONE if cluster is None else join(cluster)
    objects = import_objects(tuple(custom_objects))

    def ready(path: str | os.PathLike[str]) -> _Measurable:
        return _measurable(load(Path(path), custom_objects=objects, unsafe_lambda=unsafe_lambda), size, frames, rescale)

    def look() -> tuple[dict[str, _Measurable], Output, Dataset, Dataset]:
        measured = ready(model)
        name = REFINED if delta_layers(measured.clip_model) else ORIGINAL if original is None else MEASURED
        by_name = {name: measured} if original is None else {ORIGINAL: ready(original), name: measured}
        opened = open_data(data, task, classes=classes, layout=layout, split=split)
        continuous = opened if streams is None else open_streams(streams, opened, task)
        for one in by_name.values():
            check_labels(one.answers, task, opened if opened.classes else continuous, one.window)
        return by_name, *output_of(measured.model, task, measured.clip_output, opened, continuous)

    by_name, output, opened, continuous = team.together(look)
    measured = list(by_name.values())[-1]
    listener.say(opened.summary())
    held, said = held_out(opened, measured.frames, fps)
    warnings = list(dict.fromkeys([*opened.notes, *continuous.notes, *said]))
    for note in warnings:
        listener.say(note)
    if held is not None and streams is None:
        continuous = held
    if team.count > 1:
        files = [sha256(Path(path)) for path in (model, original) if path is not None]
        how = (__version__, measured.frames, fps, rescale, task, files)
        videos = (opened.fingerprint("validation"), continuous.fingerprint("validation"))
        team.agree("videos, models or options", repr((how, videos)))
    models = {one: ready.clip_model for one, ready in by_name.items()}
    output = _as_answered(output, task, next(iter(models.values())), opened, measured.frames, fps)
    figures = measure(
        models,
        held or opened,
        frames=measured.frames,
        streams=continuous,
        fps=fps,
        output=output,
        progress=lambda what, done, total: listener.progress(f"measuring {what}", done, total),
        workers=team,
    )
    settings = {
        "model": str(model),
        "data": str(data),
        "original": None if original is None else str(original),
        "streams": None if streams is None else str(streams),
        "task": task,
        "classes": None if classes is None else list(classes),
        "layout": layout,
        "split": split,
        "frames": measured.frames,
        "size": size,
        "fps": fps,
        "rescale": rescale,
    }
    # To a network that takes clips, a window is one picture.
    with_pictures = team.chief and measured.window is None and measured.frames > 1
    pictures = draw_pictures(models, opened, frames=measured.frames) if with_pictures else []
    report = Report(
        title=f"{Path(model).name} on {Path(data).name or data}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - started, 1),
        peak_memory_bytes=peak_memory_bytes(),
        versions=versions(),
        settings=settings,
        settings_hash=hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16],
        model=measured.info(Path(model), class_vector=not output.numbers and len(measured.answers.shape) == 1),
        data=data_info(opened),
        stream_data=None if continuous is opened else data_info(continuous, beside=opened),
        sites=[],
        models=figures,
        energy_table=HOROWITZ,
        pictures=[picture for picture, _ in pictures],
        warnings=warnings,
    )
    report.warnings = cautions(report)
    return report, pictures


@dataclass(frozen=True)
class _Measurable:
    """A model, and the clip model that is measured in its place; the same if it was refined.

    Attributes:
        sample: shape of what the model takes, of a frame for a per-frame model.
        frames: length T of the clips.
        window: frames that it sees at once; None for a per-frame model.
        answers: what it gives.
        clip_output: what stands for a clip.
    """

    model: Any
    clip_model: Any
    sample: tuple[int, ...]
    frames: int
    window: int | None
    answers: Answers
    clip_output: ClipOutput

    def info(self, path: Path, *, class_vector: bool) -> ModelInfo:
        """What the report says of it."""
        # A refined per-frame model takes clips of any length, and its MACs are those of one frame.
        traced = (1, *self.sample) if self.model is self.clip_model and self.window is None else self.sample
        info: ModelInfo = model_info(self.model, path, traced, window=self.window, class_vector=class_vector)
        return info.model_copy(update={"input_shape": list(self.sample)})


def _measurable(model: Any, size: str | None, frames: int | None, rescale: str | None) -> _Measurable:
    from deltafine.layers.time import TimeLast, TimeMean
    from deltafine.measurement.fitting import fitting
    from deltafine.measurement.task import Answers
    from deltafine.model import graph
    from deltafine.model.clip_model import frame_layers, window_layer, window_of, with_time
    from deltafine.model.frame_size import sample_shape

    if not frame_layers(model) and window_layer(model) is None:
        fits = fitting(model, size=size, frames=frames)
        clip_model = fits.clip_model([], rescale=rescale)
        return _Measurable(model, clip_model, fits.sample, fits.frames, fits.window, fits.answers, "mean")
    if rescale is not None:
        raise DeltafineError("A refined model scales its pixels itself: leave --rescale out.")
    window = window_of(model)
    sample, length = sample_shape(model, size, frames)
    shape = with_time(model).output.shape[1:]
    answers = Answers(shape[0] if window is not None and shape[0] != 1 else None, tuple(shape[1:]))
    if window is not None:
        return _Measurable(model, model, sample, length, window, answers, "mean")
    end = graph.maker(model.outputs[0])
    clip_output: ClipOutput = (
        "last" if isinstance(end, TimeLast) else "mean" if isinstance(end, TimeMean) else "per-frame"
    )
    return _Measurable(model, model, sample[1:], length, None, answers, clip_output)


def _as_answered(output: Output, task: Task, model: Any, data: Dataset, frames: int, fps: float | None) -> Output:
    """How answers are read, now that there are some, about the first clips."""
    from deltafine.measurement.task import read_output
    from deltafine.model.clip_model import with_time

    height, width, channels = model.inputs[0].shape[2:]
    clips = data.clips("validation", frames=frames, size=(height, width), channels=channels, fps=fps, batch=4)
    predictions = with_time(model).predict_on_batch(next(iter(clips)).frames)
    return read_output(output, task, predictions.reshape(-1, *predictions.shape[2:]))
