"""Comparing what a receiver answers with what the Keras model answers, on the same inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from deltafine.errors import DeltafineError
from deltafine.exporting.export_format import Agreement


def compare_answers(
    answer: Callable[[np.ndarray], Any], model: keras.Model, inputs: Sequence[np.ndarray], *, by_clip: bool = False
) -> Agreement:
    """Run both on the same inputs, one at a time.

    Args:
        answer: what the receiver makes of an input; several outputs in the structure of the model's, or flat.
        model: the Keras model with one input that was written.
        inputs: each of shape (1, ...), as the model takes them.
        by_clip: whether these are clips.

    Raises:
        DeltafineError: there is nothing to compare on.
    """
    if not inputs:
        raise DeltafineError("An exported model can only be checked on at least one frame.")
    largest, same = 0.0, 0
    for value in inputs:
        pairs = list(zip(_flat(answer(value)), _flat(model(value, training=False)), strict=True))
        for found, expected in pairs:
            largest = float(np.maximum(largest, np.abs(found - expected).max()))  # NaN stays
        same += all(found.reshape(-1).argmax() == expected.reshape(-1).argmax() for found, expected in pairs)
    return Agreement(len(inputs), largest, same / len(inputs), "clips" if by_clip else "frames")


def _flat(answer: Any) -> list[np.ndarray]:
    """The outputs, in an order that is the same for both."""
    return [keras.ops.convert_to_numpy(keras.ops.cast(one, "float32")) for one in keras.tree.flatten(answer)]
