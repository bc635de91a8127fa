"""Whole models in HDF5 files of Keras 1 and 2, rebuilt layer by layer.

Keras 3 reads few of them. Here the configuration is read as plain data, each layer is made from its cleaned
configuration, the graph is called again, and the weights are assigned layer by layer (see ``stored_weights``).
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import h5py
import keras

from deltafine.errors import DeltafineError
from deltafine.model import graph, keras_private
from deltafine.model.keras_private import Config, CustomObjects
from deltafine.model.legacy.configs import cleaned, cleaned_name
from deltafine.model.legacy.operations import call_function
from deltafine.model.stored_weights import read_weights, set_flags, stored_layer, text

_GRAPHS = ("Functional", "Model", "Network")
_FUNCTION_CALLS = ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer")
_CONSTANT = "_CONSTANT_VALUE"


def is_legacy(path: Path) -> bool:
    """Whether an HDF5 file holds a model written by a Keras before 3."""
    with h5py.File(path, "r") as file:
        version = text(file.attrs.get("keras_version", file.get("model_weights", file).attrs.get("keras_version", "1")))
    return int(version.split(".")[0]) < 3


def load_legacy(path: Path, description: Config, custom_objects: CustomObjects) -> keras.Model:
    """Rebuild the model and read its weights.

    Args:
        path: of the file.
        description: of the model, as the file has it.
        custom_objects: the user's own layers and functions.

    Raises:
        DeltafineError: the model has a Lambda layer, or a function or weights for which there is no rule.
    """
    with h5py.File(path, "r") as file, keras.saving.custom_object_scope(dict(custom_objects)):
        model = _build(description)
        if graph.is_graph(model):
            whole = stored_layer(description, model)
            set_flags(whole)
            read_weights(file["model_weights"], whole, keras_version=2)
    return model


def build_legacy(config: Config, custom_objects: CustomObjects) -> keras.Model:
    """The model of a configuration, without its weights. Raises ``DeltafineError`` as :func:`load_legacy` does."""
    with keras.saving.custom_object_scope(dict(custom_objects)):
        return _build(config)


def _build(description: Config) -> keras.layers.Layer:
    """A layer or model from its class name and configuration."""
    class_name, config = description["class_name"], description["config"]
    if class_name == "Sequential":
        return _build_sequential(config)
    if class_name in _GRAPHS:
        return _build_functional(config)
    if class_name == "Lambda":
        return _build_lambda(config)
    config = cleaned(class_name, config)
    if class_name == "InputLayer":
        shape = description["config"].get("batch_input_shape", config.get("batch_shape"))
        return keras.layers.InputLayer(batch_shape=tuple(shape), dtype=config.get("dtype"), name=config["name"])
    inner = config.get("layer")
    if isinstance(inner, dict):
        wrapper = _layer_class(class_name, config)
        if isinstance(config.get("backward_layer"), dict):
            config["backward_layer"] = _build(config["backward_layer"])
        return wrapper(**{**config, "layer": _build(inner)})
    return _layer_class(class_name, config).from_config(config)


def _build_lambda(config: Config) -> keras.layers.Lambda:
    """A Lambda layer whose function the user has given, by the layer's name or the function's own."""
    name, stored, function = cleaned_name(config["name"]), config.get("function"), None
    if isinstance(stored, dict):  # the user's own where one is given, see ``lambdas``
        function = keras.saving.get_registered_object(config["name"])
    elif isinstance(stored, str) and config.get("function_type") == "function":
        function = keras.saving.get_registered_object(stored)
    if function is None:
        raise DeltafineError(
            f"Layer '{config['name']}' is a Lambda saved by Keras 2, that is Python bytecode which Keras 3 does not "
            f"read: give its function with --custom-objects {config['name']}=module:function."
        )
    shape = config.get("output_shape") if config.get("output_shape_type") == "raw" else None
    return keras.layers.Lambda(
        function,
        output_shape=None if shape is None else tuple(shape),
        arguments=config.get("arguments") or None,
        name=name,
    )


def _layer_class(class_name: str, config: Config) -> type[keras.layers.Layer]:
    # "Custom>Name": registered by whoever wrote it.
    package, _, name = class_name.rpartition(">")
    known = (
        (None if package else getattr(keras.layers, name, None))
        or keras.saving.get_registered_object(class_name)
        or keras.saving.get_registered_object(name)
        or keras_private.layer_of_applications(name)
    )
    if known is None:
        raise DeltafineError(
            f"Keras does not know the class {class_name} of layer '{config.get('name')}': name it with "
            "--custom-objects module:name."
        )
    return known


def _build_sequential(config: Config | list[Config]) -> keras.Sequential:
    # Keras 1 and early Keras 2 wrote the list of layers only.
    descriptions = config if isinstance(config, list) else config["layers"]
    name = None if isinstance(config, list) else cleaned_name(config["name"])
    first = descriptions[0]["config"]
    layers = [_build(description) for description in descriptions]
    if not isinstance(layers[0], keras.layers.InputLayer):
        shape = first.get("batch_input_shape") or (
            config.get("build_input_shape") if isinstance(config, dict) else None
        )
        if shape is not None:
            layers.insert(0, keras.layers.InputLayer(batch_shape=tuple(shape)))
    return keras.Sequential(layers, name=name)


def _build_functional(config: Config) -> keras.Model:
    calls = _Calls(config["layers"])
    calls.make_all()
    inputs = calls.resolve_ends(config["input_layers"])
    outputs = calls.resolve_ends(config["output_layers"])
    return keras.Model(inputs, outputs, name=cleaned_name(config["name"]))


class _Calls:
    """The calls of one graph: makes layers, and calls them as soon as their inputs are there."""

    def __init__(self, descriptions: list[Config]) -> None:
        self._descriptions = {description["name"]: description for description in descriptions}
        self._layers: dict[str, keras.layers.Layer] = {
            name: None if description["class_name"] in _FUNCTION_CALLS else _build(description)
            for name, description in self._descriptions.items()
        }
        self._outputs: dict[str, list[list[keras.KerasTensor]]] = defaultdict(list)

    def make_all(self) -> None:
        """Make every call; a layer called several times is called in the order of the file."""
        waiting = [
            (name, call)
            for name, description in self._descriptions.items()
            for call in description["inbound_nodes"] or [None]
        ]
        while waiting:
            left: list[tuple[str, Any]] = []
            for name, call in waiting:
                blocked = any(other == name for other, _ in left)
                if blocked or not (call is None or self._ready(call)):
                    left.append((name, call))
                else:
                    self._outputs[name].append(keras.tree.flatten(self._make(name, call)))
            if len(left) == len(waiting):
                raise DeltafineError(f"The graph in the file is broken: layer '{left[0][0]}' has no input.")
            waiting = left

    def resolve_ends(self, references: Any) -> Any:
        """The tensors of ``input_layers`` or ``output_layers``: a list, a dict, or one."""
        if isinstance(references, dict):
            return {key: self.resolve_ends(value) for key, value in references.items()}
        if _is_reference(references):
            return self._tensor(references)
        ends = [self.resolve_ends(reference) for reference in references]
        return ends[0] if len(ends) == 1 else ends

    def _ready(self, call: Any) -> bool:
        return all(self._call_index(name, index) < len(self._outputs[name]) for name, index, _ in _references(call))

    def _call_index(self, name: str, index: int) -> int:
        # A nested model counts its own making as call 0.
        nested = self._descriptions[name]["class_name"] in (*_GRAPHS, "Sequential")
        return max(index - 1, 0) if nested and not self._counts_from_zero(name) else index

    def _counts_from_zero(self, name: str) -> bool:
        return any(
            (other, index) == (name, 0)
            for description in self._descriptions.values()
            for call in description["inbound_nodes"] or []
            for other, index, _ in _references(call)
        )

    def _tensor(self, reference: Any) -> Any:
        name, index, position = reference[:3]
        return self._outputs[name][self._call_index(name, index)][position]

    def _make(self, name: str, call: Any) -> Any:
        layer, description = self._layers[name], self._descriptions[name]
        if call is None:
            return layer.output
        first, kwargs = self._arguments(call)
        if description["class_name"] in _FUNCTION_CALLS:
            config = description["config"]
            if "function" not in config:
                raise DeltafineError(
                    f"Layer '{name}' holds a raw TensorFlow operation written by an early Keras 2: build the model "
                    "again from its code and save it with Keras 3 as .keras."
                )
            output = call_function(config["function"], name, first, kwargs)
            # Keras would name operations multiply, multiply_1, which layers may be called already.
            graph.rename_maker(output, cleaned_name(name))
            return output
        return layer(first, **{key: value for key, value in kwargs.items() if key not in ("mask", "training")})

    def _arguments(self, call: Any) -> tuple[Any, dict[str, Any]]:
        if not isinstance(call[0], list):
            # A function call: one tensor (or a constant), and the other arguments by name.
            first = call[2] if call[0] == _CONSTANT else self._tensor(call)
            return first, self._resolved(call[3])
        kwargs = call[0][3] if len(call[0]) > 3 else {}
        tensors = [entry[2] if entry[0] == _CONSTANT else self._tensor(entry) for entry in call]
        # Functions of a list of tensors are told from layers of one by the file's own nesting.
        return (tensors[0] if len(tensors) == 1 else tensors), self._resolved(kwargs)

    def _resolved(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        def resolve(value: Any) -> Any:
            if _is_reference(value) and value[0] in self._descriptions:
                return self._tensor(value)
            return [resolve(one) for one in value] if isinstance(value, list) else value

        return {key: resolve(value) for key, value in kwargs.items()}


def _is_reference(value: Any) -> bool:
    return isinstance(value, list) and len(value) in (3, 4) and isinstance(value[0], str) and isinstance(value[1], int)


def _references(value: Any) -> list[tuple[str, int, int]]:
    """Every reference to a tensor inside the description of a call."""
    if _is_reference(value):
        own = [] if value[0] == _CONSTANT else [(value[0], value[1], value[2])]
        return own + (_references(value[3]) if len(value) == 4 else [])
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [reference for one in inside for reference in _references(one)]
