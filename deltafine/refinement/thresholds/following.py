"""How far a network with thresholds is from itself without them, where its answers cannot say.

On videos whose answer never changes, and for a network that was never trained, a network that sends nothing gives the
right answers too. So features and logits are compared as well: what goes into the last layer with MACs, and what goes
into the softmax. Their error is the mean square over the variance of what they should be: near 0 where they are
followed, 1 or more where they stand still, whatever units they have. Networks whose answers were near the original's
had 0.01 to 0.15, silent ones 0.9 to 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deltafine.layers import DeltaActivation, Stream
from deltafine.measurement.probe import MOST_FEATURES, Piece, Probe
from deltafine.model import delta_layers, graph
from deltafine.model.clip_model import with_time
from deltafine.model.further_inputs import inputs_of
from deltafine.refinement.training.losses import Loss

SMALLEST_THRESHOLD = 1e-6
"""With it, all that changes is sent."""
MOST_APART = 0.5
"""Error of features or logits at which a network counts as one that follows."""
SMALLEST_SPREAD = 0.01
"""Of the root mean square: what varies by less does not change."""
MOST_HALVINGS = 12
SMALLEST_CHANGE = 1e-3
"""Of the root mean square of a layer's input: below it is rounding, which nothing is lowered for."""


@dataclass(frozen=True)
class Seen:
    """What a network has inside, for the frames (or windows) of some videos in turn.

    Attributes:
        logits: (frames, values).
        features: (frames, values); None for a network without a layer with MACs.
    """

    logits: np.ndarray
    features: np.ndarray | None

    @classmethod
    def of(cls, pieces: Sequence[Piece], loss: Loss) -> Seen:
        """What went by in these pieces, of one clip each."""
        logits = np.concatenate([loss.logits(some(piece.predictions[0])) for piece in pieces])
        if any(piece.features is None for piece in pieces):
            return cls(logits, None)
        return cls(logits, np.concatenate([piece.features[0] for piece in pieces if piece.features is not None]))

    def apart(self, other: Seen) -> float:
        """Error of another network's, relative to how much these vary: the larger of that of logits and features."""
        found = [error(self.logits, other.logits)]
        if self.features is not None and other.features is not None:
            found.append(error(self.features, other.features))
        return max(found)


def error(targets: np.ndarray, values: np.ndarray) -> float:
    """Mean square error / variance of the targets (frames, values), all values together."""
    aim = np.asarray(targets, np.float64)
    spread = max(np.square(aim - aim.mean(0)).sum(), SMALLEST_SPREAD**2 * np.square(aim).sum())
    missed = np.square(np.asarray(values, np.float64) - aim).sum()
    return float(missed / spread) if spread else float(missed > 0)


def some(predictions: np.ndarray) -> np.ndarray:
    """Predictions (frames, ..., outputs) at positions spread over each frame: at most ``MOST_FEATURES`` values."""
    by_position = predictions.reshape(len(predictions), -1, predictions.shape[-1])
    positions = by_position.shape[1]
    kept = min(positions, max(1, MOST_FEATURES // predictions.shape[-1]))
    return by_position[:, np.linspace(0, positions - 1, kept).round().astype(int)]


def play(probe: Probe, videos: Sequence[np.ndarray], *, carried: bool = True) -> list[Piece]:
    """Videos (time, height, width, channels) one after the other, state carried over the cuts between them.

    The states themselves, which are large, are not in what is returned.
    """
    pieces: list[Piece] = []
    state = None
    for video in videos:
        piece = probe.run(video[None], state)
        state = piece.state if carried else None
        pieces.append(replace(piece, state=[]))
    return pieces


def own_error(probe: Probe, videos: Sequence[np.ndarray], loss: Loss) -> float:
    """How far a network is from what it would be if it sent every change: :meth:`Seen.apart` with the same weights."""
    held = Seen.of(play(probe, videos), loss)
    with _sending_everything(probe.delta_layers):
        return Seen.of(play(probe, videos), loss).apart(held)


def scale_that_follows(probe: Probe, videos: Sequence[np.ndarray], loss: Loss) -> float:
    """The largest factor 1, 1/2, 1/4, ... on all thresholds with which a network follows; the last one if none does.

    The thresholds are as they were afterwards.
    """
    thresholds = [np.asarray(layer.threshold) for layer in probe.delta_layers]
    try:
        for halvings in range(MOST_HALVINGS + 1):
            if own_error(probe, videos, loss) <= MOST_APART:
                break
            for layer, threshold in zip(probe.delta_layers, thresholds, strict=True):
                layer.set_threshold(np.maximum(threshold * 0.5 ** (halvings + 1), SMALLEST_THRESHOLD))
    finally:
        for layer, threshold in zip(probe.delta_layers, thresholds, strict=True):
            layer.set_threshold(threshold)
    return 0.5 ** min(halvings, MOST_HALVINGS)


def wake(clip_model: keras.Model, videos: Sequence[np.ndarray]) -> list[str]:
    """Lower the thresholds of delta layers that never send anything within the videos; returns their paths.

    Such a layer gets thresholds that half of its largest change reaches, all of them by one factor, so that it fires
    where as much happens as has been seen. Single channels and neurons may stay silent: under one threshold per layer
    they would be as well, and what they leave out is less than a threshold. Layers whose input never changes keep their
    thresholds.

    Args:
        clip_model: with delta layers.
        videos: arrays (time, height, width, channels), each one continuous.
    """
    layers = delta_layers(clip_model)
    peaks = _peaks(with_time(clip_model), layers)
    lowered = set()
    for _ in range(len(layers) + 1):
        found = peaks(videos)
        silent = {path: peak for path, peak in found.items() if 0 < peak < 1}
        if not silent:
            break
        for path, peak in silent.items():  # what stands behind these may have been silent only for their sake
            layers[path].set_threshold(np.maximum(np.asarray(layers[path].threshold) * peak / 2, SMALLEST_THRESHOLD))
            lowered.add(path)
    return [path for path in layers if path in lowered]


def _peaks(model: keras.Model, layers: dict[str, DeltaActivation]) -> Any:
    """A function that gives the largest change of each layer's input in a video, in thresholds; 1 if it fired."""

    @tf.function(reduce_retracing=True, autograph=False)
    def inputs(frames: Any, before: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        largest: dict[str, Any] = {}
        starts: dict[str, Any] = {}

        def observe(path: str, operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any) -> None:
            if path not in layers or not operation.rule.uses_threshold:
                return
            folded = len(args) > 1  # (frames, ...), and all of them are of one clip
            values = (tf.cast(x, tf.float32) for x in (args[0], outputs))
            sequence, sent = (x[None] if folded else x for x in values)
            start = sequence[:, 0]
            if sequence.shape[1] == 1:  # a window is a single step: it changes from one window to the next alone
                starts[path] = start
                start = before.get(path, start)
            change = tf.abs(sequence - start[:, None])
            size = tf.sqrt(tf.reduce_mean(tf.square(sequence)))
            moved = tf.where(tf.reduce_max(change) > SMALLEST_CHANGE * size, change / operation.threshold, 0.0)
            if operation.granularity == "pixel":
                moved = tf.sqrt(tf.reduce_mean(tf.square(moved), axis=-1))
            fired = tf.reduce_any(tf.not_equal(sent, sent[:, :1]))
            largest[path] = tf.where(fired, 1.0, tf.minimum(tf.reduce_max(moved), 1.0))

        with Stream(measuring=True):
            graph.run(model, inputs_of(model, tf.cast(frames, tf.float32)), observe)
        return largest, starts

    def peaks(videos: Sequence[np.ndarray]) -> dict[str, float]:
        found: dict[str, float] = {}
        first: dict[str, Any] = {}
        for video in videos:
            largest, starts = inputs(tf.constant(video[None]), first)
            first = first or starts
            found = {path: max(found.get(path, 0.0), float(peak)) for path, peak in largest.items()}
        return found

    return peaks


@contextmanager
def _sending_everything(layers: Sequence[DeltaActivation]) -> Iterator[None]:
    thresholds = [np.asarray(layer.threshold) for layer in layers]
    for layer in layers:
        layer.set_threshold(SMALLEST_THRESHOLD)
    try:
        yield
    finally:
        for layer, threshold in zip(layers, thresholds, strict=True):
            layer.set_threshold(threshold)
