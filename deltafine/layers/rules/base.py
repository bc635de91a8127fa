"""What every event rule has in common.

A rule says when a value counts as changed, and which gradients training uses in place of that decision. To add
one, write a file with a subclass of :class:`EventRule` beside this one and name it in ``rules/__init__.py``.
"""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf
from keras import ops

GRANULARITIES = ("element", "pixel")
UNROLL_LIMIT = 16
"""Clips up to this many frames are scanned by an unrolled graph, longer ones by a loop."""


class EventRule:
    """When a value is sent, and with which gradients that is trained.

    Shapes: ``x`` and ``sent`` are (batch, time, ..., channels), ``threshold`` broadcasts against one frame
    (..., channels), states are (batch, ..., channels).
    """

    name: ClassVar[str]
    uses_threshold: ClassVar[bool] = True

    def advance(self, sent: Any, x: Any, threshold: Any, granularity: str, xp: Any) -> Any:
        """One frame: the values held after seeing ``x``, given the values ``sent`` last.

        This is the one definition of the rule: training, measuring and the runtime all call it. ``xp`` is
        ``numpy`` or ``keras.ops``.
        """
        raise NotImplementedError

    def send(self, x: Any, threshold: Any, granularity: str, start: Any | None = None) -> Any:
        """The values held at every frame, without gradients.

        Args:
            x: (batch, time, ..., channels).
            threshold: threshold, broadcastable to one frame.
            granularity: ``"element"`` or ``"pixel"``.
            start: values sent before the first frame; None sends the first frame as the rule sends a fresh value.

        Returns:
            A tensor shaped as ``x``.
        """
        frames = x.shape[1]
        if frames is not None and frames <= UNROLL_LIMIT:
            held = (
                self.first(x[:, 0], threshold)
                if start is None
                else self.advance(start, x[:, 0], threshold, granularity, ops)
            )
            sequence = [held]
            for frame in range(1, frames):
                held = self.advance(held, x[:, frame], threshold, granularity, ops)
                sequence.append(held)
            return tf.stack(sequence, axis=1)
        return self._send_in_a_loop(x, threshold, granularity, start)

    def _send_in_a_loop(self, x: Any, threshold: Any, granularity: str, start: Any | None) -> Any:
        frames = tf.shape(x)[1]
        held = (
            self.first(x[:, 0], threshold)
            if start is None
            else self.advance(start, x[:, 0], threshold, granularity, ops)
        )
        sequence = tf.TensorArray(x.dtype, size=frames, element_shape=held.shape).write(0, held)

        def one_frame(frame: Any, held: Any, sequence: Any) -> tuple[Any, Any, Any]:
            held = self.advance(held, x[:, frame], threshold, granularity, ops)
            return frame + 1, held, sequence.write(frame, held)

        _, _, sequence = tf.while_loop(
            lambda frame, held, sequence: frame < frames,
            one_frame,
            (tf.constant(1), held, sequence),
            shape_invariants=(tf.TensorShape([]), x[:, 0].shape, None),
        )
        by_time = sequence.stack()
        by_clip = [1, 0, *range(2, len(x.shape))]
        # A single clip, as in a stream, lies in memory in either order alike.
        return tf.cond(
            tf.equal(tf.shape(x)[0], 1),
            lambda: tf.reshape(by_time, tf.shape(x)),
            lambda: tf.transpose(by_time, by_clip),
        )

    def first(self, x: Any, threshold: Any) -> Any:
        """The values held after the first frame of a fresh state."""
        return x

    def output(self, x: Any, sent: Any, threshold: Any) -> Any:
        """``sent`` in value, to the bit; with the gradients of the task path.

        To ``x`` straight through. To ``threshold`` as LSQ (Esser et al., arXiv 1902.08153, eq. 3):
        d output / d threshold = (sent - x) / threshold, without their scale of 1 / sqrt(N Q): this is the slope of the
        error in the threshold, on one scale with that of the penalty, so that the two can hold each other.
        """
        return _straight_through(x, sent, threshold)

    def expected_events(self, x: Any, sent: Any, threshold: Any, granularity: str) -> Any:
        """A smooth stand-in for the number of events, with gradients to ``x`` and ``threshold``.

        Returns:
            (batch, time - 1, ..., channels), or one channel for ``granularity="pixel"``; values from 0 to 1.
        """
        raise NotImplementedError


def relative_change(change: Any, threshold: Any, granularity: str, xp: Any) -> Any:
    """|change| / threshold per element, or its root mean square over the channels (kept as one) per pixel."""
    if granularity == "element":
        return xp.absolute(change) / threshold
    return xp.sqrt(xp.mean(xp.square(change / threshold), axis=-1, keepdims=True))


def smooth_relative_change(change: Any, threshold: Any, granularity: str) -> Any:
    """As :func:`relative_change`, with a finite gradient at 0."""
    if granularity == "element":
        return tf.abs(change) / threshold
    return tf.sqrt(tf.reduce_mean(tf.square(change / threshold), axis=-1, keepdims=True) + 1e-12)


@tf.custom_gradient
def change_over_time(x: Any) -> tuple[Any, Any]:
    """x_t - x_(t-1) of frames 2..T: (batch, time, ..., channels) to (batch, time - 1, ..., channels).

    TensorFlow's own gradient of the two slices costs more than everything else in a delta layer.
    """

    def gradient(upstream: Any) -> Any:
        rest = [[0, 0]] * (len(upstream.shape) - 2)
        return tf.pad(upstream, [[0, 0], [1, 0], *rest]) - tf.pad(upstream, [[0, 0], [0, 1], *rest])

    return x[:, 1:] - x[:, :-1], gradient


@tf.custom_gradient
def _straight_through(x: Any, sent: Any, threshold: Any) -> tuple[Any, Any]:
    def gradient(upstream: Any) -> tuple[Any, None, Any]:
        of_threshold = upstream * (sent - x) / threshold
        return upstream, None, tf.reduce_sum(of_threshold, axis=list(range(len(x.shape) - len(threshold.shape))))

    return tf.identity(sent), gradient
