"""Calls that the runtime leaves to Keras, on the whole values of one frame."""

from __future__ import annotations

import os
import threading
from typing import Any

import keras
import numpy as np

from deltafine.errors import DeltafineError
from deltafine.model import keras_private
from deltafine.model.trace import Call, Value
from deltafine.runtime.frozen_weights import FrozenWeights
from deltafine.runtime.plan import Operation
from deltafine.runtime.single_thread import NotCopied

LARGEST_INTEGER = 1 << 24
"""Up to which 32-bit floating point numbers hold all integers."""


class KerasCalls(NotCopied):
    """Computes operations of kind ``keras``, with the weights that they have now; several threads take turns.

    Attributes:
        memory: bytes of these weights.
    """

    def __init__(self, calls: dict[str, tuple[Call, int]]) -> None:
        self._calls = calls
        self._lock = threading.Lock()
        self._weights = FrozenWeights(call.operation for call, _ in calls.values())
        self._process = os.getpid()
        self.memory = self._weights.memory

    def __call__(self, operation: Operation, inputs: list[np.ndarray]) -> np.ndarray:
        """The output of one call, without the batch axis; inputs likewise, in the order of the call's.

        Raises:
            DeltafineError: this is a forked process; or the call gives what it did not announce, or numbers that the
                runtime cannot hold.
        """
        if os.getpid() != self._process:
            raise DeltafineError(
                f"Layer '{operation.name}' runs through Keras, which does not work in a forked process: make the "
                "DeltaRuntime there."
            )
        call, place = self._calls[operation.name]
        # Of a batch of one, Keras' Add may take what is to be broadcast for a bias of the channels.
        copies = 2 if type(call.operation).__name__ == "Add" else 1
        given = dict(zip(call.inputs, inputs, strict=True))

        def tensor(leaf: Any) -> Any:
            if not isinstance(leaf, Value):
                return leaf
            values = given[leaf].reshape(1, *leaf.sample_shape)
            return keras.ops.cast(keras.ops.convert_to_tensor(np.repeat(values, copies, axis=0)), leaf.dtype)

        args, kwargs = keras.tree.map_structure(tensor, (call.args, call.kwargs))
        if keras_private.takes_training(call.operation):
            kwargs["training"] = False  # whatever the model was built with, as model.predict does
        with self._lock, self._weights.within(call.operation):
            result = np.asarray(keras.tree.flatten(call.operation(*args, **kwargs))[place])
        shape = call.outputs[place].sample_shape
        if result.shape != (copies, *shape):
            raise DeltafineError(
                f"'{call.path}' ({type(call.operation).__name__}) announces an output of shape {shape} per frame, and "
                f"Keras computes one of shape {result.shape[1:]}: put another layer in its place."
            )
        if result.dtype.itemsize > 2 and result.dtype.kind in "iu" and np.abs(result).max() > LARGEST_INTEGER:
            raise DeltafineError(
                f"Layer '{call.path}' gives integers above {LARGEST_INTEGER}, which the runtime does not hold exactly."
            )
        return result.astype(np.float32)[0]
