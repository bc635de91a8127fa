"""The user's own layers and functions, named on the command line as ``module:name`` or ``saved_name=module:name``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from deltafine.errors import DeltafineError


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
    return dict(_imported(name) for name in names)


def _imported(text: str) -> tuple[str, Any]:
    before, equals, after = text.partition("=")
    reference, saved_name = (after, before) if equals and ":" not in before else (before, after)
    module_name, _, name = reference.partition(":")
    if not module_name or not name or bool(equals) != bool(saved_name):
        raise DeltafineError(f"--custom-objects wants module:name, or layer=module:function, not '{text}'.")
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise DeltafineError(f"The module of --custom-objects {text} cannot be imported: {error}.") from error
    finally:
        if added:
            sys.path.remove(here)
    if not hasattr(module, name):
        raise DeltafineError(f"Module {module_name} has no '{name}', which --custom-objects {text} asks for.")
    return saved_name or name, getattr(module, name)
