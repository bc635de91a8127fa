"""How much of what a model sees changes from one frame to the next, and how much of what it answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deltafine.document.report import Activity
from deltafine.measurement.accuracy import classes_of
from deltafine.measurement.output import Output
from deltafine.measurement.parts import shares, spreads

MUCH = 0.02
"""Change of a pixel, as a share of the range of the frames: more than compression and a quiet sensor give."""


def activity_of(videos: Sequence[np.ndarray], answers: Sequence[np.ndarray], output: Output) -> Activity:
    """Of continuous pieces of video.

    Args:
        videos: pixels (time, height, width, channels) each, 0 to 255.
        answers: the original's predictions (time, ..., outputs) for each.
        output: how these are read.
    """
    numbers = output.numbers
    moved, noisy, changed = [], [], []
    flat = np.concatenate([np.asarray(one, np.float64).reshape(-1, one.shape[-1]) for one in answers])
    spread = spreads(flat, output.parts) if output.parts else flat.std(0)
    for frames, found in zip(videos, answers, strict=True):
        change = np.abs(np.diff(np.asarray(frames, np.float32), axis=0)).max(-1)
        moved.append((change > 255 * MUCH).mean((1, 2)))
        noisy.append(((change > 0) & (change <= 255 * MUCH)).mean((1, 2)))
        if len(found) < 2:  # one answer for a clip
            continue
        if numbers:
            steps = np.abs(np.diff(np.asarray(found, np.float64), axis=0)) / np.maximum(spread, 1e-9 * spread.max())
        else:
            steps = np.diff(classes_of(found), axis=0) != 0
        steps = steps.reshape(len(steps), -1)
        changed.append(steps @ shares(output.parts) if output.parts else steps.mean(1))
    return Activity(
        moved=float(np.concatenate(moved).mean()),
        noisy=float(np.concatenate(noisy).mean()),
        answers=float(np.concatenate(changed).mean()) if changed else None,
        numbers=numbers,
    )
