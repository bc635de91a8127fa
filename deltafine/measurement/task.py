"""What a model's output and the videos' labels have to say to each other."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import keras
import numpy as np

from deltafine.errors import DeltafineError
from deltafine.measurement.labelled_parts import columns_for, read_columns
from deltafine.measurement.output import ClipOutput, Output, are_probabilities
from deltafine.measurement.parts import OutputPart, listed
from deltafine.model.output_names import output_names
from deltafine.model.time_axis import times_of_values
from deltafine.model.trace import FoldFrames, trace
from deltafine.video import Dataset, open_dataset
from deltafine.video.catalogue import Found, Video
from deltafine.video.examination import count_of
from deltafine.video.labels import numbers_of
from deltafine.video.layouts.naming import split_of
from deltafine.video.opening import TEST_VALIDATES
from deltafine.video.splitting import refuse_shared

Task = Literal["auto", "classification", "regression", "distill", "outputs"]
"""How a model's answers are read; ``auto`` until the labels are known, see :func:`task_by_labels`."""


@dataclass(frozen=True)
class Answers:
    """What a model gives for a clip.

    Attributes:
        steps: answers along time; None where there is one for a frame, or one for a whole window.
        shape: of one answer; of several outputs, how many values they have.
        parts: the outputs, where there are several.
    """

    steps: int | None
    shape: tuple[int, ...]
    parts: tuple[OutputPart, ...] = ()


def answers_of(model: keras.Model, sample: Sequence[int], window: int | None) -> Answers:
    """What a pretrained model gives.

    Args:
        model: the pretrained model.
        sample: shape of what the model takes, without the batch axis.
        window: frames of a clip, for a model that takes clips.

    Raises:
        DeltafineError: the model runs over parts of a frame as if they were frames, or one of several outputs has no
            fixed shape, or another number of steps in time than the others.
    """
    traced = trace(model, sample)
    if window is None and any(isinstance(call.operation, FoldFrames) for call in traced.calls):
        raise DeltafineError(
            "The model takes single frames and is TimeDistributed over parts of them, which cannot be measured: "
            "give it clips, or build it again without TimeDistributed."
        )
    found = {} if window is None else times_of_values(traced)
    times = [found.get(value) for value in traced.outputs]
    shapes = [
        value.sample_shape if time is None else value.sample_shape[1:]
        for value, time in zip(traced.outputs, times, strict=True)
    ]
    steps = [None if time is None else time.steps for time in times]
    if len(shapes) == 1:
        return Answers(steps[0], shapes[0])
    parts = parts_of(output_names(model), shapes)
    if len(set(steps)) > 1:
        said = ", ".join(f"'{part.name}' {step or 1}" for part, step in zip(parts, steps, strict=True))
        raise DeltafineError(
            f"The outputs of the model have different numbers of answers for a clip ({said}), so they cannot be "
            "compared frame by frame: save keras.Model(model.inputs, [...]) with outputs that have the same."
        )
    return Answers(steps[0], (sum(part.size for part in parts),), parts)


def parts_of(names: Sequence[str], shapes: Sequence[tuple[int | None, ...]]) -> tuple[OutputPart, ...]:
    """The outputs of a model that has several.

    Args:
        names: of the outputs.
        shapes: of one answer of each.

    Raises:
        DeltafineError: one has no fixed shape.
    """
    found = []
    for name, shape in zip(names, shapes, strict=True):
        known = tuple(size for size in shape if size is not None)
        if len(known) != len(shape):
            raise DeltafineError(
                f"The output '{name}' has no fixed shape ({shape}), and answers of several outputs are compared value "
                "by value: give --size, or save a model whose outputs have one."
            )
        found.append(OutputPart(name, known or (1,)))
    return tuple(found)


def task_by_labels(task: Task, data: Dataset, streams: Dataset, parts: tuple[OutputPart, ...] = ()) -> Task:
    """What the answers mean, where that is left to the labels: numbers, names of classes, or none to look at.

    Of several outputs, the ``parts``, each has labels of its own, or none.
    """
    if task != "auto":
        return task
    if columns_for(parts, data, streams):
        return "outputs"
    labelled = data if data.classes else streams
    return _task_of(labelled) if labelled.classes else "distill"


def labelled_of(parts: tuple[OutputPart, ...], data: Dataset, streams: Dataset) -> Dataset:
    """That of both whose labels have to fit the model: the data, or the streams where only these have any."""
    if columns_for(parts, data):
        return data
    return data if data.classes and not columns_for(parts, streams) else streams


def _task_of(labelled: Dataset) -> Task:
    return "regression" if labelled.values else "classification"


def check_labels(answers: Answers, task: Task, data: Dataset, window: int | None) -> None:
    """Refuse a model whose answers the task and the labels do not fit.

    Args:
        answers: what the model gives.
        task: how they are read.
        data: the videos, without labels where these are not looked at.
        window: frames of a clip, for a model that takes clips.

    Raises:
        DeltafineError: saying what fits.
    """
    by_column = columns_for(answers.parts, data) if task in ("regression", "outputs") else []
    if answers.parts and (task == "classification" or (task == "regression" and data.values and not by_column)):
        raise DeltafineError(
            f"The model has {len(answers.parts)} outputs ({listed(answers.parts)}), and a label is for one: give "
            "labels.csv a column for each output that has labels, called as the output is, use --task distill to "
            "follow the original's answers of all of them, and --score for what else they are judged by."
        )
    if task == "outputs" and not answers.parts:
        raise DeltafineError("The model has a single output, and --task outputs is for models with several.")
    if task == "outputs" and not by_column:
        raise DeltafineError(
            f"No column of the labels of {data.path} is called as an output of the model ({listed(answers.parts)}): "
            "call one so, or use --task distill."
        )
    if not (data.classes or by_column) or task == "distill":
        return
    if task == "classification" and data.values:
        raise DeltafineError(
            f"The labels of {data.path} are numbers ({', '.join(data.classes[:3])}, ...) and no names of classes: use "
            "--task regression if the model gives such numbers, or --task distill to leave the labels aside."
        )
    if answers.steps not in (None, window):
        raise DeltafineError(
            f"The model gives {answers.steps} answers for {window} frames, so labels cannot be matched: use --task "
            "distill."
        )
    if task in ("regression", "outputs"):
        return
    if len(answers.shape) != 1:
        raise DeltafineError(
            f"The model gives {answers.shape} per answer, and labels need one class vector per frame or clip: use "
            "--task distill to follow the original's answers, or --task regression if they are numbers."
        )
    count = answers.shape[0]
    if len(data.classes) != (2 if count == 1 else count):
        raise DeltafineError(
            f"The model has {count} outputs but {data.path} has {count_of(len(data.classes), 'class', 'classes')} "
            f"({', '.join(data.classes[:5])}{', ...' if len(data.classes) > 5 else ''}): "
            "name the model's classes in the order of its outputs with --classes, or use --task distill to follow the "
            "original's answers and leave the labels aside."
        )


def open_data(path: str | os.PathLike[str], task: Task, *, classes: Sequence[str] | None, **how: Any) -> Dataset:
    """The videos, without labels where these are not looked at; ``how`` is for ``open_dataset``."""
    if task == "distill":
        return without_labels(open_dataset(path, classes=_like_splits(classes), **how))
    return open_dataset(path, classes=classes, **how)


def open_streams(path: str | os.PathLike[str], data: Dataset, task: Task, *, allow_outside: bool = False) -> Dataset:
    """Other videos to measure on: all of them where they have no split of their own, and none that was trained on.

    Their labels are numbered as those of the data; labels that are numbers may be others.
    """
    if task == "auto" and data.classes:
        task = _task_of(data)
    named = _like_splits(data.classes)
    streams = _all_measured(open_dataset(path, classes=named, validation=1.0, allow_outside=allow_outside))
    if data.classes and streams.classes and task != "distill":  # what has no labels can be measured as well
        classes = data.classes
        if task == "regression":
            if numbers_of(classes) and not numbers_of(streams.classes):
                raise DeltafineError(
                    f"The labels of {data.path} are numbers, and those of {streams.path} are not "
                    f"({', '.join(streams.classes[:3])}): give streams with numbers as labels, or without labels."
                )
            known = set(classes)
            classes = (*classes, *(name for name in streams.classes if name not in known))
        streams = _all_measured(open_dataset(path, classes=classes, validation=1.0, allow_outside=allow_outside))
    refuse_shared([*data.select("train"), *streams.select("validation")])
    return without_labels(streams) if task == "distill" else streams


def _like_splits(classes: Sequence[str] | None) -> Sequence[str] | None:
    """The classes where one is called like a split, as its folder would be taken for one; None where none is."""
    return classes if any(map(split_of, classes or ())) else None


def _all_measured(streams: Dataset) -> Dataset:
    """Streams whose test split is measured on with the validation split: nothing is chosen by either."""
    streams.leave_out_note(TEST_VALIDATES)
    if not streams.select("test"):
        return streams
    videos = [replace(video, split="validation") if video.split == "test" else video for video in streams.videos]
    return _with_videos(streams, videos)


class Read(Protocol):
    """Told how far reading through videos is."""

    def __call__(self, done: int, total: int, within: str = "", /) -> None:
        """So many videos, and in words, where in a long one it is."""


def _unheard(done: int, total: int, within: str = "", /) -> None:
    pass


def held_out(data: Dataset, frames: int, fps: float | None, read: Read = _unheard) -> tuple[Dataset | None, list[str]]:
    """The test videos of the data as a data set to measure on, if they can be; and what the user should know of them.

    Args:
        data: what is trained and validated on.
        frames: of a clip, or of what a model that takes clips sees at once.
        fps: at which frames are taken.
        read: told how far reading through these videos is.
    """
    videos = data.select("test")
    if not videos:
        return None, []
    labelled = [video for video in data.videos if video.label is not None or video.frame_labels is not None]
    found = f"Found a test split of {count_of(len(videos), 'video')}, not used because"
    if labelled and not any(video.split == "test" for video in labelled):
        return None, [f"{found} they have no labels."]
    data.scan("test", progress=read, within=read)
    if max(len(data.examination.frame_numbers(video, fps)) for video in videos) < frames:
        return None, [f"{found} none of them has the {frames} frames of a clip that can be read."]
    held = _with_videos(data, [replace(video, split="validation") for video in videos], layout="test split")
    return held, ["The test split is what the report measures on: nothing was chosen by it."]


def output_of(
    model: keras.Model,
    task: Task,
    clip_output: ClipOutput,
    data: Dataset,
    streams: Dataset,
    parts: tuple[OutputPart, ...] = (),
) -> tuple[Output, Dataset, Dataset]:
    """How answers are read, as far as it is known before there are any; and both data sets, without labels that say
    nothing of the model's numbers.

    Raises:
        DeltafineError: the labels are numbers, but others than the model's.
    """
    if parts:  # numbers, all of them
        output = Output("numbers", False, clip_output=clip_output, parts=parts)
        if task in ("regression", "outputs") and columns_for(parts, data, streams):
            return read_columns(output, data, streams, as_numbers=task == "regression"), data, streams
        bare = without_labels(data)
        return output, bare, bare if streams is data else without_labels(streams)
    if task != "regression":
        return Output("classes", clip_output=clip_output), data, streams
    of_both = streams if len(streams.classes) > len(data.classes) > 0 else data  # its labels go on from the data's
    output = Output("numbers", values=label_values(model, of_both), clip_output=clip_output)
    if output.values:
        data.read_labels_as(output.values[: len(data.classes)])
        streams.read_labels_as(output.values)
        return output, data, streams
    bare = without_labels(data)
    return output, bare, bare if streams is data else without_labels(streams)


def read_output(output: Output, task: Task, predictions: np.ndarray) -> Output:
    """How answers are read, now that the original's predictions (frames, ..., outputs) are there."""
    if output.parts:
        return output.read_parts(predictions)
    probabilities = are_probabilities(predictions)
    kind = "numbers" if task == "distill" and not probabilities else output.kind
    return replace(output, kind=kind, probabilities=probabilities)


def label_values(model: keras.Model, data: Dataset) -> tuple[float, ...]:
    """What the labels stand for where all of them are numbers, and the model gives one number; () otherwise.

    Raises:
        DeltafineError: the labels are numbers, and the model gives several.
    """
    values = numbers_of(data.classes)
    if values and not all(map(math.isfinite, values)):
        raise DeltafineError(f"Labels of {data.path} are not finite numbers: correct them.")
    if values and model.outputs[0].shape[-1] != 1:
        outputs = model.outputs[0].shape[-1]
        classes = "--task classification if these are the names of its classes, or " if len(values) == outputs else ""
        raise DeltafineError(
            f"The model gives {outputs} numbers and {data.path} has one per label: use {classes}--task distill to "
            "follow the original's answers."
        )
    return values


def without_labels(data: Dataset) -> Dataset:
    """The same videos, their labels left aside."""
    videos = [replace(video, label=None, frame_labels=None) for video in data.videos]
    return _with_videos(data, videos, classes=())


def split_in_time(
    data: Dataset, validation: float, read: Read = _unheard, sample: Sequence[int] = ()
) -> tuple[Dataset, str]:
    """Train on the first segment of a single video and validate on the rest; and what the user should know of it.

    Args:
        data: one video.
        validation: share of its frames that is kept for validation.
        read: told how far reading through it is.
        sample: shape of what the model takes: such frames are kept meanwhile if the data has a cache.
    """
    (video,) = data.videos
    if data.cache is not None and sample:
        height, width, channels = sample[-3:]
        data.keep_whole(size=(height, width), channels=channels)
    data.scan(progress=read, within=read)
    index = data.index(video)
    if index is None:
        raise DeltafineError(f"{data.path} cannot be used: it {data.examination.reason(video)}.")
    cut = float(index.times[min(index.count - 1, round((1 - validation) * index.count))])
    videos = [
        replace(video, name=f"{video.name} to {cut:.2f} s", split="train", end=cut),
        replace(video, name=f"{video.name} from {cut:.2f} s", split="validation", start=cut),
    ]
    cut_in_two = _with_videos(data, videos)
    cut_in_two.go_on_from(data)
    return cut_in_two, (
        f"Trained on the first {cut:.1f} seconds of a single video and measured on the rest of it: the figures say "
        "nothing about other videos."
    )


def _with_videos(
    data: Dataset, videos: Sequence[Video], *, layout: str = "", classes: tuple[str, ...] | None = None
) -> Dataset:
    """A data set with other videos of the same place; of its files that were read through, it knows what they hold."""
    found = Found(
        f"{data.layout}, {layout}" if layout else data.layout,
        list(videos),
        data.classes if classes is None else classes,
        has_splits=True,
        problems=[] if layout else data.problems,
        notes=list(data.notes),
        values=data.values if (data.classes if classes is None else classes) else (),
        columns=data.columns,
        outputs=data.outputs if (data.classes if classes is None else classes) else (),
    )
    made = Dataset(data.path, found, data.examination.limits)
    made.examination.adopt(data.examination.indexes)
    made.give_further(data.further)
    return made
