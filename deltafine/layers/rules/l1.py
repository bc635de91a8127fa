"""The spatial penalty that the method's authors compare with."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from deltafine.layers.rules.identity import Identity


class L1(Identity):
    """y = x with a penalty on the mean |x|: fewer non-zero activations, whatever they do over time."""

    name = "l1"

    def expected_events(self, x: Any, sent: Any, threshold: Any, granularity: str) -> Any:
        return tf.abs(x)
