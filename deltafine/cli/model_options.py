"""Options of every command that loads a model from a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

CustomObjects = Annotated[
    list[str] | None, typer.Option("--custom-objects", metavar="MODULE:NAME", help="A layer or function of your own.")
]
Size = Annotated[str | None, typer.Option("--size", metavar="HxW", help="Frame size, for a model that takes any.")]
UnsafeLambda = Annotated[bool, typer.Option("--unsafe-lambda", help="Run Python code stored in the model file.")]


def frame_size_of(size: str | None) -> tuple[int, int] | None:
    """Height and width, as ``deltafine.DeltaRuntime`` takes them."""
    if size is None:
        return None
    from deltafine.model.frame_size import parsed_size

    return parsed_size(size)


def trust_in(custom_objects: Sequence[str] | None, unsafe_lambda: bool) -> dict[str, Any]:
    """Arguments of ``deltafine.model.load``; what loads models is loaded only where the user names objects."""
    objects = None
    if custom_objects:
        from deltafine.model.custom_objects import import_objects

        objects = import_objects(custom_objects)
    return {"custom_objects": objects, "unsafe_lambda": unsafe_lambda}
