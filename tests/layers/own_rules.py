"""Event rules as a user would write them."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from deltafine.layers import EventRule, relative_change


class Hysteresis(EventRule):
    """Multiples of the threshold; a level is left at a distance of (0.5 + margin) thresholds."""

    name = "hysteresis"
    quantises = True

    def __init__(self, margin: float = 0.25) -> None:
        self.margin = margin

    def first(self, x: Any, threshold: Any, granularity: str, xp: ModuleType) -> Any:
        return xp.round(x / threshold) * threshold

    def advance(self, sent: Any, x: Any, threshold: Any, granularity: str, xp: ModuleType) -> Any:
        quiet = relative_change(x - sent, threshold, granularity, xp) < 0.5 + self.margin
        return xp.where(quiet, sent, self.first(x, threshold, granularity, xp))

    def get_config(self) -> dict[str, Any]:
        return {"margin": self.margin}


class Halfway(EventRule):
    """Sends half of what is missing, and so goes on sending while its input stands still."""

    name = "halfway"

    def advance(self, sent: Any, x: Any, threshold: Any, granularity: str, xp: ModuleType) -> Any:
        quiet = relative_change(x - sent, threshold, granularity, xp) < 1.0
        return xp.where(quiet, sent, sent + (x - sent) * 0.5)


class Truncated(EventRule):
    """Rounds towards zero; without memory."""

    name = "truncated"
    has_memory = False
    quantises = True

    def first(self, x: Any, threshold: Any, granularity: str, xp: ModuleType) -> Any:
        return xp.sign(x) * xp.floor(xp.absolute(x) / threshold) * threshold

    def advance(self, sent: Any, x: Any, threshold: Any, granularity: str, xp: ModuleType) -> Any:
        return self.first(x, threshold, granularity, xp)


class Forgetful(EventRule):
    """Has a parameter, and does not say so."""

    name = "forgetful"

    def __init__(self, margin: float = 0.25) -> None:
        self.margin = margin

    def advance(self, sent: Any, x: Any, threshold: Any, granularity: str, xp: ModuleType) -> Any:
        return x


class Summed(EventRule):
    """Gives values of another shape."""

    name = "summed"

    def advance(self, sent: Any, x: Any, threshold: Any, granularity: str, xp: ModuleType) -> Any:
        return xp.sum(x, axis=-1)


loose = Hysteresis(0.45)
