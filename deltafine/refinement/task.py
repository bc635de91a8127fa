"""What a model's output and the videos' labels have to say to each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from deltafine.errors import DeltafineError
from deltafine.model.time_axis import times_of_values
from deltafine.model.trace import FoldFrames, trace
from deltafine.refinement.settings import RefineSettings
from deltafine.video import Dataset
from deltafine.video.catalogue import Found


def check_output(
    model: Any, settings: RefineSettings, data: Dataset, sample: Sequence[int], window: int | None
) -> None:
    """Refuse a model whose output the task and the labels do not fit.

    Args:
        model: the pretrained model.
        settings: of the run.
        data: the videos, without labels where these are not looked at.
        sample: shape of what the model takes, without the batch axis.
        window: frames of a clip, for a model that takes clips.

    Raises:
        DeltafineError: saying what fits.
    """
    outputs = model.outputs
    if len(outputs) != 1:
        raise DeltafineError(
            f"The model has {len(outputs)} outputs; refining needs one: save keras.Model(model.inputs, "
            "model.outputs[0]), with the number of the output that matters."
        )
    traced = trace(model, sample)
    value = traced.outputs[0]
    times = None if window is None else times_of_values(traced).get(value)
    shape, steps = value.sample_shape, None if times is None else times.steps
    per_step = shape if steps is None else shape[1:]
    if window is None and any(isinstance(call.operation, FoldFrames) for call in traced.calls):
        raise DeltafineError(
            "The model takes single frames and is TimeDistributed over parts of them, which cannot be measured: "
            "give it clips, or build it again without TimeDistributed."
        )
    if not data.classes or settings.task == "distill":
        return
    if steps not in (None, window):
        raise DeltafineError(
            f"The model gives {steps} answers for {window} frames, so labels cannot be matched: use --task distill."
        )
    if settings.task == "regression":
        return
    if len(per_step) != 1:
        raise DeltafineError(
            f"The model gives {per_step} per answer, and labels need one class vector per frame or clip: use "
            "--task distill to follow the original's answers, or --task regression if they are numbers."
        )
    count = per_step[0]
    if len(data.classes) != (2 if count == 1 else count):
        raise DeltafineError(
            f"The model has {count} outputs but {data.path} has {len(data.classes)} classes "
            f"({', '.join(data.classes[:5])}{', ...' if len(data.classes) > 5 else ''}): "
            "name the model's classes in the order of its outputs with --classes, or use --task distill to follow the "
            "original's answers and leave the labels aside."
        )


def label_values(model: Any, data: Dataset) -> tuple[float, ...]:
    """What the labels stand for where all of them are numbers, and the model gives one number; () otherwise.

    Raises:
        DeltafineError: the labels are numbers, and the model gives several.
    """
    try:
        values = tuple(float(name) for name in data.classes)
    except ValueError:
        return ()
    if values and not all(map(math.isfinite, values)):
        raise DeltafineError(f"Labels of {data.path} are not finite numbers: correct them.")
    if values and model.outputs[0].shape[-1] != 1:
        raise DeltafineError(
            f"The model gives {model.outputs[0].shape[-1]} numbers and {data.path} has one per label: use --task "
            "distill to follow the original's answers."
        )
    return values


def without_labels(data: Dataset) -> Dataset:
    """The same videos, their labels left aside."""
    videos = [replace(video, label=None, frame_labels=None) for video in data.videos]
    return Dataset(data.path, Found(data.layout, videos, (), True, data.problems), data.examination.limits)


def split_in_time(data: Dataset, validation: float) -> tuple[Dataset, str]:
    """Train on the first part of a single video and validate on the rest; and what the user should know of it.

    Args:
        data: one video.
        validation: share of its frames that is kept for validation.
    """
    (video,) = data.videos
    index = data.index(video)
    if index is None:
        raise DeltafineError(f"{data.path} cannot be used: it {data.examination.reason(video)}.")
    cut = float(index.times[min(index.count - 1, round((1 - validation) * index.count))])
    parts = [
        replace(video, name=f"{video.name} to {cut:.2f} s", split="train", end=cut),
        replace(video, name=f"{video.name} from {cut:.2f} s", split="validation", start=cut),
    ]
    found = Found(data.layout, parts, data.classes, True, data.problems)
    return Dataset(data.path, found, data.examination.limits), (
        f"Trained on the first {cut:.1f} seconds of a single video and measured on the rest of it: the figures say "
        "nothing about other videos."
    )
