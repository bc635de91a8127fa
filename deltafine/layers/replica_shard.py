"""A batch of which this replica of a network has a shard only."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import keras
import tensorflow as tf

_active = threading.local()
PHILOX = 1
NUMBERS_PER_COUNT = 4
"""Philox gives so many 32-bit numbers for every value of its counter (Salmon et al. 2011)."""


@contextmanager
def shard_of_batch(first: tf.Tensor, real: tf.Tensor) -> Iterator[None]:
    """Within the block, the first clip is number ``first`` of the whole batch.

    Args:
        first: scalar integer tensor.
        real: whether the clips belong to the batch at all; a replica that has none is given one that counts nothing.
    """
    _active.first, _active.real = first, tf.cast(real, tf.int64)
    try:
        yield
    finally:
        _active.first = _active.real = None


def counts_here() -> tf.Tensor:
    """1 where what this replica has belongs to the batch, else 0; int64."""
    real = getattr(_active, "real", None)
    return tf.constant(1, tf.int64) if real is None else real


def uniform(shape: tf.Tensor, generator: keras.random.SeedGenerator) -> tf.Tensor:
    """Numbers from -1 to 1 of a shape (batch, ...), in float32; for a shard of a batch those that are its own.

    However a batch is cut into shards, every clip gets the numbers that it would get in the whole.
    """
    first = getattr(_active, "first", None)
    if first is None:
        return keras.random.uniform(shape, -1.0, 1.0, dtype="float32", seed=generator)
    shape = tf.cast(shape, tf.int64)
    skipped = tf.cast(first, tf.int64) * tf.reduce_prod(shape[1:])
    counts, begun = skipped // NUMBERS_PER_COUNT, skipped % NUMBERS_PER_COUNT
    seed = tf.cast(tf.math.floormod(generator.next(), tf.int32.max - 1), tf.int32)  # as Keras does
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=seed)
    # A sum in signed numbers has the same bits, and GPUs can do it; the lower half does not run over in any batch.
    counter = tf.bitcast(tf.bitcast(counter, tf.int64) + tf.stack([counts, tf.zeros_like(counts)]), tf.uint64)
    size = tf.reduce_prod(shape) + begun
    numbers = tf.raw_ops.StatelessRandomUniformV2(shape=size[None], key=key, counter=counter, alg=PHILOX)
    return tf.reshape(numbers[begun:], shape) * 2.0 - 1.0
