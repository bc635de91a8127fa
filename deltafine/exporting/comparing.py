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
        answer: what the receiver makes of an input.
        model: the Keras model with one input and one output that was written.
        inputs: each of shape (1, ...), as the model takes them.
        by_clip: whether these are clips.

    Raises:
        DeltafineError: there is nothing to compare on.
    """
    if not inputs:
        raise DeltafineError("An exported model can only be checked on at least one frame.")
    largest, same = 0.0, 0
    for value in inputs:
        found, expected = (
            keras.ops.convert_to_numpy(keras.ops.cast(given, "float32"))
            for given in (answer(value), model(value, training=False))
        )
        largest = float(np.maximum(largest, np.abs(found - expected).max()))  # NaN stays
        same += int(found.reshape(-1).argmax() == expected.reshape(-1).argmax())
    return Agreement(len(inputs), largest, same / len(inputs), "clips" if by_clip else "frames")
