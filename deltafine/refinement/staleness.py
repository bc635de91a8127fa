"""How stale the states are that training starts from.

What a stream leaves behind is imitated by seeing a clip backwards from noise around its last frame. A whole step of
noise in every layer is more than a stream leaves; that is as well, for it makes the network robust. But noise adds up
from layer to layer, and a deep network may see nothing else. So it is limited by what it does to the answers of the
calibrated network, beside what streams do to them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from deltafine.layers import Stream
from deltafine.model import delta_layers
from deltafine.model.clip_model import with_time

MARGIN = 8.0
"""How many times as far from the original's answers clips may start as streams get."""
NOISES = tuple(2.0 ** -(half / 2) for half in range(11))
"""Tried, in steps: from 1 down to 1/32."""

Divergence = Callable[[np.ndarray, np.ndarray], float]


def limit_start_noise(
    clip_model: Any,
    videos: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    divergence: Divergence,
    *,
    frames: int,
    batch: int,
    least: float,
) -> float:
    """Set, and return, the largest noise with which clips start within ``MARGIN`` of what streams get to.

    Args:
        clip_model: with delta layers whose steps are calibrated.
        videos: arrays (time, height, width, channels), each one continuous.
        targets: the original's predictions for them, (time, ...) each, or (1, ...) for a window.
        divergence: how far predictions are from the original's.
        frames: length T of a training clip.
        batch: clips that are computed at once.
        least: what a stream is taken to diverge by at least.
    """
    layers = [layer for layer in delta_layers(clip_model).values() if layer.starts_stale]
    clips, answers = _clips(videos, targets, frames)
    if not layers or not clips:
        return 1.0
    model = with_time(clip_model)
    limit = MARGIN * max(least, _divergence_of_streams(model, videos, targets, divergence))
    seeds = [np.asarray(layer.start_seed.state) for layer in layers]
    for noise in NOISES:
        for layer, seed in zip(layers, seeds, strict=True):
            layer.start_noise.assign(np.float32(noise))
            layer.start_seed.state.assign(seed)
        predictions = [
            _predict(model, np.stack(clips[start : start + batch]), Stream(measuring=True, stale=True))
            for start in range(0, len(clips), batch)
        ]
        if divergence(answers, _one_by_one(np.concatenate(predictions))) <= limit:
            break
    for layer, seed in zip(layers, seeds, strict=True):
        layer.start_seed.state.assign(seed)  # the training draws the same numbers whether this was done or remembered
    return noise


def _divergence_of_streams(
    model: Any, videos: Sequence[np.ndarray], targets: Sequence[np.ndarray], divergence: Divergence
) -> float:
    """The videos as one stream, state carried over the cuts between them, as in calibration."""
    state, predictions = None, []
    for video in videos:
        stream = Stream(state, measuring=True)
        predictions.append(_predict(model, video[None], stream)[0])
        state = stream.state
    return divergence(np.concatenate(targets), np.concatenate(predictions))


def _predict(model: Any, clips: np.ndarray, stream: Stream) -> np.ndarray:
    with stream:
        return np.asarray(model([np.asarray(clips, np.float32)], training=False))


def _clips(
    videos: Sequence[np.ndarray], targets: Sequence[np.ndarray], frames: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """Clips of the videos, and the original's predictions for all their frames, or for the windows that they are."""
    clips, answers = [], []
    for video, target in zip(videos, targets, strict=True):
        for start in range(0, len(video) - frames + 1, frames):
            clips.append(video[start : start + frames])
            answers.append(target[start : start + frames] if len(target) == len(video) else target)
    return clips, np.concatenate(answers) if answers else np.zeros(0)


def _one_by_one(predictions: np.ndarray) -> np.ndarray:
    """(clips, time, ...) to (clips * time, ...)"""
    return predictions.reshape(-1, *predictions.shape[2:])
