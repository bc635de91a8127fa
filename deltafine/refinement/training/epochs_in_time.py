"""How many epochs a training may have, so that the whole run takes about as long as it may."""

from __future__ import annotations

import time
from itertools import cycle, islice
from typing import TYPE_CHECKING

import numpy as np

from deltafine.errors import DeltafineError
from deltafine.refinement.run.preparation import Prepared
from deltafine.refinement.training.stability import Unsound
from deltafine.refinement.training.step import Trainer

if TYPE_CHECKING:
    from deltafine.video import Dataset

TRIED = 3
"""Steps that are timed, after one in which TensorFlow compiles the step."""
RESERVE = 0.15
"""Of the time: for new thresholds, for the choice among the epochs, and for what else the machine does."""
ON_STREAMS, ON_CLIPS = 2.0, 1.5
"""What the report measures on a frame of a stream and of a clip, as against a measurement of two models: it has three,
and the controls."""


def seconds_per_step(trainer: Trainer, prepared: Prepared) -> tuple[float, float]:
    """Seconds of a training step on this machine, the reading of its clips included; the student stays as it is.

    Returns:
        (seconds of every step, seconds that it takes longer where the original's answers have to be found and kept)

    Raises:
        DeltafineError: no training video can be read any more, or the loss is not a number.
    """
    before = [np.array(variable) for variable in trainer.student.variables]
    batches = islice(cycle(prepared.clips("train", epoch=1)), TRIED + 1)
    took: list[tuple[float, float]] = []
    began = time.monotonic()
    for batch in batches:
        targets = batch.targets if prepared.window is None else batch.labels
        known = time.monotonic()
        trainer.answer(batch.frames, batch.clips)
        answering = time.monotonic() - known
        penalty = trainer.settings.first_penalty
        try:
            trainer.train_on_batch(batch.frames, targets, penalty, first=batch.first, clips=batch.clips)
        except Unsound as error:
            raise DeltafineError(f"{error}: lower --learning-rate or --penalty.") from error
        took.append((time.monotonic() - began - answering, answering))
        began = time.monotonic()
    for variable, value in zip(trainer.student.variables, before, strict=True):
        variable.assign(value)
    if not took:
        raise DeltafineError(f"No training video in {prepared.data.path} can be read any more: put them back.")
    steps = [step for step, _ in took[1:]]
    # Of clips that were seen before, there is nothing to find: the longest counts.
    return sum(steps) / len(steps), max(answering for _, answering in took[1:])


def epochs_in(left: float, prepared: Prepared, *, step: float, answering: float, per_frame: float) -> int:
    """Epochs that fit into the time that is left; at least one.

    Args:
        left: seconds that the run may still take.
        prepared: what the run trains and is measured on.
        step: seconds of a training step.
        answering: seconds that it takes longer the first time that it has its clips.
        per_frame: seconds in which the original and the student are measured on a frame.
    """
    validation = frames_of(prepared.data)
    measuring = per_frame * (ON_STREAMS * frames_of(prepared.streams) + ON_CLIPS * frames_of(prepared.reported))
    steps = len(prepared.clips("train", epoch=1))
    training = left * (1 - RESERVE) - measuring - steps / prepared.passes * answering
    return max(1, int(training / (steps * step + validation * per_frame)))


def frames_of(data: Dataset) -> int:
    """Frames of the videos that a run is validated, or measured, on."""
    return sum(0 if (index := data.index(video)) is None else index.count for video in data.select("validation"))
