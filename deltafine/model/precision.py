"""Models that compute in half precision, made again so that they compute in single."""

from __future__ import annotations

from typing import Any

import keras

from deltafine.model import graph

HALF_PRECISION = ("float16", "bfloat16")
"""Types that NumPy knows only in part, and that are too coarse to add up losses in."""
_POLICIES = (*HALF_PRECISION, "mixed_float16", "mixed_bfloat16")


def computes_in_half(model: keras.Model) -> bool:
    """Whether any layer of a model does."""
    return any(layer.compute_dtype in HALF_PRECISION for _, layer in graph.all_layers_by_path(model))


def in_single_precision(model: keras.Model) -> keras.Model:
    """The same network with the same weights, all of it in float32; the model itself where nothing is in half."""
    if not computes_in_half(model):
        return model
    config = keras.saving.serialize_keras_object(model)
    # Whatever code is in it was there before: nothing is loaded here.
    made = keras.saving.deserialize_keras_object(_in_single(config), safe_mode=False)
    for source, target in zip(model.weights, made.weights, strict=True):
        target.assign(keras.ops.cast(source, target.dtype))
    return made


def _in_single(node: Any) -> Any:
    if isinstance(node, list | tuple):
        return type(node)(map(_in_single, node))
    if not isinstance(node, dict):
        return node
    if node.get("class_name") == "DTypePolicy":
        return "float32" if node["config"]["name"] in _POLICIES else node
    return {
        key: "float32" if key == "dtype" and value in _POLICIES else _in_single(value) for key, value in node.items()
    }
