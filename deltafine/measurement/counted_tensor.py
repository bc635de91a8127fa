"""A tensor of a model as it runs, with what is asked about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from deltafine.layers import DeltaActivation, current_stream
from deltafine.measurement import counting, graph_counting

if TYPE_CHECKING:
    from deltafine.model.time_axis import Steps


class CountedTensor:
    """A tensor of the model, with what is asked about it; takes a slot of the active stream for its last frame.

    Args:
        value: as it stands in the model.
        frames: (batch, steps of time, ...) of it.
        time: where it has these.
        restarts: it starts with zeros in every window, which are no change.
    """

    def __init__(self, value: tf.Tensor, frames: tf.Tensor, time: Steps | None, *, restarts: bool) -> None:
        stream = current_stream()
        assert stream is not None
        slot = stream.slot()
        self.value, self.time = value, time
        self.frames = frames
        self._fans: list[np.ndarray] = []
        self._layer: DeltaActivation | None = None
        self._into_delta: counting.IntoDelta | None = None
        # What begins with zeros, whatever was before, needs no MACs for them.
        self._before = None if slot.start is None else tf.zeros_like(slot.start) if restarts else slot.start
        slot.end = frames[:, -1]

    def of_delta_layer(self, layer: DeltaActivation, true: tf.Tensor) -> None:
        """It is the output of a delta layer, ``true`` (batch, steps of time, ...) is the input."""
        self._layer = layer
        self._into_delta = counting.IntoDelta(true, layer.threshold)

    def into_layer(self, fan: np.ndarray) -> int:
        """It goes into a layer with MACs of this fan-out; returns which of its fan-outs that is."""
        self._fans.append(fan)
        return len(self._fans) - 1

    def count(self, *, in_graph: bool) -> list[tf.Tensor]:
        """As ``counting.count``."""
        questions = counting.Questions(self._fans, self._layer)
        if in_graph:
            return graph_counting.count(questions, self.frames, into_delta=self._into_delta, before=self._before)
        given = {"value": self.frames, "before": self._before}
        if self._into_delta is not None:
            given |= {"true": self._into_delta.true, "threshold": self._into_delta.threshold}
        given = {name: _in_single(value) for name, value in given.items() if value is not None}

        def count(*arrays: np.ndarray) -> list[np.ndarray]:
            named = dict(zip(given, arrays, strict=True))
            into = counting.IntoDelta(named["true"], named["threshold"]) if "true" in named else None
            return counting.count(questions, named["value"], into_delta=into, before=named.get("before"))

        types = [tf.int64]
        if self._layer is not None:
            types += [tf.int64, tf.float64] + [tf.float64] * questions.quantised
        return list(tf.numpy_function(count, list(given.values()), types, stateful=False))


def _in_single(value: tf.Tensor) -> tf.Tensor:
    """NumPy knows half precision only in part; every value of it is one of single precision."""
    return tf.cast(value, tf.float32) if value.dtype in (tf.float16, tf.bfloat16) else value
