"""Calls that the runtime leaves to Keras, on the whole values of one frame: neighbours as one compiled function."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
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

Known = dict[int, Any]
"""Tensors of TensorFlow with a batch of one, by their index in the plan."""
Function = Callable[[Known], list[Any]]
"""Takes what stands before a group of operations, and gives their outputs in order."""


class KerasCalls(NotCopied):
    """Computes operations of kind ``keras``, with the weights that they have now, from any thread.

    Operations that are asked for together become one TensorFlow function of fixed shapes, which is made when they are
    first asked for. A layer that cannot be compiled, as it looks at numbers in Python, runs by itself, as it stands.

    Attributes:
        memory: bytes of these weights.
    """

    def __init__(self, calls: dict[str, tuple[Call, int]]) -> None:
        self._calls = calls
        self._lock = threading.Lock()
        self._weights = FrozenWeights(call.operation for call, _ in calls.values())
        self._process = os.getpid()
        self._functions: dict[tuple[object, ...], Function | None] = {}
        self.memory = self._weights.memory

    def __call__(self, operations: Sequence[Operation], given: Mapping[int, np.ndarray]) -> list[np.ndarray]:
        """The outputs of operations that stand side by side in the plan, float32 without the batch axis.

        Args:
            operations: in the order of the plan.
            given: by index in the plan, the tensors that they read and do not make themselves, float32.

        Raises:
            DeltafineError: this is a forked process; or a call gives what it did not announce, or numbers that the
                runtime cannot hold.
        """
        if os.getpid() != self._process:
            raise DeltafineError(
                f"Layer '{operations[0].name}' runs through Keras, which does not work in a forked process: make the "
                "DeltaRuntime there."
            )
        known = {index: keras.ops.convert_to_tensor(values[None]) for index, values in given.items()}
        return [np.asarray(result).astype(np.float32)[0] for result in self._computed(operations, known)]

    def _computed(self, operations: Sequence[Operation], known: Known) -> list[Any]:
        """The outputs of operations, by as few compiled functions as possible."""
        function = self._function(operations, known)
        if function is None and len(operations) > 1:
            middle = len(operations) // 2
            first = self._computed(operations[:middle], known)
            made = {operation.output: result for operation, result in zip(operations, first, strict=False)}
            return [*first, *self._computed(operations[middle:], known | made)]
        if function is None:
            with self._lock:
                results = self._layer_by_layer(operations, known)
        else:
            results = function(known)
        for operation, result in zip(operations, results, strict=True):
            self._check(operation, np.asarray(result))
        return results

    def _function(self, operations: Sequence[Operation], known: Known) -> Function | None:
        """Operations compiled as one; None where that does not work, as one of them cannot be compiled."""
        # The same calls may stand elsewhere in another plan of the model, such as that in 8-bit integers.
        names = tuple((operation.name, operation.inputs, operation.output) for operation in operations)
        with self._lock:
            if names not in self._functions:
                try:
                    self._functions[names] = self._compiled(operations, known)
                except DeltafineError:
                    raise
                except Exception:  # whatever a layer may raise that wants numbers, and is given a graph
                    self._functions[names] = None
            return self._functions[names]

    def _compiled(self, operations: Sequence[Operation], known: Known) -> Function:
        import tensorflow as tf

        read = sorted({index for operation in operations for index in operation.inputs} & set(known))

        def graph(*tensors: Any) -> list[Any]:
            return self._layer_by_layer(operations, dict(zip(read, tensors, strict=True)))

        specs = [tf.TensorSpec(known[index].shape, known[index].dtype) for index in read]
        concrete = tf.function(graph, autograph=False).get_concrete_function(*specs)
        return lambda known: list(concrete(*(known[index] for index in read)))

    def _layer_by_layer(self, operations: Sequence[Operation], known: Known) -> list[Any]:
        """Each call once, whichever of its outputs are asked for."""
        known, done = dict(known), {}
        for operation in operations:
            call, place = self._calls[operation.name]
            if id(call) not in done:
                done[id(call)] = self._outputs(call, dict(zip(call.inputs, operation.inputs, strict=True)), known)
            known[operation.output] = done[id(call)][place]
        return [known[operation.output] for operation in operations]

    def _outputs(self, call: Call, places: Mapping[Value, int], known: Known) -> list[Any]:
        # Of a batch of one, Keras' Add may take what is to be broadcast for a bias of the channels.
        copies = 2 if type(call.operation).__name__ == "Add" else 1

        def tensor(leaf: Any) -> Any:
            if not isinstance(leaf, Value):
                return leaf
            values = keras.ops.reshape(known[places[leaf]], (1, *leaf.sample_shape))
            return keras.ops.cast(keras.ops.repeat(values, copies, axis=0) if copies > 1 else values, leaf.dtype)

        args, kwargs = keras.tree.map_structure(tensor, (call.args, call.kwargs))
        if keras_private.takes_training(call.operation):
            kwargs["training"] = False  # whatever the model was built with, as model.predict does
        with self._weights.within(call.operation):
            outputs = keras.tree.flatten(call.operation(*args, **kwargs))
        return [output[:1] if copies > 1 else output for output in outputs]

    def _check(self, operation: Operation, result: np.ndarray) -> None:
        call, place = self._calls[operation.name]
        shape = call.outputs[place].sample_shape
        if result.shape != (1, *shape):
            raise DeltafineError(
                f"'{call.path}' ({type(call.operation).__name__}) announces an output of shape {shape} per frame, and "
                f"Keras computes one of shape {result.shape[1:]}: put another layer in its place."
            )
        if result.dtype.itemsize > 2 and result.dtype.kind in "iu" and np.abs(result).max() > LARGEST_INTEGER:
            raise DeltafineError(
                f"Layer '{call.path}' gives integers above {LARGEST_INTEGER}, which the runtime does not hold exactly."
            )
