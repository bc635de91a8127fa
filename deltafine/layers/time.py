"""Folding time into the batch and back, so that a per-frame network runs unchanged on clips.

A per-frame network knows no time axis. ``FoldTime`` makes one long batch of all frames of all clips,
the network runs on it as it is, and ``UnfoldTime`` puts the frames back into their clips. Layers in
between that need to know which frames follow each other get the *clock*: a 1-D int32 tensor with one
entry per frame of a clip. Its static length is the clip length wherever that is known when the graph
is traced, which lets those layers unroll time instead of asking for it at run time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
from keras import ops

if TYPE_CHECKING:
    import tensorflow as tf

_PACKAGE = "deltafine"


@keras.saving.register_keras_serializable(package=_PACKAGE)
class FoldTime(keras.layers.Layer):
    """Clips to frames.

    Call: ``(batch, time, ...)`` -> ``((batch * time, ...), clock)`` with ``clock`` of shape ``(time,)``.
    """

    def call(self, clips: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        length = clips.shape[1] if clips.shape[1] is not None else ops.shape(clips)[1]
        rest = _known_or_dynamic(clips)[2:]
        return ops.reshape(clips, (-1, *rest)), ops.arange(length, dtype="int32")

    def compute_output_spec(self, clips: keras.KerasTensor) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        batch, length, *rest = clips.shape
        frames = batch * length if batch is not None and length is not None else None
        return (
            keras.KerasTensor((frames, *rest), dtype=self.compute_dtype if _floating(clips) else clips.dtype),
            keras.KerasTensor((length,), dtype="int32"),
        )


@keras.saving.register_keras_serializable(package=_PACKAGE)
class UnfoldTime(keras.layers.Layer):
    """Frames to clips, the inverse of ``FoldTime``.

    Call: ``(batch * time, ...)`` and ``clock`` of shape ``(time,)`` -> ``(batch, time, ...)``.
    """

    def call(self, frames: tf.Tensor, clock: tf.Tensor) -> tf.Tensor:
        length = clock.shape[0] if clock.shape[0] is not None else ops.shape(clock)[0]
        rest = _known_or_dynamic(frames)[1:]
        return ops.reshape(frames, (-1, length, *rest))

    def compute_output_spec(self, frames: keras.KerasTensor, clock: keras.KerasTensor) -> keras.KerasTensor:
        count, *rest = frames.shape
        length = clock.shape[0]
        batch = count // length if count is not None and length is not None else None
        dtype = self.compute_dtype if _floating(frames) else frames.dtype
        return keras.KerasTensor((batch, length, *rest), dtype=dtype)


@keras.saving.register_keras_serializable(package=_PACKAGE)
class TimeMean(keras.layers.Layer):
    """The mean over the frames of each clip: ``(batch, time, ...)`` -> ``(batch, ...)``."""

    def call(self, clips: tf.Tensor) -> tf.Tensor:
        return ops.mean(clips, axis=1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], *input_shape[2:])


@keras.saving.register_keras_serializable(package=_PACKAGE)
class TimeLast(keras.layers.Layer):
    """The last frame of each clip: ``(batch, time, ...)`` -> ``(batch, ...)``."""

    def call(self, clips: tf.Tensor) -> tf.Tensor:
        return clips[:, -1]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], *input_shape[2:])


def _known_or_dynamic(tensor: tf.Tensor) -> list[int | tf.Tensor]:
    """The shape with static sizes where known, and tensors where not."""
    dynamic = ops.shape(tensor)
    return [dynamic[axis] if size is None else size for axis, size in enumerate(tensor.shape)]


def _floating(tensor: tf.Tensor | keras.KerasTensor) -> bool:
    return "float" in keras.backend.standardize_dtype(tensor.dtype)
