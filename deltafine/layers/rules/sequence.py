"""A rule applied to the frames of clips, one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf
from keras import ops

from deltafine.errors import DeltafineError
from deltafine.layers.rules.changes import UNROLL_LIMIT, is_short

if TYPE_CHECKING:
    from deltafine.layers.rules.base import EventRule


def send_frame_by_frame(
    rule: EventRule, x: tf.Tensor, threshold: tf.Tensor, granularity: str, start: tf.Tensor | None
) -> tf.Tensor:
    """What ``EventRule.send`` gives by default."""
    frames = x.shape[1]
    unrolled = frames is not None and frames <= UNROLL_LIMIT
    one_by_one = tf.unstack(x, axis=1) if unrolled else [x[:, 0]]  # a slice per frame takes long to trace
    held = (
        rule.first(one_by_one[0], threshold, granularity, ops)
        if start is None
        else rule.advance(start, one_by_one[0], threshold, granularity, ops)
    )
    _check_shape(rule, held, x)
    if not unrolled:
        return _in_a_loop(rule, x, threshold, granularity, held)
    sequence = [held]
    for frame in one_by_one[1:]:
        held = rule.advance(held, frame, threshold, granularity, ops)
        _check_shape(rule, held, x)
        sequence.append(held)
    return tf.stack(sequence, axis=1)


def held_backwards(
    rule: EventRule, x: tf.Tensor, threshold: tf.Tensor, granularity: str, start: tf.Tensor
) -> tf.Tensor:
    """The values (batch, ..., channels) held after clips were seen backwards, ``start`` being sent before that."""
    if not is_short(x):
        return rule.send(tf.reverse(x, [1]), threshold, granularity, start)[:, -1]
    for frame in reversed(tf.unstack(x, axis=1)):
        start = rule.advance(start, frame, threshold, granularity, ops)
    return start


def _in_a_loop(rule: EventRule, x: tf.Tensor, threshold: tf.Tensor, granularity: str, held: tf.Tensor) -> tf.Tensor:
    frames = tf.shape(x)[1]
    sequence = tf.TensorArray(x.dtype, size=frames, element_shape=held.shape).write(0, held)

    def one_frame(frame: Any, held: Any, sequence: Any) -> tuple[Any, Any, Any]:
        held = rule.advance(held, x[:, frame], threshold, granularity, ops)
        _check_shape(rule, held, x)
        return frame + 1, held, sequence.write(frame, held)

    _, _, sequence = tf.while_loop(
        lambda frame, held, sequence: frame < frames,
        one_frame,
        (tf.constant(1), held, sequence),
        shape_invariants=(tf.TensorShape([]), _frame_shape(x), None),
    )
    by_time = sequence.stack()
    by_clip = [1, 0, *range(2, len(x.shape))]
    # A single clip, as in a stream, lies in memory in either order alike.
    return tf.cond(
        tf.equal(tf.shape(x)[0], 1),
        lambda: tf.reshape(by_time, tf.shape(x)),
        lambda: tf.transpose(by_time, by_clip),
    )


def _check_shape(rule: EventRule, held: tf.Tensor, x: tf.Tensor) -> None:
    frame_shape = _frame_shape(x)
    if not held.shape.is_compatible_with(frame_shape):
        raise DeltafineError(
            f"The rule '{rule.name}' gives values of shape {tuple(held.shape)} for frames of shape "
            f"{tuple(frame_shape)}: they must be alike."
        )


def _frame_shape(x: tf.Tensor) -> Any:
    return tf.TensorShape([x.shape[0], *x.shape[2:]])
