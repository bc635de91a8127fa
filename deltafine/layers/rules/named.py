"""The built-in rules by name, and what stands for a rule: a name, an instance, or what a saved model holds of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import keras

from deltafine.errors import DeltafineError
from deltafine.layers.rules.base import EventRule
from deltafine.layers.rules.identity import Identity
from deltafine.layers.rules.l1 import L1
from deltafine.layers.rules.paper import Paper
from deltafine.layers.rules.quantize import Quantize
from deltafine.layers.rules.send_on_delta import SendOnDelta

RULES: dict[str, EventRule] = {rule.name: rule for rule in (SendOnDelta(), Quantize(), Identity(), Paper(), L1())}
"""The built-in rules by name."""

RuleLike: TypeAlias = str | EventRule | Mapping[str, Any]
"""The name of a built-in rule, an instance of any, or what ``stored_rule`` makes of it."""


def rule_of(rule: RuleLike) -> EventRule:
    """The rule that is meant.

    Raises:
        ValueError: there is no built-in rule of this name, or the instance has no name of its own.
        DeltafineError: a saved rule whose class is not known here.
    """
    if isinstance(rule, Mapping):
        rule = _restored(rule)
    if isinstance(rule, EventRule):
        _check_name(rule)
        return rule
    if not isinstance(rule, str) or rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}, or an instance of an EventRule, got {rule!r}")
    return RULES[rule]


def stored_rule(rule: EventRule) -> str | dict[str, Any]:
    """What a configuration holds of a rule: the name of a built-in one, else what Keras makes of an object."""
    if type(RULES.get(rule.name)) is type(rule):
        return rule.name
    stored: dict[str, Any] = keras.saving.serialize_keras_object(rule)
    return stored


def _restored(stored: Mapping[str, Any]) -> EventRule:
    """The rule of a configuration. Its class must be known: no module is imported because a model file names it."""
    names = [str(stored[key]) for key in ("registered_name", "class_name") if stored.get(key)]
    found = next(filter(None, map(keras.saving.get_registered_object, names)), None)
    if not (isinstance(found, type) and issubclass(found, EventRule)):
        where = f"{stored.get('module') or 'module'}:{stored.get('class_name')}"
        raise DeltafineError(
            f"its delta layers use the event rule '{names[0] if names else stored}', a class that is not known here: "
            f"import its module first, or name it with --custom-objects {where}."
        )
    try:
        return found.from_config(dict(stored.get("config") or {}))
    except Exception as error:  # whatever a class of the user's own may raise
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise DeltafineError(
            f"its event rule '{names[0]}' cannot be made again from {stored.get('config')}: {reason}."
        ) from error


def _check_name(rule: EventRule) -> None:
    name = getattr(rule, "name", None)
    if not isinstance(name, str) or not name:
        raise ValueError(f"the rule {type(rule).__name__} needs a name: set it in the class")
    if name in RULES and type(RULES[name]) is not type(rule):
        raise ValueError(f"the rule {type(rule).__name__} has the name of a built-in rule, '{name}': give it its own")
