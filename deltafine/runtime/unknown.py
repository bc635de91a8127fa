"""Calls that the runtime leaves to Keras, on the whole values of one frame."""

from __future__ import annotations

import os
import threading
from typing import Any

import keras
import numpy as np

from deltafine.errors import DeltafineError
from deltafine.model.trace import Call, Value
from deltafine.runtime.alone import NotCopied
from deltafine.runtime.frozen import FrozenWeights
from deltafine.runtime.plan import Operation


class KerasCalls(NotCopied):
    """Computes operations of kind ``keras``, with the weights that they have now; several threads take turns.

    Attributes:
        memory: bytes of these weights.
    """

    def __init__(self, calls: dict[str, Call]) -> None:
        self._calls = calls
        self._lock = threading.Lock()
        self._weights = FrozenWeights(call.operation for call in calls.values())
        self._process = os.getpid()
        self.memory = self._weights.memory

    def __call__(self, operation: Operation, inputs: list[np.ndarray]) -> np.ndarray:
        """The output of one call, without the batch axis; inputs likewise, in the order of the call's."""
        if os.getpid() != self._process:
            raise DeltafineError(
                f"Layer '{operation.name}' runs through Keras, which does not work in a forked process: make the "
                "DeltaRuntime there."
            )
        call = self._calls[operation.name]
        given = dict(zip(call.inputs, inputs, strict=True))

        def tensor(leaf: Any) -> Any:
            return keras.ops.convert_to_tensor(given[leaf][None], leaf.dtype) if isinstance(leaf, Value) else leaf

        args, kwargs = keras.tree.map_structure(tensor, (call.args, call.kwargs))
        if getattr(call.operation, "_call_has_training_arg", False):
            kwargs = {"training": False, **kwargs}
        with self._lock, self._weights.within(call.operation):
            outputs = keras.tree.flatten(call.operation(*args, **kwargs))
        place = int(operation.name.rpartition(":")[2]) if len(outputs) > 1 and ":" in operation.name else 0
        return np.asarray(outputs[place], np.float32)[0]
