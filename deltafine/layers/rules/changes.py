"""How far values have moved, in thresholds, and the gradients that event rules share."""

from __future__ import annotations

from itertools import pairwise
from types import ModuleType
from typing import Any

import tensorflow as tf

UNROLL_LIMIT = 16
"""Clips up to this many frames are computed frame by frame in an unrolled graph."""


def is_short(x: tf.Tensor) -> bool:
    """Whether clips (batch, time, ...) are of few frames, of which the number is known, and more than one."""
    return x.shape[1] is not None and 1 < x.shape[1] <= UNROLL_LIMIT


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


def likely_events(x: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
    """tanh(|x_t - x_(t-1)| / threshold) of frames 2..T, element by element; shapes as in :func:`change_over_time`."""
    if not is_short(x):
        return tf.tanh(smooth_relative_change(change_over_time(x), threshold, "element"))
    return _likely_events(x, threshold)


@tf.custom_gradient
def _likely_events(x: tf.Tensor, threshold: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """The same for short clips, frame by frame: slices of a clip cost more than what is computed of them."""
    frames = tf.unstack(x, axis=1)
    signed = [tf.tanh((later - earlier) / threshold) for earlier, later in pairwise(frames)]

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        slopes = [
            up * (1 - tf.square(value)) * tf.sign(value)
            for up, value in zip(tf.unstack(upstream, axis=1), signed, strict=True)
        ]
        of_threshold = -tf.add_n(
            [slope * (later - earlier) for slope, (earlier, later) in zip(slopes, pairwise(frames), strict=True)]
        )
        over = list(range(len(of_threshold.shape) - len(threshold.shape)))
        changes = [slope / threshold for slope in slopes]
        of_x = [-changes[0], *(earlier - later for earlier, later in pairwise(changes)), changes[-1]]
        return tf.stack(of_x, axis=1), tf.reduce_sum(of_threshold, axis=over) / tf.square(threshold)

    return tf.stack([tf.abs(value) for value in signed], axis=1), gradient


@tf.custom_gradient
def straight_through(x: tf.Tensor, sent: tf.Tensor, threshold: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """``sent``, with the gradients that ``EventRule.output`` describes."""

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None, tf.Tensor]:
        of_threshold = upstream * (sent - x) / threshold
        return upstream, None, tf.reduce_sum(of_threshold, axis=list(range(len(x.shape) - len(threshold.shape))))

    return tf.identity(sent), gradient
