"""Change nothing, count every change."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from deltafine.layers.rules.base import EventRule


class Identity(EventRule):
    """y = x, to the bit: for measuring what a model does before any threshold is set."""

    name = "identity"
    uses_threshold = False

    def advance(self, sent: Any, x: Any, threshold: Any, granularity: str, xp: Any) -> Any:
        return x

    def send(self, x: Any, threshold: Any, granularity: str, start: Any | None = None) -> Any:
        return x

    def output(self, x: Any, sent: Any, threshold: Any) -> Any:
        return x

    def expected_events(self, x: Any, sent: Any, threshold: Any, granularity: str) -> Any:
        return tf.zeros_like(x[:, 1:])
