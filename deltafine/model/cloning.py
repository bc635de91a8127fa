"""Copies of layers, made from their own configuration."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any

import keras

from deltafine.errors import DeltafineError
from deltafine.model.keras_private import Config


def clone(layer: keras.layers.Layer, **changes: Any) -> keras.layers.Layer:
    """A new layer like this one, without its weights.

    Some layers put values into their configuration that they make from the others, and do not take them back. Those
    are left out if the new layer makes the same values, also where it is saved.

    Args:
        layer: to be copied.
        changes: what is to be different in its configuration.

    Raises:
        DeltafineError: its configuration does not make the layer again.
    """
    try:
        config = {**layer.get_config(), **changes}
    except Exception as error:  # whatever a layer of the user's own raises
        raise _cannot(layer, f"get_config() fails with {_last_line(error)}") from error
    try:
        return _saved_without(type(layer).from_config(dict(config)), config)
    except Exception as error:
        derived = sorted(set(config) - _taken(type(layer)))
        copy = _without(layer, config, derived) if derived else None
        if copy is not None:
            return copy
        unwanted = f"its class does not take what get_config() gives as {', '.join(derived)}"
        raise _cannot(layer, unwanted if derived else _last_line(error)) from error


def _cannot(layer: keras.layers.Layer, why: str) -> DeltafineError:
    return DeltafineError(
        f"Layer '{layer.name}' of type {type(layer).__name__} cannot be copied from its own configuration ({why}): "
        "let get_config() give what its class takes, and save the model again."
    )


def _without(layer: keras.layers.Layer, config: Config, derived: list[str]) -> keras.layers.Layer | None:
    """The copy that does without some values, if it makes them itself; None if not."""
    try:
        copy = type(layer).from_config({key: value for key, value in config.items() if key not in derived})
    except Exception:
        return None
    made = copy.get_config()
    if any(made.get(key) != config[key] for key in derived):
        return None
    return _saved_without(copy, set(config).difference(derived))


def _saved_without(copy: Any, known: Collection[str]) -> Any:
    """The copy, so that its configuration holds what it was made from, and nothing else."""
    whole = copy.get_config
    more = set(whole()).difference(known)
    if more:
        copy.get_config = lambda: {key: value for key, value in whole().items() if key not in more}
    return copy


def _taken(kind: type) -> set[str]:
    """Names of the arguments that a class and those above it take."""
    names = set(inspect.signature(keras.layers.Layer.__init__).parameters)
    for base in kind.__mro__:
        if "__init__" in vars(base):
            names.update(inspect.signature(base.__init__).parameters)  # type: ignore[misc]
        if base is keras.layers.Layer:
            break
    return names


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {(lines or [''])[-1][:160]}".rstrip(": .")
