"""Weights of Keras layers as they were at one time, whatever is assigned to them later."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import keras
import numpy as np

from deltafine.errors import DeltafineError

if TYPE_CHECKING:
    import tensorflow as tf


class FrozenWeights:
    """Copies of the weights and states of layers.

    Args:
        operations: layers, or operations without weights.
    """

    def __init__(self, operations: Iterable[keras.Operation]) -> None:
        copies: dict[int, tuple[keras.Variable, tf.Tensor]] = {}
        self._of_operation: dict[int, list[tuple[keras.Variable, tf.Tensor]]] = {}
        for operation in operations:
            variables = getattr(operation, "variables", ())
            for variable in variables:
                if id(variable) not in copies:
                    copies[id(variable)] = (variable, keras.ops.convert_to_tensor(np.array(variable)))
            self._of_operation[id(operation)] = [copies[id(variable)] for variable in variables]
        self.memory = sum(int(np.asarray(copy).nbytes) for _, copy in copies.values())
        """Bytes of the copies."""

    @contextlib.contextmanager
    def within(self, operation: keras.Operation) -> Iterator[None]:
        """Within this, the operation computes with the copies.

        Raises:
            DeltafineError: it has assigned to a variable, so what it computes depends on all frames before.
        """
        with keras.StatelessScope(state_mapping=self._of_operation[id(operation)]) as scope:
            before = dict(scope.state_mapping)
            yield
        after = scope.state_mapping
        if len(after) != len(before) or any(after[key] is not value for key, value in before.items()):
            raise DeltafineError(
                f"Layer '{operation.name}' keeps a state from one prediction to the next, and the runtime cannot leave "
                "out frames that stand still then: build the model without (stateful=False)."
            )
