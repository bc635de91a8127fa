"""The user's own layers, functions and rules, named on the command line as ``module:name``."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from deltafine.errors import DeltafineError
from deltafine.layers.rules import RULES, EventRule, rule_of


def import_objects(names: Iterable[str]) -> dict[str, Any]:
    """Import what the names say; modules are also looked for in the current directory.

    Args:
        names: each ``module:name``, or ``saved_name=module:name`` if the model knows it under another name, as for the
            function of a ``Lambda`` layer, which goes by the layer's. ``module:name=saved_name`` is the same.

    Returns:
        The objects by the name under which a model file knows them.

    Raises:
        DeltafineError: a name is not of this form, or cannot be imported.
    """
    return dict(_named(name) for name in names)


def import_rule(text: str) -> EventRule:
    """The event rule that the setting ``rule`` names.

    Args:
        text: the name of a built-in rule; or ``module:name`` of a class or an instance, where a class may be followed
            by its arguments, ``module:Class(argument=value)``, which are numbers, strings and the like.

    Raises:
        DeltafineError: it is not of this form, cannot be imported, or is no event rule.
    """
    if text in RULES:
        return RULES[text]
    reference, bracket, arguments = text.partition("(")
    module_name, _, name = reference.partition(":")
    if not module_name or not name:
        raise DeltafineError(f"The rule must be one of {', '.join(RULES)}, or module:Name, not '{text}'.")
    found = imported(module_name, name, f"the rule {text}")
    try:
        made = found(**_arguments(bracket + arguments)) if isinstance(found, type) or bracket else found
        if not isinstance(made, EventRule):
            raise TypeError(f"it is a {type(made).__name__}, not a deltafine.layers.EventRule")
        return rule_of(made)
    except Exception as error:  # whatever a class of the user's own may raise
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise DeltafineError(f"The rule {text} cannot be used: {reason}.") from error


def _arguments(text: str) -> dict[str, Any]:
    """``(name=value, ...)``, values being literals."""
    if not text:
        return {}
    call = ast.parse(f"rule{text}", mode="eval").body
    if not isinstance(call, ast.Call) or call.args or not all(keyword.arg for keyword in call.keywords):
        raise ValueError("its arguments must be given as (name=value, ...)")
    return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}


def _named(text: str) -> tuple[str, Any]:
    before, equals, after = text.partition("=")
    reference, saved_name = (after, before) if equals and ":" not in before else (before, after)
    module_name, _, name = reference.partition(":")
    if not module_name or not name or bool(equals) != bool(saved_name):
        raise DeltafineError(f"--custom-objects wants module:name, or layer=module:function, not '{text}'.")
    return saved_name or name, imported(module_name, name, f"--custom-objects {text}")


def imported(module_name: str, name: str, asked: str) -> Any:
    """An object of a module, which is also looked for in the current directory.

    Args:
        module_name: of the module.
        name: of the object in it; dots lead further in.
        asked: what asks for it, in words.

    Raises:
        DeltafineError: the module cannot be imported, or has no such object.
    """
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(module_name)
    except Exception as error:  # whatever a module of the user's own may raise
        reason = " ".join(str(error).split())[:200].rstrip(".")
        kind = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
        raise DeltafineError(f"The module of {asked} cannot be imported: {kind}{reason}.") from error
    finally:
        if added:
            sys.path.remove(here)
    for word in name.split("."):
        if not hasattr(found, word):
            raise DeltafineError(f"Module {module_name} has no '{name}', which {asked} asks for.")
        found = getattr(found, word)
    return found
