"""Keras masks: which values carry one, and which calls would read one that the plan does not hand them.

A mask that stands among the arguments of a call, as for most layers, the runtime computes like any other value. One
that only comes along while Keras computes, for attention or across the border of a nested model, is refused where it
matters.
"""

from __future__ import annotations

import inspect
from typing import Any

import keras

from deltafine.errors import DeltafineError
from deltafine.model.trace import Call, Value


class Masks:
    """The masks that Keras would pass along with the values of a graph, as symbolic tensors."""

    def __init__(self, model_name: str) -> None:
        self._model_name = model_name
        self._of: dict[Value, Any] = {}

    def follow(self, call: Call) -> None:
        """Note what masks the outputs of a call carry.

        Raises:
            DeltafineError: the call would read a mask that is not among its arguments.
        """
        layer = call.operation
        if not isinstance(layer, keras.layers.Layer):
            return
        given = [value for name, value in call.kwargs.items() if name.endswith("mask") and isinstance(value, Value)]
        if self._comes_along(call):
            raise DeltafineError(
                f"Layer '{call.path}' of model '{self._model_name}' reads the mask of its input, which Keras passes "
                "along outside of the model's graph: give it to the layer as an argument (mask=...), or build the "
                "model without masks."
            )
        if layer.supports_masking and (call.args or "inputs" in call.kwargs):
            first = call.args[0] if call.args else call.kwargs["inputs"]
            for value, mask in zip(call.outputs, self._made(layer, first, given), strict=False):
                if mask is not None:
                    self._of[value] = mask

    def _comes_along(self, call: Call) -> bool:
        """Whether Keras would fill in a mask: ``mask`` of the only tensor, or ``key_mask`` of the argument ``key``."""
        if isinstance(call.operation, keras.layers.BatchNormalization):  # to which it makes a difference in training
            return False
        signature = inspect.signature(call.operation.call)
        given = signature.bind_partial(*call.args, **call.kwargs).arguments
        tensors = {name: keras.tree.flatten(value) for name, value in given.items()}
        tensors = {name: leaves for name, leaves in tensors.items() if any(isinstance(leaf, Value) for leaf in leaves)}
        filled = {f"{name}_mask": leaves for name, leaves in tensors.items()}
        if len(tensors) == 1:
            filled = {"mask": next(iter(tensors.values()))}
        return any(
            name in signature.parameters and given.get(name) is None and any(leaf in self._of for leaf in leaves)
            for name, leaves in filled.items()
        )

    def _made(self, layer: keras.layers.Layer, first: Any, given: list[Any]) -> list[Any]:
        """The masks of the outputs, flat, as the layer says."""
        inputs = keras.tree.map_structure(_symbolic, first)
        before = keras.tree.map_structure(lambda leaf: self._of.get(leaf) if isinstance(leaf, Value) else None, first)
        if given and not any(mask is not None for mask in keras.tree.flatten(before)):
            before = keras.tree.map_structure(_symbolic, given[0])
        try:
            return list(keras.tree.flatten(layer.compute_mask(inputs, before)))
        except Exception:  # whatever a layer may raise: where it cannot say, its input's mask goes on
            return list(keras.tree.flatten(before))


def _symbolic(leaf: Any) -> Any:
    return keras.KerasTensor(leaf.shape, dtype=leaf.dtype) if isinstance(leaf, Value) else leaf
