"""Weights of Keras layers as they were at one time, whatever is assigned to them later."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import keras
import numpy as np


class FrozenWeights:
    """Copies of the weights and states of layers.

    Args:
        operations: layers, or operations without weights.
    """

    def __init__(self, operations: Iterable[Any]) -> None:
        copies: dict[int, tuple[Any, Any]] = {}
        self._of_operation: dict[int, list[tuple[Any, Any]]] = {}
        for operation in operations:
            variables = getattr(operation, "variables", ())
            for variable in variables:
                if id(variable) not in copies:
                    copies[id(variable)] = (variable, keras.ops.convert_to_tensor(np.array(variable)))
            self._of_operation[id(operation)] = [copies[id(variable)] for variable in variables]
        self.memory = sum(int(np.asarray(copy).nbytes) for _, copy in copies.values())
        """Bytes of the copies."""

    def within(self, operation: Any) -> AbstractContextManager:
        """Within this, the operation computes with the copies; what it assigns is forgotten."""
        return keras.StatelessScope(state_mapping=self._of_operation[id(operation)])
