"""Measuring any Keras model on videos: a report without a refinement."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deltafine import __version__
from deltafine.errors import DeltafineError
from deltafine.jobs.assembly import assemble
from deltafine.jobs.facts import model_info, score_info, sha256
from deltafine.jobs.model_files import check_clip_output, clip_output_of, trust_in
from deltafine.jobs.opened_videos import how_to_open
from deltafine.jobs.origin import about_training, cut_as_in_run, origin_of
from deltafine.jobs.refine import Quiet
from deltafine.settings import RefineSettings, checked

if TYPE_CHECKING:
    import keras

    from deltafine.document.report import ModelInfo, Picture, Reference, Report
    from deltafine.measurement.output import ClipOutput, Output
    from deltafine.measurement.task import Answers, Task
    from deltafine.refinement.listener import Listener
    from deltafine.video import Dataset

ORIGINAL, REFINED, MEASURED = "original", "refined", "measured"
SETTINGS = (
    *("model", "data", "streams", "task", "clip_output", "classes", "layout", "split", "validation", "seed"),
    *("frames", "size", "fps", "rescale", "score", "output_weight", "input", "allow_outside", "sensitivity_frames"),
)
"""What the report of a measurement says of its settings."""


def measure_model(
    model: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    original: str | os.PathLike[str] | None = None,
    every: int | None = None,
    workers: str | Sequence[str] | None = None,
    worker_index: int | None = None,
    listener: Listener | None = None,
    **settings: Any,
) -> tuple[Report, list[tuple[Picture, bytes]]]:
    """Measure a model on the test videos of some data, or the validation videos where there are no others.

    A model in the directory of a run is measured with that run's settings, above all with its split, unless others
    are given. The report warns where videos may have been trained on.

    Args:
        model: a model of frames or clips, as it is or refined, with its delta layers inside.
        data: path of the videos, see docs/data.md for the layouts.
        original: the model that the first was refined from, to compare with.
        every: let the model run on every k-th frame, and hold its answers between; all frames are judged, and its
            costs are per frame of the video. The original runs on all frames; a model without delta layers is its own.
        workers, worker_index: of several processes that measure together, as for ``deltafine.refine``.
        listener: told how far it is.
        settings: the fields of ``deltafine.settings.RefineSettings`` that say how models are loaded and how
            videos are read and split.

    Returns:
        The report, whose model is called ``"refined"`` if it has delta layers; and pictures with their PNGs.

    Raises:
        DeltafineError: the model or the videos cannot be used as they are.
        WorkerLost: another of the processes has ended.

    Examples:
        >>> report, pictures = deltafine.measure_model("run/refined.keras", "videos/", original="model.keras")
        >>> sorted(report.models)
        ['original', 'refined']
    """
    from deltafine.jobs.pictures import draw_pictures
    from deltafine.jobs.worst_pictures import worst_pictures
    from deltafine.measurement.given_inputs import give_inputs, sources_of
    from deltafine.measurement.labelled_parts import labels_found, say_columns
    from deltafine.measurement.parts import weighted
    from deltafine.measurement.reference import check_reference, sentence_of
    from deltafine.measurement.score import Score
    from deltafine.measurement.scoring import scoring_of
    from deltafine.measurement.sensitivity_runs import SensitivityRuns
    from deltafine.measurement.side_by_side import measure_with_controls
    from deltafine.measurement.simple_controls import REFINED_HELD
    from deltafine.measurement.task import (
        check_labels,
        held_out,
        labelled_of,
        open_data,
        open_streams,
        output_of,
        task_by_labels,
    )
    from deltafine.model import delta_layers, load, pixels_note
    from deltafine.model.further_inputs import picture_shape
    from deltafine.model.loading import files_of
    from deltafine.report.text import ordinal
    from deltafine.workers import ALONE, cluster_of, join

    if every is not None and every < 1:
        raise DeltafineError(f"every is {every}: give a whole number from 1 on.")
    every = every or 1
    every_kth = every > 1
    started = time.monotonic()
    listener = listener or Quiet()
    read = functools.partial(listener.progress, "reading through the videos")
    cluster = cluster_of(workers, worker_index)
    team = ALONE if cluster is None else join(cluster)
    given = checked(**settings)
    origin = origin_of(Path(model))
    used = RefineSettings(
        model=os.fspath(model), data=os.fspath(data), **{**(origin.reading if origin else {}), **given}
    )
    streams, fps = used.streams, used.fps
    trust = trust_in(given)
    scoring = None if used.score is None else scoring_of(used.score)

    of_original = used
    if origin is not None and "rescale" not in given:  # the refined model scales its pixels itself
        of_original = used.model_copy(update={"rescale": origin.settings.rescale})

    def look() -> tuple[dict[str, _Measurable], Task, Output, Dataset, Dataset, str | None]:
        measured = _measurable(load(Path(model), **trust), used)
        if note := pixels_note(model, measured.model, used.rescale):
            listener.say(note)
        plain = original is None and not every_kth
        name = REFINED if delta_layers(measured.clip_model) else ORIGINAL if plain else MEASURED
        by_name = {name: measured}
        if name == MEASURED and original is None:
            by_name = {ORIGINAL: measured, MEASURED: measured}
        if original is not None:
            by_name = {ORIGINAL: _measurable(load(Path(original), **trust), of_original), name: measured}
        opened = open_data(data, used.task, **how_to_open(used.model_dump()))
        continuous = opened
        if streams is not None:
            continuous = open_streams(streams, opened, used.task, allow_outside=used.allow_outside)
        task = task_by_labels(used.task, opened, continuous, measured.answers.parts)
        for one in by_name.values():
            check_labels(one.answers, task, labelled_of(one.answers.parts, opened, continuous), one.window)
        parts = weighted(measured.answers.parts, used.output_weight)
        output, labelled, continuous = output_of(measured.model, task, measured.clip_output, opened, continuous, parts)
        for one in by_name.values():
            give_inputs(one.model, used.input, labelled, continuous)
        if scoring is not None:
            scoring.check(measured.answers.shape, _has_labels(output, labelled, continuous))
        if used.cache is not None:
            labelled.use_cache(used.cache, announce=listener.say, progress=read, within=read)
        cut, said = cut_as_in_run(origin, labelled, read, measured.sample)
        return by_name, task, output, cut, cut if continuous is labelled else continuous, said

    listener.progress("loading the model and looking for videos", 0, 0)
    by_name, task, output, opened, continuous, cut = team.together(look)
    with_labels = _has_labels(output, opened, continuous)
    if scoring is not None and not with_labels and ORIGINAL not in by_name:
        if "score" in given:
            raise DeltafineError(
                f"Without labels the score {scoring.name} compares with the original's predictions: give --original "
                "MODEL."
            )
        scoring = None
    measured = list(by_name.values())[-1]
    listener.say(opened.summary())
    held, said = held_out(opened, measured.frames, fps, read)
    trained = about_training(Path(model), origin, opened, used)
    if found := labels_found(output.parts):
        listener.say(found)
    if beside := sources_of(opened):
        listener.say(f"Beside its frames the model takes {', '.join(beside)}.")
    of_labels = say_columns(output, opened, continuous)
    notes = [*opened.notes, *continuous.notes, *of_labels, *said, *(one for one in (cut, trained) if one)]
    if every_kth:
        notes.append(
            f"The {list(by_name)[-1]} model ran on every {ordinal(every)} frame and its answers were held between: "
            "its costs are per frame of the video, and its staleness is that of the frames that it ran on."
        )
    if origin is not None and origin.settings.score is not None and scoring is None:
        notes.append(
            f"The run in {origin.directory} was judged by the score {origin.settings.score}, which is not measured "
            "here: give --score, and --original unless the videos have labels."
        )
    warnings = list(dict.fromkeys(notes))
    for note in warnings:
        listener.say(note)
    if held is not None and streams is None:
        continuous = held
    if "max_bad_videos" in given:
        (held or opened).check(used.max_bad_videos, split="validation", progress=read, within=read)
    for videos in {id(one): one for one in (held or opened, continuous)}.values():
        if used.cache is None:
            videos.scan("validation", progress=read, within=read)
        else:
            videos.use_cache(used.cache, announce=listener.say, progress=read, within=read)
    for videos in (held or opened, continuous):
        videos.require_further("validation", fps)
    if team.count > 1:
        files = [sha256(file) for path in (model, original) if path is not None for file in files_of(Path(path))]
        how = (__version__, measured.frames, fps, used.rescale, task, files, every, scoring and scoring.source)
        seen = (opened.fingerprint("validation"), continuous.fingerprint("validation"))
        team.agree("videos, models or options", repr((how, seen)))
    models = {one: ready.clip_model for one, ready in by_name.items()}
    output = _as_answered(output, task, next(iter(models.values())), opened, measured.frames, fps)
    name, first = next(iter(by_name.items()))
    read_as = of_original if original is not None else used

    def check() -> Reference:
        rescaled = None
        if name == ORIGINAL:

            def rescaled(other: str | None) -> keras.Model:
                return _measurable(first.model, read_as.model_copy(update={"rescale": other})).clip_model

        looked_at = continuous if continuous.classes and not opened.classes else held or opened
        of_clips: Any = {"frames": measured.frames, "fps": fps, "rescale": read_as.rescale, "rescaled": rescaled}
        return check_reference(name, first.clip_model, looked_at, output, **of_clips)

    listener.progress("looking at the answers", 0, 0)
    reference = team.together(check)
    listener.say(reference.broken or sentence_of(reference))
    runs = SensitivityRuns(used.sensitivity_frames)
    figures, controls = measure_with_controls(
        models,
        held or opened,
        measured.frames,
        streams=continuous,
        refined_held=REFINED_HELD if streams is not None and not every_kth else (),
        fps=fps,
        output=output,
        sensitivity=runs,
        metrics=[] if scoring is None else [Score(scoring, with_labels)],
        every={list(models)[-1]: every},
        progress=lambda what, done, total: listener.progress(f"measuring {what}", done, total),
        workers=team,
    )
    listener.progress("drawing pictures", 0, 0)
    # To a network that takes clips, a window is one picture.
    with_pictures = team.chief and measured.window is None and measured.frames > 1
    pictures = draw_pictures(models, opened, frames=measured.frames) if with_pictures else []
    if team.chief:
        shape, last = picture_shape(measured.clip_model), list(models)[-1]
        of_frames: Any = {"shape": tuple(shape), "fps": fps, "numbers": output.numbers}
        pictures += worst_pictures(last, figures[last].streams, continuous, **of_frames)
    told = {name: value for name, value in used.model_dump(mode="json").items() if name in SETTINGS}
    report = assemble(
        settings={
            **told,
            "original": None if original is None else str(original),
            "frames": measured.frames,
            **({"every": every} if every_kth else {}),
        },
        model=measured.info(
            Path(model),
            class_vector=not output.numbers and len(measured.answers.shape) == 1,
            further=sources_of(opened),
        ),
        data=opened,
        streams=continuous,
        models=figures,
        controls=controls,
        sensitivity=runs.curve(),
        warnings=warnings,
        seconds=time.monotonic() - started,
        pictures=[picture for picture, _ in pictures],
        reference=reference,
        score=score_info(scoring, with_labels),
    )
    return report, pictures


def _has_labels(output: Output, *measured: Dataset) -> bool:
    """Whether any of the videos have labels that are looked at."""
    return output.has_targets if output.numbers else any(data.classes for data in measured)


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

    model: keras.Model
    clip_model: keras.Model
    sample: tuple[int, ...]
    frames: int
    window: int | None
    answers: Answers
    clip_output: ClipOutput

    def info(self, path: Path, *, class_vector: bool, further: Sequence[str]) -> ModelInfo:
        """What the report says of it."""
        # A refined per-frame model takes clips of any length, and its MACs are those of one frame.
        traced = (1, *self.sample) if self.model is self.clip_model and self.window is None else self.sample
        info: ModelInfo = model_info(
            self.model, path, traced, window=self.window, class_vector=class_vector, further=further
        )
        return info.model_copy(update={"input_shape": list(self.sample)})


def _measurable(model: keras.Model, settings: RefineSettings) -> _Measurable:
    from deltafine.measurement.fitting import fitting
    from deltafine.measurement.task import Answers, parts_of
    from deltafine.model.clip_model import answer_shapes, frame_layers, window_layers, window_of, with_time
    from deltafine.model.frame_size import sample_shape
    from deltafine.model.output_names import output_names

    if not frame_layers(model) and not window_layers(model):
        chosen = settings.clip_output
        fits = fitting(model, size=settings.size, frames=settings.frames, clip_output=chosen)
        clip_model = fits.clip_model([], rescale=settings.rescale, clip_output=chosen or "mean")
        return _Measurable(model, clip_model, fits.sample, fits.frames, fits.window, fits.answers, chosen or "mean")
    if settings.rescale is not None:
        raise DeltafineError("A refined model scales its pixels itself: leave --rescale out.")
    check_clip_output(model, settings.clip_output)
    window = window_of(model)
    sample, length = sample_shape(model, settings.size, settings.frames)
    shape = with_time(model).output.shape[1:]
    parts = parts_of(output_names(model), answer_shapes(model)) if len(model.outputs) > 1 else ()
    answers = Answers(shape[0] if window is not None and shape[0] != 1 else None, tuple(shape[1:]), parts)
    if window is not None:
        return _Measurable(model, model, sample, length, window, answers, "mean")
    return _Measurable(model, model, sample[1:], length, None, answers, clip_output_of(model))


def _as_answered(
    output: Output, task: Task, model: keras.Model, data: Dataset, frames: int, fps: float | None
) -> Output:
    """How answers are read, now that there are some, about the first clips."""
    import keras
    import numpy as np

    from deltafine.measurement.task import read_output
    from deltafine.model.clip_model import with_time
    from deltafine.model.further_inputs import answered, picture_shape

    height, width, channels = picture_shape(model)
    clips = data.clips("validation", frames=frames, size=(height, width), channels=channels, fps=fps, batch=4)
    shown = keras.ops.convert_to_tensor(next(iter(clips)).frames, "float32")
    predictions = np.asarray(answered(with_time(model), shown))
    return read_output(output, task, predictions.reshape(-1, *predictions.shape[2:]))
