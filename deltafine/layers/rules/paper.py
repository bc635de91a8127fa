"""The layer of the method's authors, kept as it is: the baseline to beat."""

from __future__ import annotations

import tensorflow as tf

from deltafine.layers.rules.changes import change_over_time
from deltafine.layers.rules.quantize import Quantize


class Paper(Quantize):
    """Forward as ``quantize``; gradients and penalty as in the authors' code (arXiv 2107.07305).

    The threshold has one gradient for everything, d output / d threshold = -round(x / threshold): x / threshold is
    detached and the sign flipped. The penalty is the mean |y_t - y_(t-1)|, through that same gradient.
    """

    name = "paper"

    def output(self, x: tf.Tensor, sent: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
        levels = tf.stop_gradient(tf.round(x / threshold))
        threshold_path = -levels * (threshold - tf.stop_gradient(threshold))
        return tf.stop_gradient(sent) + (x - tf.stop_gradient(x)) + threshold_path

    def expected_events(self, x: tf.Tensor, sent: tf.Tensor, threshold: tf.Tensor, granularity: str) -> tf.Tensor:
        """|y_t - y_(t-1)|: a size, not a number of events; not bounded by 1."""
        y = self.output(x, sent, threshold)
        return tf.abs(change_over_time(y))
