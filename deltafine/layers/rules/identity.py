"""Change nothing, count every change."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

import tensorflow as tf

from deltafine.layers.rules.base import EventRule

if TYPE_CHECKING:
    from deltafine.layers.rules.base import Values


class Identity(EventRule):
    """y = x, to the bit: for measuring what a model does before any threshold is set."""

    name = "identity"
    uses_threshold = False
    has_memory = False

    def advance(self, sent: Values, x: Values, threshold: Values, granularity: str, xp: ModuleType) -> Values:
        return x

    def send(self, x: tf.Tensor, threshold: tf.Tensor, granularity: str, start: tf.Tensor | None = None) -> tf.Tensor:
        return x

    def output(self, x: tf.Tensor, sent: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
        return x

    def expected_events(self, x: tf.Tensor, sent: tf.Tensor, threshold: tf.Tensor, granularity: str) -> tf.Tensor:
        return tf.zeros_like(x[:, 1:])
