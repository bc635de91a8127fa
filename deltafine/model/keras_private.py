"""All that deltafine takes from Keras beside its public interface. No other file does.

Keras keeps the graph of a Functional or Sequential model, and a few facts about its layers, in private attributes; and
it tells operations apart by classes in private modules. A new version of Keras that changes these is met here.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
from keras.src.legacy.saving.saving_utils import model_from_config
from keras.src.saving.serialization_lib import SafeModeScope

Config = dict[str, Any]
"""What Keras stores of a layer or model, as JSON has it."""
CustomObjects = Mapping[str, Any]
"""Layers and functions of the user's own, by the names that models call them."""
_OPERATIONS = "keras.src.ops."
_APPLICATIONS = {"LayerScale": "convnext", "CustomScaleLayer": "inception_resnet_v2"}


def function_of_sequential(model: keras.Sequential) -> keras.Function | None:
    """The ``keras.Function`` that a Sequential model keeps inside; None where there is none."""
    return model._functional


def output_structure(function: keras.Function) -> Any:
    """The symbolic outputs of a ``keras.Function`` in the structure in which they were given."""
    return function._outputs_struct


def input_structure(function: keras.Function) -> Any:
    """The symbolic inputs of a ``keras.Function`` in the structure in which they were given."""
    return function._inputs_struct


def nodes_by_depth(function: keras.Function) -> dict[int, list[Any]]:
    """The calls of a ``keras.Function``, by how many calls are between them and the outputs at most."""
    return function._nodes_by_depth


def calls_of(operation: keras.Operation) -> list[Any]:
    """Every call of an operation, in any graph, in the order in which they were made."""
    return operation._inbound_nodes


def maker(tensor: keras.KerasTensor) -> keras.Operation:
    """The layer or operation that gives a symbolic tensor."""
    return tensor._keras_history.operation


def call_that_made(tensor: keras.KerasTensor) -> Any:
    """The call that gives a symbolic tensor."""
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]


def is_masked(tensor: keras.KerasTensor) -> bool:
    """Whether a tensor carries a mask."""
    return getattr(tensor, "_keras_mask", None) is not None


def layers_within(layer: keras.layers.Layer, *, include_self: bool = True) -> list[keras.layers.Layer]:
    """A layer or model and every layer in it, however deep; each once."""
    return list(layer._flatten_layers(include_self=include_self))


def own_weights(layer: keras.layers.Layer) -> list[keras.Variable]:
    """The weights that a layer has made to be trained, without those of layers inside it; frozen ones too."""
    return list(layer._trainable_variables)


def takes_training(operation: keras.Operation) -> bool:
    """Whether a call of the operation can be told if it is in training."""
    return bool(getattr(operation, "_call_has_training_arg", False))


@dataclass(frozen=True)
class AttentionParts:
    """What an attention layer is made of.

    Attributes:
        layers: the dense layers of queries, keys, values and of the result.
        heads: of the queries.
        size: of a head of the queries.
        scale: by which queries are multiplied.
    """

    layers: tuple[keras.layers.Layer, ...]
    heads: int
    size: int
    scale: float


def attention_parts(layer: keras.layers.Layer) -> AttentionParts | None:
    """The parts of a ``MultiHeadAttention`` or ``GroupQueryAttention``; None where it does more than they say."""
    grouped = type(layer) is keras.layers.GroupQueryAttention
    if not grouped and type(layer) is not keras.layers.MultiHeadAttention:
        return None
    more = [getattr(layer, name, None) for name in ("_use_gate", "_sliding_window")]
    axes = getattr(layer, "_attention_axes", None)
    if any(more) or (axes is not None and tuple(axes) != (1,)):
        return None
    parts = layer._query_dense, layer._key_dense, layer._value_dense, layer._output_dense
    if any(getattr(part, "quantization_mode", None) is not None for part in parts):
        return None
    _, heads, size = parts[0].kernel.shape
    return AttentionParts(parts, int(heads), int(size), 1.0 / math.sqrt(size))


def is_layer_scale(layer: keras.layers.Layer) -> bool:
    """Whether a layer is the product with a learnt vector of ``keras.applications.convnext``."""
    return type(layer) is layer_of_applications("LayerScale")


def is_keras_operation(operation: keras.Operation) -> bool:
    """Whether an object is what a function of ``keras.ops`` leaves in a graph."""
    return type(operation).__module__.startswith(_OPERATIONS)


def layer_of_applications(class_name: str) -> type[keras.layers.Layer] | None:
    """A layer that lives with a family of ``keras.applications`` and is not among ``keras.layers``; None if unknown."""
    if class_name not in _APPLICATIONS:
        return None
    return getattr(importlib.import_module(f"keras.src.applications.{_APPLICATIONS[class_name]}"), class_name)


def model_of_hdf5_config(config: Config, custom_objects: CustomObjects, *, safe: bool) -> keras.Model:
    """The model of a configuration as HDF5 files of Keras 3 hold it, without weights; the configuration is changed."""
    with SafeModeScope(safe):
        return model_from_config(config, custom_objects=dict(custom_objects))
