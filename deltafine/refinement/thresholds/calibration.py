"""Thresholds from data: without labels, without training."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deltafine.errors import DeltafineError
from deltafine.layers import DeltaActivation, Stream
from deltafine.model import graph
from deltafine.model.further_inputs import inputs_of
from deltafine.refinement.run.preparation import Prepared

PIECE = 24
MOST_FRAMES = 12 * PIECE
MOST_VALUES = 1 << 22
"""Frames of calibration video, and input values if frames are large."""


def calibration_videos(prepared: Prepared) -> list[np.ndarray]:
    """The beginnings of some training videos, spread over all of them: arrays (time, height, width, channels).

    Raises:
        DeltafineError: no training video has two frames, or those that the model sees at once.
    """
    height, width = prepared.size
    data, settings = prepared.data, prepared.settings
    piece, least = prepared.window or PIECE, prepared.window or 2
    frames = max(piece, min(MOST_FRAMES, MOST_VALUES // (height * width * prepared.channels)))
    wanted = {round(index) for index in np.linspace(0, len(data.select("train")) - 1, max(1, frames // piece))}
    each = max(1, frames // piece // len(wanted)) if prepared.window or len(wanted) == 1 else 1
    found = []
    streams = data.streams(
        "train", size=prepared.size, channels=prepared.channels, chunk=piece, fps=settings.fps, seed=settings.seed
    )
    for index, (_, pieces) in enumerate(streams):
        if index in wanted:
            found += [frames for frames, _ in islice(pieces, each) if len(frames) >= least]
    if not found:
        raise DeltafineError(f"None of the training videos in {data.path} has {least} frames to calibrate on.")
    return found


def activation_rms(clip_model: keras.Model, clips: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    """Root mean square of what goes into each delta layer, by layer path.

    Args:
        clip_model: with delta layers of whatever threshold; inputs are taken as the layers receive them.
        clips: batches (batch, time, height, width, channels).

    Returns:
        One array of shape (channels,) per delta layer.
    """

    @tf.function(reduce_retracing=True, autograph=False)
    def squares(frames: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}

        def observe(path: str, operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any) -> None:
            if isinstance(operation, DeltaActivation):
                x = tf.cast(args[0], tf.float64)
                found[path] = tf.reduce_mean(tf.square(x), axis=list(range(len(x.shape) - 1)))

        with Stream():
            graph.run(clip_model, inputs_of(clip_model, tf.cast(frames, tf.float32)), observe)
        return found

    totals: dict[str, np.ndarray] = {}
    frames_seen = 0
    for frames in clips:
        weight = len(frames)
        frames_seen += weight
        for path, mean in squares(frames).items():
            totals[path] = totals.get(path, 0.0) + weight * mean.numpy()
    return {path: np.sqrt(total / frames_seen) for path, total in totals.items()}


def threshold_unit(layer: DeltaActivation, rms: np.ndarray) -> Any:
    """What a relative threshold of 1 is for a layer: the RMS of its activations, of the layer or of each channel.

    Thresholds per channel use the channel's own RMS, but at least a tenth of the layer's, so that a channel that
    happened to be silent is not sent at the faintest noise.
    """
    of_layer = float(np.sqrt(np.mean(np.square(rms))))
    return of_layer if layer.threshold_per == "layer" else np.maximum(rms, 0.1 * of_layer)
