"""The spatial penalty that the method's authors compare with."""

from __future__ import annotations

import tensorflow as tf

from deltafine.layers.rules.identity import Identity


class L1(Identity):
    """y = x with a penalty on the mean |x|: fewer non-zero activations, whatever they do over time."""

    name = "l1"

    def expected_events(self, x: tf.Tensor, sent: tf.Tensor, threshold: tf.Tensor, granularity: str) -> tf.Tensor:
        return tf.abs(x)
