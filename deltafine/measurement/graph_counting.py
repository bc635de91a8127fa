"""Counting as ``counting.count`` does, in the graph of the model: for GPUs, where the values stay where they are."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from deltafine.measurement.counting import IntoDelta, Questions


def count(
    questions: Questions, value: tf.Tensor, *, into_delta: IntoDelta | None = None, before: tf.Tensor | None = None
) -> list[tf.Tensor]:
    """As ``counting.count``, for tensors."""
    over_space = list(range(2, len(value.shape)))
    nonzero, changed = tf.not_equal(value, 0), tf.not_equal(value[:, 1:], value[:, :-1])
    at_start = tf.zeros_like(nonzero[:, :1])
    ternary = tf.reduce_all(tf.equal(value, 0) | tf.equal(tf.abs(value), 1), axis=over_space)
    ternary_before = tf.zeros_like(ternary[:, :1])
    if before is not None:
        last = before[:, None]
        at_start = tf.not_equal(value[:, :1], last)
        ternary_before = tf.reduce_all(tf.equal(last, 0) | tf.equal(tf.abs(last), 1), axis=over_space)
    changed = tf.concat([at_start, changed], axis=1)

    def summed(mask: tf.Tensor, fan: np.ndarray | int = 1) -> tf.Tensor:
        return tf.reduce_sum(tf.cast(mask, tf.int64) * tf.constant(fan, tf.int64), axis=over_space)

    positions = tf.reduce_any(changed, axis=-1, keepdims=True)
    ternary_twice = ternary & tf.concat([ternary_before, ternary[:, :-1]], axis=1)
    rows = [
        summed(nonzero),
        summed(changed),
        summed(positions),
        tf.cast(ternary, tf.int64),
        tf.cast(ternary_twice, tf.int64),
    ]
    for fan in questions.fans:
        rows += [summed(nonzero, fan), summed(changed, fan)]
    found = [tf.stack(rows)]
    if into_delta is not None:
        true, threshold = (tf.cast(given, tf.float32) for given in (into_delta.true, into_delta.threshold))
        sent = tf.cast(value, tf.float32)
        distances = tf.reduce_sum(tf.cast(tf.abs(sent - true) / threshold, tf.float64), axis=over_space)
        found += [tf.reduce_sum(tf.cast(changed, tf.int64), axis=over_space[:-1]), distances]
        if questions.quantised:
            levels = tf.round(sent / threshold)
            found += [tf.cast(tf.stack([tf.reduce_min(levels), tf.reduce_max(levels)]), tf.float64)]
    return found
