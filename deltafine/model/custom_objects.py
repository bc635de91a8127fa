"""The user's own layers and functions, named on the command line as ``module:name``."""

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
        names: each ``module:name``, or ``module:name=saved_name`` if the model knows it under another name.

    Returns:
        The objects by the name under which a model file knows them.

    Raises:
        DeltafineError: a name is not of this form, or cannot be imported.
    """
    return dict(_imported(name) for name in names)


def _imported(text: str) -> tuple[str, Any]:
    reference, _, saved_name = text.partition("=")
    module_name, _, name = reference.partition(":")
    if not module_name or not name:
        raise DeltafineError(f"--custom-objects wants module:name, not '{text}'.")
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
