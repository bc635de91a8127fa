"""The event rules for one frame in NumPy, so that an engine that needs no TensorFlow loads none."""

from __future__ import annotations

import numpy as np

from deltafine.runtime.plan import Delta


def sent(delta: Delta, rows: np.ndarray, before: np.ndarray | None, step: np.ndarray) -> np.ndarray:
    """What a delta layer sends, float32 (rows, channels).

    Args:
        delta: the layer.
        rows: (rows, channels), the true values.
        before: likewise what was sent last; None in a first frame.
        step: broadcasts to rows.
    """
    if delta.rule in ("identity", "l1"):
        values = rows
    elif delta.rule in ("quantize", "paper"):
        values = np.round(rows / step) * step
    elif delta.rule == "send-on-delta":
        values = rows if before is None else np.where(_quiet(delta, rows - before, step), before, rows)
    else:
        from deltafine.layers.rules import RULES  # one of the user's own

        rule = RULES[delta.rule]
        values = rule.first(rows, step) if before is None else rule.advance(before, rows, step, delta.unit, np)
    return np.asarray(values, np.float32)


def _quiet(delta: Delta, change: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Where nothing is sent; not where there is a NaN, which must show."""
    if delta.unit == "element":
        return np.asarray(np.absolute(change) < step)
    relative = change / step
    return np.asarray(np.sqrt(np.mean(np.square(relative), axis=-1, keepdims=True)) < 1.0)
