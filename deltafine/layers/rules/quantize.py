"""Events are thresholds of the quantised value (Yousefzadeh and Sifalakis, arXiv 2107.07305)."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

import tensorflow as tf
from keras import ops

from deltafine.layers.rules.base import EventRule

if TYPE_CHECKING:
    from deltafine.layers.rules.base import Values


class Quantize(EventRule):
    """y = threshold * round(x / threshold); an event wherever y differs from the frame before.

    Without memory, so that all frames are computed at once. It fires again and again where a value hovers at
    a rounding boundary.
    """

    name = "quantize"
    has_memory = False
    quantises = True

    def advance(self, sent: Values, x: Values, threshold: Values, granularity: str, xp: ModuleType) -> Values:
        return self.first(x, threshold, granularity, xp)

    def first(self, x: Values, threshold: Values, granularity: str, xp: ModuleType) -> Values:
        return xp.round(x / threshold) * threshold

    def send(self, x: tf.Tensor, threshold: tf.Tensor, granularity: str, start: tf.Tensor | None = None) -> tf.Tensor:
        return self.first(x, threshold, granularity, ops)
