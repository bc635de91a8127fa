"""Events are thresholds of the quantised value (Yousefzadeh and Sifalakis, arXiv 2107.07305)."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from keras import ops

from deltafine.layers.rules.base import EventRule, change_over_time, smooth_relative_change


class Quantize(EventRule):
    """y = threshold * round(x / threshold); an event wherever y differs from the frame before.

    Without memory, so that all frames are computed at once. It fires again and again where a value hovers at
    a rounding boundary.
    """

    name = "quantize"

    def advance(self, sent: Any, x: Any, threshold: Any, granularity: str, xp: Any) -> Any:
        return xp.round(x / threshold) * threshold

    def first(self, x: Any, threshold: Any) -> Any:
        return ops.round(x / threshold) * threshold

    def send(self, x: Any, threshold: Any, granularity: str, start: Any | None = None) -> Any:
        return self.first(x, threshold)

    def expected_events(self, x: Any, sent: Any, threshold: Any, granularity: str) -> Any:
        """tanh(u) of u = |x_t - x_(t-1)| / threshold, near min(1, u), which is exact for a uniform phase."""
        return tf.tanh(smooth_relative_change(change_over_time(x), threshold, granularity))
