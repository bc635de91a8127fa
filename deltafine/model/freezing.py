"""Which weights of a model may be trained: what is frozen in it, and what the user's patterns freeze and thaw."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from deltafine.errors import DeltafineError
from deltafine.model import graph, keras_private

if TYPE_CHECKING:
    import keras

NAMED = 4
"""Layers that a sentence names."""


@dataclass(frozen=True)
class Frozen:
    """What of a model's weights a training leaves as it is.

    Attributes:
        parameters: numbers in weights that are frozen (``trainable = False``).
        of: numbers in all weights that a training would change if nothing were frozen.
        layers: paths of the layers that have frozen weights, in order of computation.
    """

    parameters: int
    of: int
    layers: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """How many, and where: "12 of 34 weights are frozen, in conv and head"."""
        names = ", ".join(self.layers[:NAMED]) + (f" and {more} more" if (more := len(self.layers) - NAMED) > 0 else "")
        return f"{self.parameters:,} of {self.of:,} weights are frozen, in {names}"


def frozen_weights(model: keras.Model) -> Frozen:
    """What is frozen in a model; delta layers and statistics, which no gradient changes, are not counted."""
    frozen: dict[int, int] = {}
    every: dict[int, int] = {}
    layers = []
    whole = model.trainable  # a model that is frozen as such has nothing to train, whatever its layers say
    for path, layer in _weighty(model).items():
        # The flag of a variable is lost while it is frozen; only the layer's own list tells weights from statistics.
        own = {id(v): v for inner in keras_private.layers_within(layer) for v in keras_private.own_weights(inner)}
        sizes = {key: math.prod(v.shape) for key, v in own.items()}
        every |= sizes
        held = {key: size for key, size in sizes.items() if not (whole and own[key].trainable)}
        if held:
            frozen |= held
            layers.append(path)
    return Frozen(sum(frozen.values()), sum(every.values()), tuple(layers))


def set_trainable(model: keras.Model, *, unfreeze: Sequence[str] = (), freeze: Sequence[str] = ()) -> None:
    """Thaw the layers whose path matches one of ``unfreeze``, then freeze those that match one of ``freeze``.

    Patterns are shell patterns on layer paths (``*`` also spans ``/``); one that matches a nested model means all
    layers in it. Models that hold a thawed layer are marked as trainable too, their other layers stay as they are.

    Raises:
        DeltafineError: a pattern matches no layer with weights.
    """
    layers = _weighty(model)
    thawed = {path for pattern in unfreeze for path in _matches(pattern, layers, "--unfreeze")}
    frozen = {path for pattern in freeze for path in _matches(pattern, layers, "--freeze")}
    if thawed:
        every = list(graph.all_layers_by_path(model))
        flags = [layer.trainable for _, layer in every]
        for path, inner in _graphs(model):
            if not inner.trainable and any(not path or name.startswith(f"{path}/") for name in thawed):
                inner.trainable = True  # and with it all that is in it, so the flags of its layers are set again
        for (_, layer), flag in zip(every, flags, strict=True):
            if layer.trainable != flag:
                layer.trainable = flag
        for path in thawed:
            layers[path].trainable = True
    for path in frozen:
        layers[path].trainable = False


def _weighty(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Layers with weights by path; delta layers are not the user's."""
    from deltafine.layers import DeltaActivation

    found = graph.all_layers_by_path(model)
    return {path: layer for path, layer in found if layer.weights and not isinstance(layer, DeltaActivation)}


def _graphs(model: keras.Model, path: str = "") -> Iterator[tuple[str, keras.Model]]:
    """The model and those nested in it, outer ones first, each with its path."""
    yield path, model
    for operation in graph.as_function(model).operations:
        inner = operation if graph.is_graph(operation) else getattr(operation, "layer", None)
        if graph.is_graph(inner):
            yield from _graphs(inner, f"{path}/{operation.name}" if path else operation.name)


def _matches(pattern: str, layers: dict[str, keras.layers.Layer], option: str) -> list[str]:
    def named(path: str) -> bool:
        names = path.split("/")
        return any(fnmatchcase("/".join(names[: count + 1]), pattern) for count in range(len(names)))

    found = [path for path in layers if named(path)]
    if not found:
        near = difflib.get_close_matches(pattern, layers, n=3, cutoff=0.3)
        hint = f"the nearest names are {', '.join(near)}" if near else "see deltafine inspect for the names"
        raise DeltafineError(f"{option} '{pattern}' matches no layer with weights; {hint}.")
    return found
