"""Counting events exactly while a model trains."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


def over_channels(mask: tf.Tensor) -> tf.Tensor:
    """How many channels of (..., channels) are true: (...), in the narrowest integers that hold them.

    Narrow integers, because a pass over bytes costs a fraction of one over 64-bit numbers.
    """
    channels = mask.shape[-1]
    known = channels is not None and channels < 2**16
    narrow = (tf.uint8 if channels < 2**8 else tf.uint16) if known else tf.int64
    return tf.reduce_sum(tf.cast(mask, narrow), axis=-1)


class EventDensity(keras.metrics.Metric):
    """Events / elements since the last reset, counted in 64-bit integers."""

    def __init__(self, name: str = "density", **kwargs: Any) -> None:
        kwargs["dtype"] = "float32"
        super().__init__(name=name, **kwargs)
        self.events = self.add_variable((), initializer="zeros", dtype="int64", name="events")
        self.elements = self.add_variable((), initializer="zeros", dtype="int64", name="elements")

    def update_state(self, events: tf.Tensor, elements: tf.Tensor) -> None:
        """Add counts (integer scalars)."""
        self.events.assign_add(tf.cast(events, tf.int64))
        self.elements.assign_add(tf.cast(elements, tf.int64))

    def result(self) -> tf.Tensor:
        return tf.math.divide_no_nan(
            tf.cast(tf.convert_to_tensor(self.events), tf.float32),
            tf.cast(tf.convert_to_tensor(self.elements), tf.float32),
        )
