"""The event rules, by name."""

from __future__ import annotations

from deltafine.layers.rules.base import GRANULARITIES, EventRule
from deltafine.layers.rules.identity import Identity
from deltafine.layers.rules.l1 import L1
from deltafine.layers.rules.paper import Paper
from deltafine.layers.rules.quantize import Quantize
from deltafine.layers.rules.send_on_delta import SendOnDelta

RULES: dict[str, EventRule] = {rule.name: rule for rule in (SendOnDelta(), Quantize(), Identity(), Paper(), L1())}

__all__ = ["GRANULARITIES", "RULES", "EventRule"]
