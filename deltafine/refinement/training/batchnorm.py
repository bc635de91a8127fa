"""BatchNormalization with the statistics of a batch that several replicas have shards of.

Keras's own way to do so (``synchronized=True``) takes the variance as a difference of two large numbers, sums up three
times, and counts what a replica was only given because TensorFlow's convolutions cannot do with an empty batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from deltafine.errors import DeltafineError
from deltafine.layers.replica_shard import counts_here
from deltafine.model import keras_private


@contextmanager
def statistics_over_all(model: keras.Model, total: Callable[[Any], Any]) -> Iterator[None]:
    """Within the block, calls of the model in training, in replicas, normalise by the whole batch.

    Args:
        model: whose layers are meant.
        total: gives the sum of a tensor over all replicas, and sums its gradients.

    Raises:
        DeltafineError: a layer has ``renorm``, which is not known how to do by shards.
    """
    layers = [
        layer for layer in keras_private.layers_within(model) if isinstance(layer, keras.layers.BatchNormalization)
    ]
    for layer in layers:
        if layer.renorm and layer.trainable:
            raise DeltafineError(
                f"The layer {layer.name} has renorm=True, which cannot be trained on several devices: freeze it with "
                f"--freeze {layer.name}, or use one device."
            )
    for layer in layers:
        layer.call = _call(layer, layer.call, total)
    try:
        yield
    finally:
        for layer in layers:
            del layer.call


def _call(layer: Any, alone: Callable[..., Any], total: Callable[[Any], Any]) -> Callable[..., Any]:
    def call(inputs: Any, training: bool | None = None, mask: Any | None = None) -> Any:
        if not (training and layer.trainable) or mask is not None:
            return alone(inputs, training=training, mask=mask)
        working = tf.float64 if inputs.dtype == tf.float64 else tf.float32
        x = tf.cast(inputs, working)
        mean, variance = moments(x, layer.axis, total)
        for kept, new in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
            old = tf.cast(tf.convert_to_tensor(kept), working)
            kept.assign(old * layer.momentum + new * (1.0 - layer.momentum))
        outputs = keras.ops.batch_normalization(
            x,
            mean,
            variance,
            axis=layer.axis,
            offset=tf.cast(layer.beta, working) if layer.center else None,
            scale=tf.cast(layer.gamma, working) if layer.scale else None,
            epsilon=layer.epsilon,
        )
        return tf.cast(outputs, layer.compute_dtype)

    return call


def moments(x: Any, axis: int, total: Callable[[Any], Any]) -> tuple[Any, Any]:
    """Mean and variance (channels,) of everything but an axis, over the shards of all replicas."""
    axes = [place for place in range(len(x.shape)) if place != axis % len(x.shape)]
    channels = x.shape[axis]
    real = counts_here()
    count = tf.cast(real * tf.size(x, out_type=tf.int64) // channels, x.dtype)

    def summed(values: Any) -> Any:
        of_shard = tf.reduce_sum(values, axis=axes)
        return tf.where(real > 0, of_shard, tf.zeros_like(of_shard))

    first = total(tf.concat([summed(x), count[None]], axis=0))
    of_all = first[-1]
    mean = tf.math.divide_no_nan(first[:-1], of_all)
    shape = [1] * len(x.shape)
    shape[axis] = channels
    squares = total(summed(tf.math.squared_difference(x, tf.reshape(mean, shape))))
    return mean, tf.math.divide_no_nan(squares, of_all)
