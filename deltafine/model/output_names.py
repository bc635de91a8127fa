"""What the outputs of a model are called: by their keys in a dict, else by the layers that make them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from deltafine.layers.time import TimeLast, TimeMean, UnfoldTime
from deltafine.model import graph, keras_private

_UNTOLD = (TimeMean, TimeLast, UnfoldTime, keras.layers.Identity, keras.layers.Reshape, keras.layers.Flatten)
"""Layers that only hand on what another one has made."""


def output_names(model: keras.Model) -> list[str]:
    """One name for each output, in the order of ``model.outputs``; a name that two have is followed by its place.

    A refined model has the names of the model that it was made of.
    """
    found = []
    for path, tensor in keras.tree.flatten_with_path(graph.output_structure(model)):
        found.append(_key(path) or _maker(tensor))
    return told_apart(found)


def told_apart(names: Sequence[str]) -> list[str]:
    """Names, those that are there twice being followed by their places."""
    return [f"{name} {place}" if names.count(name) > 1 else name for place, name in enumerate(names)]


def _key(path: Sequence[Any]) -> str:
    """The name of a place in nested outputs; "" where none of what holds it has keys."""
    key = ""
    for step in path:
        if isinstance(step, str):
            key = f"{key}/{step}".strip("/")
        elif key:
            key = f"{key}/{step}"
    return key


def _maker(tensor: keras.KerasTensor) -> str:
    """The layer that makes a symbolic tensor, in whatever nested model it is."""
    layer = graph.maker(tensor)
    if isinstance(layer, _UNTOLD):
        return _maker(graph.arguments_of_maker(tensor)[0])
    if graph.is_graph(layer):
        made: Any = keras_private.call_that_made(tensor).output_tensors
        place = next(place for place, one in enumerate(made) if one is tensor)
        return _maker(keras.tree.flatten(graph.output_structure(layer))[place])
    return layer.name
