"""Send a value when it has moved a threshold away from what was sent last; keep the rest for later."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from deltafine.layers.rules.base import EventRule, change_over_time, relative_change, smooth_relative_change


class SendOnDelta(EventRule):
    """An event when |x - last sent| >= threshold; the true value is then sent.

    Also known as sigma-delta or hysteresis quantisation. A value that hovers anywhere stays silent, and the
    error is below one threshold at every frame.
    """

    name = "send-on-delta"

    def advance(self, sent: Any, x: Any, threshold: Any, granularity: str, xp: Any) -> Any:
        quiet = (
            xp.absolute(x - sent) < threshold
            if granularity == "element"
            else relative_change(x - sent, threshold, granularity, xp) < 1.0
        )
        return xp.where(quiet, sent, x)  # "not quiet" includes NaN: a broken value must show, not hide

    def expected_events(self, x: Any, sent: Any, threshold: Any, granularity: str) -> Any:
        """tanh(u) of u = |x_t - x_(t-1)| / threshold.

        Not the distance to what was sent last: while training starts from random states, that distance is mostly
        the noise of the start, and its gradient would pull activations towards it.
        """
        return tf.tanh(smooth_relative_change(change_over_time(x), threshold, granularity))
