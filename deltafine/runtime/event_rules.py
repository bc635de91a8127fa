"""The event rules for one frame in NumPy, so that an engine that needs no TensorFlow loads none."""

from __future__ import annotations

import numpy as np

from deltafine.runtime.plan import Delta


def sent(delta: Delta, rows: np.ndarray, before: np.ndarray | None, threshold: np.ndarray) -> np.ndarray:
    """What a delta layer sends, float32 (rows, channels).

    Args:
        delta: the layer.
        rows: (rows, channels), the true values.
        before: likewise what was sent last; None in a first frame.
        threshold: broadcasts to rows.
    """
    if delta.rule in ("identity", "l1"):
        values = rows
    elif delta.rule in ("quantize", "paper"):
        values = np.round(rows / threshold) * threshold
    elif delta.rule == "send-on-delta":
        values = rows if before is None else np.where(_quiet(delta, rows - before, threshold), before, rows)
    else:
        from deltafine.layers.rules import RULES  # one of the user's own

        rule = RULES[delta.rule]
        values = (
            rule.first(rows, threshold)
            if before is None
            else rule.advance(before, rows, threshold, delta.granularity, np)
        )
    return np.asarray(values, np.float32)


def _quiet(delta: Delta, change: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """Where nothing is sent; not where there is a NaN, which must show."""
    if delta.granularity == "element":
        return np.asarray(np.absolute(change) < threshold)
    relative = change / threshold
    return np.asarray(np.sqrt(np.mean(np.square(relative), axis=-1, keepdims=True)) < 1.0)
