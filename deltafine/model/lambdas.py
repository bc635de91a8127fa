"""Lambda layers: Python code stored in a model file, and functions of the user's own in its place."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

from deltafine.errors import DeltafineError
from deltafine.model.keras_private import Config, CustomObjects
from deltafine.model.safety import CONFIG, dicts

_CODE = "__lambda__"


def supplied(config: Config, objects: CustomObjects) -> Config:
    """The configuration with the functions that the user has given for Lambda layers, by the layer's name.

    Args:
        config: of a model.
        objects: the user's own layers and functions; one of the name of a Lambda layer is its function.

    Returns:
        The same configuration where nothing is given.
    """
    if not any(_is_given(layer, objects) for layer in _lambdas(config)):
        return config
    config = deepcopy(config)
    for layer in _lambdas(config):
        if _is_given(layer, objects):
            own, name = layer["config"], layer["config"]["name"]
            own["function"] = {
                "module": "builtins", "class_name": "function", "config": name, "registered_name": "function",
            }  # fmt: skip
            if isinstance(own.get("output_shape"), dict):
                del own["output_shape"]  # code as well; the function says what shape it gives
    return config


def refuse_code(config: Config) -> None:
    """Refuse a model with Python code in its file.

    Raises:
        DeltafineError: naming the first Lambda layer that has some.
    """
    for layer in _lambdas(config):
        if any(node.get("class_name") == _CODE for node in dicts(layer)):
            name = layer["config"].get("name")
            raise DeltafineError(
                f"its layer '{name}' is a Lambda layer, that is Python code stored in the file, which would run with "
                f"all your rights: give its function with --custom-objects {name}=module:function, or, only if you "
                "trust whoever made the file, allow it with --unsafe-lambda."
            )


def write_with_config(archive: Path, config: Config, copy: Path) -> Path:
    """A copy of a ``.keras`` archive with another configuration."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(copy, "w") as target:
        for member in source.infolist():
            if member.filename == CONFIG:
                target.writestr(CONFIG, json.dumps(config))
            else:
                with source.open(member) as stored, target.open(member.filename, "w", force_zip64=True) as opened:
                    while block := stored.read(1 << 20):
                        opened.write(block)
    return copy


def _lambdas(config: Config) -> Iterator[Config]:
    for node in dicts(config):
        if node.get("class_name") == "Lambda" and isinstance(node.get("config"), dict):
            yield node


def _is_given(layer: Config, objects: CustomObjects) -> bool:
    return callable(objects.get(layer["config"].get("name")))
