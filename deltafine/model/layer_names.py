"""Names of what a rewriting puts into a graph, so that none meets one that is there.

Keras wants every operation of a graph to have a name of its own, and gives an operation that is called outside of a
model (``keras.ops.reshape``) the plainest free name that it remembers, whatever the layers of the model are called. So
whoever builds a graph from the layers of another asks here for the names of what is new, and has the graph made here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras

from deltafine.model import graph


class Names:
    """The names on one level of a graph in the making.

    Args:
        used: names that are taken: of everything on that level of the model that is rewritten, and of what will be.
    """

    def __init__(self, used: Iterable[str] = ()) -> None:
        self._used = set(used)
        self._kept: list[keras.Operation] = []  # operations themselves: an id could be given again

    def free(self, name: str) -> str:
        """The name, or where it is taken the first of ``name_1``, ``name_2`` that is not; taken from now on."""
        candidate, index = name, 0
        while candidate in self._used:
            index += 1
            candidate = f"{name}_{index}"
        self._used.add(candidate)
        return candidate

    def keep(self, operation: Any) -> Any:
        """Let an operation keep the name that it has: one of the model that is rewritten, or a copy of it."""
        self._used.add(operation.name)
        self._kept.append(operation)
        return operation

    def make(self, layer: Callable[..., Any], name: str, **arguments: Any) -> Any:
        """A new layer, named so or as nearly so as is free."""
        return self.keep(layer(name=self.free(name), **arguments))

    def input(self, name: str, shape: Sequence[int | None], dtype: str) -> keras.KerasTensor:
        """A symbolic input of this shape, batch axis first, that has this very name; ask ``free`` for a new one."""
        tensor = keras.Input(batch_shape=shape, dtype=dtype, name=name)
        self.keep(graph.maker(tensor))
        return tensor

    def model(self, inputs: graph.Tensors, outputs: graph.Tensors, name: str) -> keras.Model:
        """The model with these inputs and outputs; operations that are not kept get other names where theirs are taken.

        Args:
            inputs, outputs: symbolic tensors, alone, in a list or in a dict.
            name: of the model.
        """
        self._make_unique(inputs, outputs)
        return graph.new_model(inputs, outputs, name)

    def function(self, inputs: list[keras.KerasTensor], outputs: list[keras.KerasTensor]) -> keras.Function:
        """The ``keras.Function`` of some calls; layers keep their names, and operations are named in their order."""
        operations = graph.operations_between(inputs, outputs)
        for operation in operations:
            if isinstance(operation, keras.layers.Layer):
                self.keep(operation)
        for operation in operations:
            if not isinstance(operation, keras.layers.Layer):
                operation.name = self.free(type(operation).__name__.lower())
        return keras.Function(inputs, outputs)

    def _make_unique(self, inputs: graph.Tensors, outputs: graph.Tensors) -> None:
        kept = {id(operation) for operation in self._kept}
        taken = {operation.name for operation in self._kept}
        for operation in graph.operations_between(inputs, outputs):
            if id(operation) in kept:
                continue
            if operation.name in taken:
                operation.name = self.free(operation.name)
            taken.add(operation.name)
            self._used.add(operation.name)
