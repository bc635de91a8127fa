"""Counting in the graph, while a model runs: integers per frame, in few passes over the values.

Measuring should cost little beside predicting, and one pass over the values costs as much as a cheap layer. So masks
are bytes, they are summed over the channels before anything else, and one set of masks serves a delta layer and
whatever it feeds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from deltafine.layers import DeltaActivation, current_stream
from deltafine.layers.events import over_channels

SAMPLED_POSITIONS = 16
"""A look at so many positions of a frame mostly shows already that its values need multiplications."""


class Frames:
    """One tensor of a model as a row of frames, with counts of what is there and of what has changed.

    Takes a slot of the active stream: the first frame of a piece is compared with the last of the piece before.

    Args:
        value: (batch, time, ..., channels), all sizes but batch and time known.

    Attributes:
        nonzero: (batch, time, positions), how many channels are not 0.
        changed: (batch, time, positions), how many differ from the frame before; 0 in a first frame. NaN differs
            from everything.
    """

    def __init__(self, value: Any) -> None:
        stream = current_stream()
        assert stream is not None
        slot = stream.slot()
        self._before, slot.end = slot.start, value[:, -1]
        *space, self._channels = value.shape[2:]
        self._space = tuple(space)
        self._clips = tf.shape(value)[:2]
        size = (int(np.prod(space, dtype=np.int64)), self._channels)
        self._row = tf.reshape(value, (-1, *size))
        # Neighbours in the row are compared without copying a frame; pairs that span two clips are dropped later.
        self._changes = tf.not_equal(self._row[1:], self._row[:-1])
        self._changes_at_start = (
            None if self._before is None else tf.reshape(tf.not_equal(value[:, 0], self._before), (-1, *size))
        )
        self.nonzero = self._by_clip(over_channels(tf.not_equal(self._row, 0)))
        self.changed = self._of_changes(over_channels)

    def counts(self, fan: np.ndarray | None = None) -> dict[str, Any]:
        """Integers (batch, time) in 64 bits.

        Args:
            fan: the fan-out of a layer with MACs, broadcasts to one frame, or with time first to (time, frame) where it
                differs from step to step (the same for all channels then); None counts no MACs.

        Returns:
            ``nonzero`` and ``changed`` elements, ``changed_positions``, and the MACs that meet either.
        """
        if fan is not None and fan.ndim > len(self._space) + 1:
            return {**self.counts(), **self._of_steps(fan[..., 0])}
        positions = tf.reduce_sum(tf.cast(tf.not_equal(self.changed, 0), tf.int32), axis=-1)
        nonzero, macs_spatial = self._weighted(self.nonzero, fan)
        changed, macs_delta = self._weighted(self.changed, fan)
        if fan is not None and fan.shape[-1] != 1:  # it differs between channels
            fan_of_frame = np.broadcast_to(fan, (*self._space, self._channels)).reshape(1, -1, self._channels)

            def weighted(mask: Any) -> Any:
                return tf.reduce_sum(tf.cast(mask, tf.int64) * tf.constant(fan_of_frame), axis=[1, 2])

            macs_spatial = self._by_clip(weighted(tf.not_equal(self._row, 0)))
            macs_delta = self._of_changes(weighted)
        return {
            "nonzero": nonzero,
            "changed": changed,
            "changed_positions": tf.cast(positions, tf.int64),
            "macs_spatial": macs_spatial,
            "macs_delta": macs_delta,
        }

    def _of_steps(self, fan: np.ndarray) -> dict[str, Any]:
        """MACs where the fan-out (time, ...) has a time axis."""
        weights = np.broadcast_to(fan, (len(fan), *self._space)).reshape(len(fan), -1)

        def weighted(of_positions: Any) -> Any:
            return tf.reduce_sum(tf.cast(of_positions, tf.int64) * tf.constant(weights), axis=-1)

        return {"macs_spatial": weighted(self.nonzero), "macs_delta": weighted(self.changed)}

    def _weighted(self, of_positions: Any, fan: np.ndarray | None) -> tuple[Any, Any]:
        """(batch, time) sums of counts, and of counts times fan-outs that do not differ between channels.

        Whole numbers below 2**53 are exact in 64-bit floats, which are faster.
        """
        weights = np.ones((of_positions.shape[-1], 2))
        weights[:, 1] = 0 if fan is None else np.broadcast_to(fan[..., 0], self._space).reshape(-1)
        sums = tf.cast(tf.matmul(tf.cast(of_positions, tf.float64), weights), tf.int64)
        return sums[..., 0], sums[..., 1]

    def multiplier_free(self) -> dict[str, Any]:
        """Where a layer that takes these frames only adds: all values are -1, 0 or 1.

        Returns:
            (batch, time) bool each: of the frame itself, and of the frame and the one before it, so that the change
            between them needs no multiplication either (False in a first frame).
        """
        now = self._by_clip(_only_units(self._row))
        before = (
            tf.zeros_like(now[:, :1])
            if self._before is None
            else _only_units(tf.reshape(self._before, (-1, *self._row.shape[1:])))[:, None]
        )
        return {"units": now, "units_twice": now & tf.concat([before, now[:, :-1]], axis=1)}

    def channels_changed(self) -> Any:
        """(batch, time, channels): at how many positions a channel has changed, 64 bits."""
        return self._of_changes(_over_positions)

    def _by_clip(self, of_frames: Any) -> Any:
        """(frames, ...) to (batch, time, ...)."""
        return tf.reshape(of_frames, tf.concat([self._clips, of_frames.shape[1:]], axis=0))

    def _of_changes(self, count: Callable[[Any], Any]) -> Any:
        """Counts (frames, ...) of a mask (frames, positions, channels), taken of the changes: (batch, time, ...)."""
        pairs = count(self._changes)
        padded = tf.pad(pairs, [[1, 0]] + [[0, 0]] * (len(pairs.shape) - 1))
        by_clip = self._by_clip(padded)
        at_start = (
            tf.zeros_like(by_clip[:, :1]) if self._changes_at_start is None else count(self._changes_at_start)[:, None]
        )
        return tf.concat([at_start, by_clip[:, 1:]], axis=1)


def count_events(layer: DeltaActivation, true: Any, sent: Any, frames: Frames) -> dict[str, Any]:
    """What a delta layer does: ``true`` goes in, ``sent`` comes out, both (batch, time, ..., channels)."""
    distance = tf.abs(tf.cast(sent, tf.float32) - tf.cast(true, tf.float32)) / layer.step
    counts = frames.counts()
    needed = tf.zeros_like(counts["nonzero"], tf.bool)
    counts |= {
        "units": needed,
        "units_twice": needed,
        "channel_changed": frames.channels_changed(),
        # Channels first, in 32 bits: a sum over one position is the same in every batch.
        "staleness": tf.reduce_sum(tf.cast(tf.reduce_sum(distance, axis=-1), tf.float64)),
    }
    if layer.rule in QUANTISED_RULES:
        levels = tf.round(tf.cast(sent, tf.float32) / layer.step)
        counts["lowest_level"], counts["highest_level"] = tf.reduce_min(levels), tf.reduce_max(levels)
    return counts


QUANTISED_RULES = ("quantize", "paper")
"""Rules whose output is a whole number of steps."""


def _over_positions(mask: Any) -> Any:
    """(frames, positions, channels) to (frames, channels); exact in floats: far fewer than 2**24 positions."""
    return tf.cast(tf.reduce_sum(tf.cast(mask, tf.float32), axis=1), tf.int64)


def _only_units(row: Any) -> Any:
    """(frames,) bool: whether all values of a frame (positions, channels) are -1, 0 or 1."""

    def units(values: Any) -> Any:
        return tf.reduce_all(tf.equal(values, 0) | tf.equal(tf.abs(values), 1), axis=[1, 2])

    step = max(1, row.shape[1] // SAMPLED_POSITIONS)
    sampled = units(row[:, ::step])
    return tf.cond(tf.reduce_any(sampled), lambda: units(row), lambda: sampled)
