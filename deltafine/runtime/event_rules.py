"""The event rules for one frame in NumPy, so that an engine that needs no TensorFlow loads none."""

from __future__ import annotations

import numpy as np

from deltafine.errors import DeltafineError
from deltafine.runtime.plan import Delta, Operation, Plan

KNOWN = ("identity", "l1", "quantize", "paper", "send-on-delta")
"""Rules that the engines compute themselves; all others are handed whole frames."""


def require_rules(plan: Plan) -> None:
    """Refuse a plan with rules that are neither known here nor come with it.

    Raises:
        DeltafineError: naming the delta layer.
    """
    for operation in plan.operations:
        delta = operation.finish.delta
        if delta is not None and delta.rule not in KNOWN and plan.own_rule(operation) is None:
            raise DeltafineError(
                f"Delta layer '{delta.name}' has the rule '{delta.rule}', whose code no file of a plan holds: make the "
                "runtime from the model."
            )


def follows_sensitivity(plan: Plan, operation: Operation) -> bool:
    """Whether the thresholds of the delta layer that finishes an operation may be multiplied while it runs.

    The answer of ``EventRule.follows_sensitivity``, without loading the rules that are known here.
    """
    delta, own = operation.finish.delta, plan.own_rule(operation)
    if own is not None:
        return own.follows_sensitivity
    return delta is not None and delta.rule == "send-on-delta"


def sent(delta: Delta, rows: np.ndarray, before: np.ndarray | None, threshold: np.ndarray) -> np.ndarray:
    """What a delta layer with a known rule sends, float32 (rows, channels).

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
    else:
        values = rows if before is None else np.where(_quiet(delta, rows - before, threshold), before, rows)
    return np.asarray(values, np.float32)


def sent_by_own_rule(
    plan: Plan, operation: Operation, frame: np.ndarray, before: np.ndarray | None, sensitivity: float
) -> np.ndarray:
    """What a delta layer with a rule of the user's own sends, float32 (height, width, channels).

    The rule sees what it sees in Keras: one whole frame of a batch of one. It is asked in every frame and everywhere,
    since it may send something although its input stands still.

    Args:
        plan: which holds the rule.
        operation: which it finishes.
        frame: (height, width, channels), the true values.
        before: likewise what was sent last; None in a first frame.
        sensitivity: of the stream.

    Raises:
        DeltafineError: the rule gives values of another shape.
    """
    rule, delta = plan.own_rule(operation), operation.finish.delta
    assert rule is not None
    assert delta is not None
    shape = plan.tensors[operation.output].sample_shape
    threshold = plan.arrays[delta.threshold]
    threshold = threshold.reshape(shape) if threshold.ndim == 3 else threshold
    if follows_sensitivity(plan, operation):
        threshold = threshold * np.float32(sensitivity)
    x = frame.reshape(1, *shape)
    if before is None:
        values = rule.first(x, threshold, delta.granularity, np)
    else:
        values = rule.advance(before.reshape(x.shape), x, threshold, delta.granularity, np)
    if np.shape(values) != x.shape:
        raise DeltafineError(
            f"The rule '{delta.rule}' of delta layer '{delta.name}' gives values of shape {np.shape(values)} for "
            f"frames of shape {x.shape}: they must be alike."
        )
    return np.asarray(values, np.float32).reshape(frame.shape)


def _quiet(delta: Delta, change: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """Where nothing is sent; not where there is a NaN, which must show."""
    if delta.granularity == "element":
        return np.asarray(np.absolute(change) < threshold)
    relative = change / threshold
    return np.asarray(np.sqrt(np.mean(np.square(relative), axis=-1, keepdims=True)) < 1.0)
