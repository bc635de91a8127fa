"""The state that training clips start from: what the clip before left, at the same place in the batch before.

A generated state is forgotten within a clip, or averages out in the next layer. What a long video leaves does
not: values that are less than a threshold off, all in the direction of what was there before, for as long as no change
is large enough. A network that has never seen it can be right clip by clip, and on a stream of cuts, and hold on to old
answers in a continuous video.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deltafine.layers import Stream
from deltafine.model.further_inputs import answered


class Carried:
    """What one worker's clips have left behind, for the clips that come next.

    Args:
        student: (batch, time, ...) to predictions along time.
    """

    def __init__(self, student: keras.Model) -> None:
        self._student = student
        self._state: list[Any] | None = None
        self._seen = tf.function(self._see, reduce_retracing=True, autograph=False)

    def restart(self) -> None:
        """Forget everything: the next clips come from elsewhere."""
        self._state = None

    def begin_after(self, frames: np.ndarray) -> None:
        """Let the next clips start from what these (rows, time, ...) leave behind."""
        self._state = list(self._seen(tf.convert_to_tensor(frames)))

    def before(self, frames: np.ndarray) -> list[Any]:
        """The state for clips (rows, time, ...) to start from, one tensor (rows, ...) for each delta layer.

        Clips that follow nothing start from what seeing them backwards leaves.
        """
        rows = len(frames)
        if self._state is None or len(self._state[0]) < rows:
            # TensorFlow's convolutions cannot do with an empty batch: a black clip stands in.
            shown = frames if rows else np.zeros((1, *frames.shape[1:]), frames.dtype)
            self._state = [value[:rows] for value in self._seen(tf.convert_to_tensor(shown[:, ::-1]))]
        return [value[:rows] for value in self._state]

    def keep(self, state: Sequence[Any]) -> None:
        """Keep what clips have left; what is beyond them stays."""
        assert self._state is not None
        self._state = [
            new if len(new) == len(old) else tf.concat([new, old[len(new) :]], axis=0)
            for new, old in zip(state, self._state, strict=True)
        ]

    @property
    def arrays(self) -> list[np.ndarray]:
        """The state to save; empty when there is none."""
        return [np.asarray(value) for value in self._state or ()]

    @arrays.setter
    def arrays(self, values: Sequence[np.ndarray]) -> None:
        self._state = [tf.convert_to_tensor(value) for value in values] or None

    def _see(self, frames: Any) -> list[Any]:
        with Stream(measuring=True) as stream:
            answered(self._student, tf.cast(frames, tf.float32))
        return stream.state


def by_name(arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays with names that keep their order."""
    return {f"{number:05d}": value for number, value in enumerate(arrays)}
