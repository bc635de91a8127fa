"""The structure of a model's outputs (one, a tuple, a list, a dict, and these inside each other), as plain JSON.

A place among the flat outputs is a number; a collection is a list that begins with its kind:
``["tuple", inner, ...]``, ``["list", inner, ...]``, ``["dict", [key, inner], ...]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Structure = int | list[Any] | None


def described(outputs: Any) -> Structure:
    """The structure of nested outputs whose leaves are their places among the flat ones.

    A collection of one output at the outermost level is the output itself, as Keras gives it.
    """
    if isinstance(outputs, list | tuple) and len(outputs) == 1:
        return _described(outputs[0])
    return _described(outputs)


def _described(outputs: Any) -> Structure:
    if isinstance(outputs, Mapping):
        return ["dict", *([key, _described(inner)] for key, inner in outputs.items())]
    if isinstance(outputs, list | tuple):
        return ["list" if isinstance(outputs, list) else "tuple", *(_described(inner) for inner in outputs)]
    return None if outputs is None else int(outputs)


def packed(structure: Structure, values: Sequence[Any]) -> Any:
    """Flat values in a structure.

    Raises:
        ValueError, IndexError, TypeError: it is none.
    """
    if structure is None:
        return None
    if isinstance(structure, int):
        return values[structure]
    kind, *inside = structure
    if kind == "dict":
        return {key: packed(inner, values) for key, inner in inside}
    if kind not in ("list", "tuple"):
        raise ValueError(f"'{kind}' is no kind of structure")
    filled = [packed(inner, values) for inner in inside]
    return filled if kind == "list" else tuple(filled)
