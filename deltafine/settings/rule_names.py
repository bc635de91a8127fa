"""How settings name the rule of the delta layers: a built-in one, or a class of the user's own."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

BUILT_IN_RULES = ("send-on-delta", "quantize")
"""Rules that can be asked for by name; any other is a class of the user's own."""
WITHOUT_MEMORY = ("quantize", "paper", "l1")
"""Rules for which it makes no difference what was sent before."""
_OWN_RULE = re.compile(r"[\w.]+:[\w.]+(\(.*\))?")


def _rule_as_text(rule: Any) -> str:
    """A rule as settings hold it: its name, or ``module:Name(argument=value)``; an instance says the latter itself."""
    text = getattr(rule, "reference", rule)
    if isinstance(text, str) and (text in BUILT_IN_RULES or _OWN_RULE.fullmatch(text)):
        return text
    raise PydanticCustomError("rule", "it must be send-on-delta, quantize, or module:Name of a rule of your own")


RuleText = Annotated[str, BeforeValidator(_rule_as_text)]
"""``send-on-delta``, ``quantize``, or ``module:Name(argument=value)``."""
