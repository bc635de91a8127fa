"""Event rules: when a value counts as changed."""

from __future__ import annotations

from deltafine.layers.rules.base import GRANULARITIES, EventRule
from deltafine.layers.rules.changes import relative_change
from deltafine.layers.rules.named import RULES, RuleLike, rule_of, stored_rule

__all__ = ["GRANULARITIES", "RULES", "EventRule", "RuleLike", "relative_change", "rule_of", "stored_rule"]
