"""How far values have moved, in thresholds, and the gradients that event rules share."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import tensorflow as tf


def relative_change(change: Any, threshold: Any, granularity: str, xp: ModuleType) -> Any:
    """|change| / threshold per element, or its root mean square over the channels (kept as one) per pixel."""
    if granularity == "element":
        return xp.absolute(change) / threshold
    return xp.sqrt(xp.mean(xp.square(change / threshold), axis=-1, keepdims=True))


def smooth_relative_change(change: tf.Tensor, threshold: tf.Tensor, granularity: str) -> tf.Tensor:
    """As :func:`relative_change`, with a finite gradient at 0."""
    if granularity == "element":
        return tf.abs(change) / threshold
    return tf.sqrt(tf.reduce_mean(tf.square(change / threshold), axis=-1, keepdims=True) + 1e-12)


@tf.custom_gradient
def change_over_time(x: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """x_t - x_(t-1) of frames 2..T: (batch, time, ..., channels) to (batch, time - 1, ..., channels).

    TensorFlow's own gradient of the two slices costs more than everything else in a delta layer.
    """

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        rest = [[0, 0]] * (len(upstream.shape) - 2)
        return tf.pad(upstream, [[0, 0], [1, 0], *rest]) - tf.pad(upstream, [[0, 0], [0, 1], *rest])

    return x[:, 1:] - x[:, :-1], gradient


@tf.custom_gradient
def straight_through(x: tf.Tensor, sent: tf.Tensor, threshold: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """``sent``, with the gradients that ``EventRule.output`` describes."""

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None, tf.Tensor]:
        of_threshold = upstream * (sent - x) / threshold
        return upstream, None, tf.reduce_sum(of_threshold, axis=list(range(len(x.shape) - len(threshold.shape))))

    return tf.identity(sent), gradient
