"""A refined model on a video or a camera, frame by frame."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from deltafine.errors import DeltafineError
from deltafine.jobs.model_files import frame_size_of, trust_in
from deltafine.settings import checked

if TYPE_CHECKING:
    import numpy as np

    from deltafine.runtime.runtime import DeltaRuntime

CALIBRATION_FRAMES = 20


@dataclass(frozen=True)
class Played:
    """One frame that was played.

    Attributes:
        prediction: of the model.
        sent: values that were sent, of so many values.
        values: that could have been sent.
        macs: multiply-accumulates that were needed.
        milliseconds: that passed.
    """

    prediction: Any
    sent: int
    values: int
    macs: int
    milliseconds: float


def play(
    run: str | os.PathLike[str],
    source: str,
    *,
    frames: int | None = None,
    every: int = 1,
    calibrate: bool = True,
    **settings: Any,
) -> tuple[DeltaRuntime, Iterator[Played]]:
    """Stream a video through a refined model, computing only what changed.

    Args:
        run: a run directory, or a model file.
        source: a video file, a folder of images, or the number of a camera.
        frames: stop after so many.
        every: run on every k-th frame, and hold the prediction between.
        calibrate: find out on the first frames, once, which way to compute each convolution is faster here.
        settings: ``size``, ``custom_objects`` and ``unsafe_lambda`` of ``deltafine.settings.RefineSettings``.

    Returns:
        The runtime, and what it gives for each frame, computed as it is asked for.

    Raises:
        DeltafineError: the model or the video cannot be used as they are.
    """
    from deltafine.runtime.runtime import DeltaRuntime
    from deltafine.video.live import live_frames

    given = checked(**settings)
    runtime = DeltaRuntime(run, frame_size=frame_size_of(given), every=every, **trust_in(given))
    if len(runtime.plan.input_shape) != 3:
        raise DeltafineError(
            f"Model '{runtime.plan.name}' takes {runtime.plan.input_shape} at a time, and a video gives frames of "
            "(height, width, channels): feed deltafine.DeltaRuntime yourself."
        )
    height, width, channels = runtime.plan.input_shape
    stream: Iterator[np.ndarray] = islice(live_frames(source, (height, width), channels), frames)
    if calibrate and not runtime.calibrated:
        first = list(islice(stream, CALIBRATION_FRAMES))
        if len(first) == CALIBRATION_FRAMES:
            runtime.calibrate(first)
        stream = chain(first, stream)
    return runtime, _played(runtime, stream)


def _played(runtime: DeltaRuntime, frames: Iterator[np.ndarray]) -> Iterator[Played]:
    for frame in frames:
        begin = time.perf_counter()
        prediction = runtime.step(frame)
        milliseconds = 1e3 * (time.perf_counter() - begin)
        counts = runtime.counts
        assert counts is not None  # of the step just taken
        events = counts.events().values()
        sent, values = (sum(column) for column in zip(*events, strict=True)) if events else (0, 0)
        yield Played(prediction, sent, values, counts.total("needed_macs"), milliseconds)
