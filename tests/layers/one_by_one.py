"""The event rules once more, as loops over single numbers: what the layers are compared with."""

from __future__ import annotations

import math

import numpy as np


def held_frame_by_frame(
    x: np.ndarray, step: np.ndarray, rule: str, granularity: str, start: np.ndarray | None
) -> np.ndarray:
    """Values held at every frame of x (batch, time, ..., channels); the step broadcasts to one frame."""
    held = np.empty_like(x)
    steps = np.broadcast_to(np.asarray(step, x.dtype), x.shape[2:])
    for clip in range(len(x)):
        for position in np.ndindex(x.shape[2:-1]):
            before = None if start is None else start[clip][position].copy()
            for frame in range(x.shape[1]):
                before = _held_pixel(x[clip, frame][position], before, steps[position], rule, granularity)
                held[clip, frame][position] = before
    return held


def _held_pixel(x: np.ndarray, before: np.ndarray | None, steps: np.ndarray, rule: str, granularity: str) -> np.ndarray:
    """One position at one frame: (channels,) in, (channels,) held out."""
    if rule in ("identity", "l1"):
        return x
    if rule in ("quantize", "paper"):
        levels = [round(float(value / step)) for value, step in zip(x, steps, strict=True)]
        return np.array([level * step for level, step in zip(levels, steps, strict=True)], x.dtype)
    if before is None:
        return x
    moved = [float(abs(value - old) / step) for value, old, step in zip(x, before, steps, strict=True)]
    if granularity == "pixel":
        together = math.sqrt(sum(part * part for part in moved) / len(moved))
        return x if together >= 1 else before
    return np.array([value if part >= 1 else old for value, old, part in zip(x, before, moved, strict=True)], x.dtype)


def events_one_by_one(held: np.ndarray, granularity: str, start: np.ndarray | None = None) -> tuple[int, int]:
    """(events, of how many) in held values (batch, time, ..., channels); first frames count only after a start."""
    events = elements = 0
    for clip in range(len(held)):
        for frame in range(held.shape[1]):
            if frame == 0 and start is None:
                continue
            before = start[clip] if frame == 0 and start is not None else held[clip, frame - 1]
            for position in np.ndindex(held.shape[2:-1]):
                changed = [a != b for a, b in zip(held[clip, frame][position], before[position], strict=True)]
                events += any(changed) if granularity == "pixel" else sum(changed)
                elements += 1 if granularity == "pixel" else len(changed)
    return events, elements
