"""Send a value when it has moved a threshold away from what was sent last; keep the rest for later."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

from deltafine.layers.rules.base import EventRule
from deltafine.layers.rules.changes import relative_change

if TYPE_CHECKING:
    from deltafine.layers.rules.base import Values


class SendOnDelta(EventRule):
    """An event when |x - last sent| >= threshold; the true value is then sent.

    Also known as sigma-delta or hysteresis quantisation. A value that hovers anywhere stays silent, and the
    error is below one threshold at every frame.
    """

    name = "send-on-delta"

    def advance(self, sent: Values, x: Values, threshold: Values, granularity: str, xp: ModuleType) -> Values:
        quiet = (
            xp.absolute(x - sent) < threshold
            if granularity == "element"
            else relative_change(x - sent, threshold, granularity, xp) < 1.0
        )
        return xp.where(quiet, sent, x)  # "not quiet" includes NaN: a broken value must show, not hide
