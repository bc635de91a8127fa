"""The state that clips start from in training: what the frames before them leave behind."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from deltafine.layers import Stream


def state_after(student: Any, frames: Any, piece: int) -> list[Any] | None:
    """The state of a stream after these frames, seen without training on them.

    A state that is made of noise is forgotten within a clip, or averages out. What a long video leaves is not: values
    less than a step off, all in the direction of what was seen before.

    Args:
        student: (batch, time, ...) to predictions along time.
        frames: (batch, time, ...), the time known and perhaps 0.
        piece: frames that go through the student at a time.

    Returns:
        The state for :class:`deltafine.layers.Stream`; None after no frame.
    """
    state: list[Any] | None = None
    count = frames.shape[1]
    for begin in range(-(-count % piece), count, piece):
        seen = tf.cast(frames[:, max(0, begin) : begin + piece], tf.float32)
        with Stream(state, measuring=True) as stream:
            student(seen, training=False)
        state = [tf.stop_gradient(value) for value in stream.state]
    return state
