"""Inputs of a model beside its frames: numbers that hold for a frame, such as a speed or a command.

Frames go through deltafine as arrays (..., height, width, channels). The numbers that belong to a frame travel with it,
as the bytes of further lines below its pixels (see ``deltafine.video.further_values``), and are taken apart here where
a model is called.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from deltafine.errors import DeltafineError
from deltafine.model import graph
from deltafine.model.clip_model import frame_layers
from deltafine.video.further_values import Wanted, lines_for, wanted_of


@dataclass(frozen=True)
class FurtherInput:
    """An input beside the frames.

    Attributes:
        name: as the model calls it.
        shape: of its values for a frame: (), or (values,).
        dtype: what it takes.
        most: it takes whole numbers below this, since it goes into an embedding of so many; None where it does not.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    most: int | None = None

    @property
    def size(self) -> int:
        """How many values it has for a frame."""
        return math.prod(self.shape)

    @property
    def wanted(self) -> list[Wanted]:
        """Its values, each by the column that it comes from: its name, followed by _0, _1, ... where it has several."""
        whole = not self.dtype.startswith(("float", "bfloat"))
        return wanted_of(self.name, self.size, whole=whole, most=self.most)


def names_of_inputs(model: graph.Graph) -> list[str]:
    """What the inputs are called, in the order of ``graph.input_tensors``: their keys in a dict, else their names."""
    paths = [path for path, _ in keras.tree.flatten_with_path(graph.input_structure(model))]
    tensors = graph.input_tensors(model)
    if len(paths) != len(tensors):
        return [tensor.name for tensor in tensors]
    return [
        path[-1] if path and isinstance(path[-1], str) else tensor.name
        for path, tensor in zip(paths, tensors, strict=True)
    ]


def further_inputs(model: graph.Graph) -> tuple[FurtherInput, ...]:
    """The inputs of a model beside its frames, in the model's order.

    Args:
        model: of frames, or a clip model of one, as ``insert_deltas`` makes it.

    Raises:
        DeltafineError: one of them takes no numbers that a list of videos could hold.
    """
    tensors = graph.input_tensors(model)
    if len(tensors) < 2:
        return ()
    frames = graph.frames_input(model)
    over_time = len(frames.shape) == 5
    if over_time and not (isinstance(model, keras.Model) and _is_clip_model(model)):
        raise DeltafineError(
            f"Model '{model.name}' takes clips and further inputs ({listed(model)}), and further inputs are for models "
            "that take single frames: give the others a constant, as docs/refine.md shows (Further inputs)."
        )
    found = []
    for name, tensor in zip(names_of_inputs(model), tensors, strict=True):
        if tensor is frames:
            continue
        shape = tuple(tensor.shape[2 if over_time else 1 :])
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        if len(shape) > 1 or None in shape or 0 in shape or not dtype.startswith(("float", "bfloat", "int", "uint")):
            raise DeltafineError(
                f"Input '{name}' of model '{model.name}' takes {shape} of {dtype} for a frame, and an input beside the "
                "frames is one number or a vector of numbers: give it a constant, as docs/refine.md shows (Further "
                "inputs)."
            )
        found.append(FurtherInput(name, shape, dtype, _entries(model, tensor)))
    return tuple(found)


def listed(model: graph.Graph) -> str:
    """The inputs beside the frames, for messages."""
    frames = graph.frames_input(model)
    pairs = zip(names_of_inputs(model), graph.input_tensors(model), strict=True)
    return ", ".join(f"'{name}'" for name, tensor in pairs if tensor is not frames)


def refuse_further_inputs(model: graph.Graph, why: str) -> None:
    """Refuse a model that takes more than its frames.

    Args:
        model: the model.
        why: what cannot be done with it, such as "has no streaming form: export it as stripped".

    Raises:
        DeltafineError: naming the inputs.
    """
    if len(graph.input_tensors(model)) > 1:
        raise DeltafineError(f"Model '{model.name}' takes {listed(model)} beside its frames, and {why}.")


def inputs_of(model: keras.Model, frames: Any) -> list[Any]:
    """What a clip model, or a model of single frames, is called with: flat, in the order of its inputs.

    Args:
        model: the model.
        frames: (batch, time, height, width, channels), or without time for a model of single frames; with the bytes of
            further values in further lines where the model has further inputs.

    Raises:
        DeltafineError: these lines are missing.
    """
    tensors = graph.input_tensors(model)
    if len(tensors) == 1:
        return [frames]
    pictures = graph.frames_input(model)
    lead = len(pictures.shape) - 3
    further = [tensor for tensor in tensors if tensor is not pictures]
    values = iter(_values(frames, pictures.shape[-3], [math.prod(tensor.shape[lead:]) for tensor in further], model))
    given = []
    for tensor in tensors:
        if tensor is pictures:
            given.append(frames[..., : pictures.shape[-3], :, :])
            continue
        value = next(values)
        value = value if len(tensor.shape) > lead else value[..., 0]
        given.append(keras.ops.cast(value, tensor.dtype))
    return given


def answered(model: keras.Model, frames: Any, *, training: bool = False) -> Any:
    """What a model answers on frames as :func:`inputs_of` takes them."""
    given = inputs_of(model, frames)
    return model(given if len(given) > 1 else given[0], training=training)


def picture_shape(clip_model: keras.Model) -> tuple[int, int, int]:
    """(height, width, channels) of the frames that a clip model takes."""
    height, width, channels = graph.frames_input(clip_model).shape[2:]
    return height, width, channels


def packed_shape(clip_model: keras.Model) -> tuple[int, int, int]:
    """The same of frames with their further lines."""
    height, width, channels = picture_shape(clip_model)
    count = sum(one.size for one in further_inputs(clip_model))
    return height + lines_for(count, width * channels), width, channels


def _values(frames: Any, height: int, sizes: Sequence[int], model: keras.Model) -> list[Any]:
    """(..., values) float32 of each further input."""
    import tensorflow as tf

    if frames.shape[-3] is not None and frames.shape[-3] <= height:
        raise DeltafineError(
            f"Model '{model.name}' takes {listed(model)} beside its frames, and was given frames alone: let the data "
            "set give them (deltafine.measurement.given_inputs)."
        )
    count, lead = sum(sizes), tf.shape(frames)[:-3]
    below = tf.reshape(frames[..., height:, :, :], tf.concat([lead, [-1]], axis=0))[..., : 4 * count]
    four = tf.reshape(tf.cast(below, tf.uint8), tf.concat([lead, [count, 4]], axis=0))
    four = tf.ensure_shape(four, (*frames.shape[:-3], count, 4))
    found: list[Any] = tf.split(tf.bitcast(four, tf.float32), list(sizes), axis=-1)
    return found


def _is_clip_model(model: keras.Model) -> bool:
    return bool(frame_layers(model)) or any(type(layer).__name__ == "FoldTime" for layer in model.layers)


def _entries(model: graph.Graph, tensor: keras.KerasTensor) -> int | None:
    """Of the smallest embedding that takes an input as it is."""
    from deltafine.layers.time import FoldTime

    found: list[int] = []

    def on_call(name: str, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = any(leaf is True for leaf in keras.tree.flatten((args, kwargs)))
        if given and isinstance(node.operation, keras.layers.Embedding):
            found.append(int(node.operation.input_dim))
        if given and graph.is_graph(node.operation):
            inner = graph.nested_inputs(node.operation, args, kwargs)
            graph.walk(node.operation, inner, on_call)
        hands_on = isinstance(node.operation, FoldTime | keras.layers.Identity | keras.layers.Reshape)
        hands_on = hands_on or type(node.operation).__name__ in ("GetItem", "Squeeze", "Reshape", "Cast")
        return [given and hands_on and place == 0 for place in range(len(node.outputs))]

    graph.walk(model, [one is tensor for one in graph.input_tensors(model)], on_call)
    return min(found, default=None)
