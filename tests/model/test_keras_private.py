"""What is private to Keras is used in one file, so that a new version of Keras is met there."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import keras
import pytest

PACKAGE = Path(__file__).parents[2] / "deltafine"
THE_FILE = PACKAGE / "model" / "keras_private.py"


def private_names() -> set[str]:
    """Private attributes of the objects that models are made of."""
    inputs = keras.Input((3,))
    outputs = keras.layers.Dense(2)(inputs)
    attention = keras.layers.MultiHeadAttention(1, 2)
    objects = [inputs, outputs, keras.Model(inputs, outputs), keras.layers.Dense(2), attention, keras.ops]
    objects += [keras.Sequential([inputs, keras.layers.Dense(2)]), keras.Function(inputs, outputs)]
    names = {name for thing in objects for name in (*dir(thing), *getattr(thing, "__dict__", {}))}
    return {name for name in names if name.startswith("_") and not name.startswith("__")} | {"_keras_mask"}


def used(file: Path, names: set[str]) -> Iterator[str]:
    """Where a file uses one of these names on something other than itself, or a private module of Keras."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr in names:
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                yield f"{file.name}:{node.lineno} {node.attr}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value in names or node.value.startswith("keras.src"):
                yield f"{file.name}:{node.lineno} {node.value}"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("keras.src"):
            yield f"{file.name}:{node.lineno} {node.module}"


def test_the_one_file_uses_what_is_private() -> None:
    assert {"_functional", "_flatten_layers", "keras.src.ops."} <= {
        place.split()[1] for place in used(THE_FILE, private_names())
    }


@pytest.mark.parametrize(
    "room", sorted(path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__")
)
def test_no_other_file_does(room: str) -> None:
    files = [file for file in (PACKAGE / room).rglob("*.py") if file != THE_FILE]
    assert [place for file in files for place in used(file, private_names())] == []
