"""The original's answers on training clips, computed once: a training shows the same clips many times."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deltafine.model.clip_model import with_time
from deltafine.model.further_inputs import answered

ROOM = 512 * 2**20
"""Bytes that kept answers may take."""


class KeptAnswers:
    """What a model answers on clips that come again.

    Each clip is computed on its own, whatever it is in a batch with. The answer of a clip is thus the same, to the bit,
    in a run that is resumed.

    Args:
        model: the original as a clip model.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model = with_time(model)
        self._compute = tf.function(
            lambda clip: answered(model, tf.cast(clip, tf.float32)), reduce_retracing=True, autograph=False
        )
        self._kept: dict[Hashable, np.ndarray] = {}

    def fit(self, clips: int, frames: int) -> bool:
        """Whether the answers on so many clips of so many frames have room."""
        values = self._model.output_shape[2:]
        return None not in values and 4 * clips * frames * int(np.prod(values)) <= ROOM

    def of(self, frames: np.ndarray, clips: Sequence[Hashable]) -> Any:
        """Answers (batch, time, ...) on frames (batch, time, height, width, channels) uint8 of clips by these names."""
        for number, clip in enumerate(clips):
            if clip not in self._kept:
                self._kept[clip] = self._compute(tf.convert_to_tensor(frames[number : number + 1])).numpy()[0]
        return tf.convert_to_tensor(np.stack([self._kept[clip] for clip in clips]))
