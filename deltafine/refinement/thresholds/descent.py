"""Thresholds of many delta layers at once, by gradients: a path from exact to sparse.

What a price of the MACs makes of the thresholds is found by descent: the divergence of the network's output, plus the
price times the expected MACs, has a gradient in every threshold (``EventRule.output`` and ``.expected_events``). The
price rises from one point of the path to the next, and the thresholds follow. A step costs as much as a training step,
however many layers there are. To try every layer alone takes a pass for each, and what they cost is only added up then.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from deltafine.layers import Stream
from deltafine.measurement.probe import Probe
from deltafine.model import delta_layers
from deltafine.model.further_inputs import answered
from deltafine.refinement.thresholds.following import SMALLEST_THRESHOLD
from deltafine.refinement.thresholds.trials import PathPoint
from deltafine.refinement.training.carried_state import Carried
from deltafine.refinement.training.losses import Loss
from deltafine.refinement.training.strided import strides_taken_first

MANY_LAYERS = 16
"""With more, thresholds are found together; with fewer, each layer can be tried alone."""
FIRST_PRICE, DEARER = 1e-3, 10**0.125
"""Of all MACs, in nats per frame; the factor from one point of the path to the next."""
MOST_POINTS = 48
STEPS = 6
"""From one point to the next."""
RATE = 0.05
"""Of the thresholds' logarithms in a step, at most: enough to follow the price, which moves them by its cube root."""
START, LEAST, MOST = 0.02, 0.002, 1.5
"""Relative thresholds: of the whole path's beginning, and the limits of each."""
FRAMES, VIDEOS = 8, 8
"""Of a step."""
FAR = 1.5
"""The path ends where the divergence is so much larger than any that is asked for."""
MEMORY, MEMORY_OF_SQUARES = 0.9, 0.99
"""Of gradients, as in Adam (Kingma and Ba, arXiv 1412.6980)."""


class Descent:
    """Follows the path on some videos.

    Args:
        probe: of a clip model with delta layers, whose thresholds are changed.
        units: of each layer's relative threshold, by layer path.
        weights: share of all MACs that each delta layer's elements meet, by layer path.
        videos: arrays (time, height, width, channels), each one continuous.
        targets: what the original answers to each of them, (time, ..., outputs).
        loss: says how far answers are from the original's.
    """

    def __init__(
        self,
        probe: Probe,
        units: Mapping[str, Any],
        weights: Mapping[str, float],
        videos: Sequence[np.ndarray],
        targets: Sequence[np.ndarray],
        loss: Loss,
    ) -> None:
        self._model, self._loss = probe.model, loss
        self._carried = Carried(probe.model) if probe.window is None else None
        self._by_path = delta_layers(probe.clip_model)
        self._units = [units[path] for path in self._by_path]
        self._weights = [weights[path] for path in self._by_path]
        self._groups = _groups(videos, targets, whole=probe.window is not None)
        self._compiled = tf.function(self._gradients, reduce_retracing=True, autograph=False)

    def path(
        self, known: Sequence[PathPoint], most: float, progress: Callable[[int, int], None]
    ) -> Iterator[PathPoint]:
        """The points of the path that are not known yet, up to a divergence of ``most`` and somewhat beyond."""
        layers = list(self._by_path.values())
        penalties = [np.asarray(layer.penalty) for layer in layers]
        for layer, weight in zip(layers, self._weights, strict=True):
            layer.penalty.assign(np.float32(weight))
        try:
            nothing = (0.0,) * len(layers)
            point = known[-1] if known else PathPoint((START,) * len(layers), 0.0, nothing, nothing)
            for number in range(len(known), MOST_POINTS):
                if point.divergence > FAR * most:
                    break
                point = self._next(point, number)
                yield point
                progress(number + 1, MOST_POINTS)
        finally:
            for layer, penalty in zip(layers, penalties, strict=True):
                layer.penalty.assign(penalty)

    def _next(self, point: PathPoint, number: int) -> PathPoint:
        """The point after a number of others."""
        relative, mean, square = (np.array(values) for values in (point.relative, point.mean, point.square))
        price, carried = FIRST_PRICE * DEARER**number, self._carried
        divergences, begun = [], number * STEPS
        for done, (before, frames, targets) in enumerate(itertools.islice(self._steps(number), STEPS)):
            self._set(relative)
            if carried is not None and before is not None:
                carried.begin_after(before)
            state = [] if carried is None else carried.before(frames)
            divergence, gradients, state = self._compiled(
                state, tf.constant(frames), tf.constant(targets), tf.constant(price, tf.float32)
            )
            if carried is not None:
                carried.keep(state)
            divergences.append(float(divergence))
            slope = np.nan_to_num(np.asarray(gradients, np.float64))
            mean = MEMORY * mean + (1 - MEMORY) * slope
            square = MEMORY_OF_SQUARES * square + (1 - MEMORY_OF_SQUARES) * slope**2
            taken = begun + done + 1
            scale = np.sqrt(square / (1 - MEMORY_OF_SQUARES**taken))
            step = np.divide(mean / (1 - MEMORY**taken), scale, out=np.zeros_like(mean), where=scale > 0)
            relative = np.clip(relative * np.exp(-RATE * np.clip(step, -1, 1)), LEAST, MOST)
        return PathPoint(
            tuple(relative.tolist()), float(np.mean(divergences)), tuple(mean.tolist()), tuple(square.tolist())
        )

    def _steps(self, number: int) -> Iterator[tuple[np.ndarray | None, np.ndarray, np.ndarray]]:
        """Frames and targets of the steps after a number of points, without end; and what stands before the first.

        These are the ends of other videos: on its own beginning, a network that sends nothing looks as good as any.
        """
        longest = max(len(group) for group in self._groups)
        begin = number * -(-STEPS // longest)
        for place in itertools.count(begin):
            group = self._groups[place % len(self._groups)]
            for piece, (frames, targets) in enumerate(group):
                yield None if piece else np.roll(group[-1][0], 1, axis=0), frames, targets

    def _set(self, relative: np.ndarray) -> None:
        for layer, unit, value in zip(self._by_path.values(), self._units, relative, strict=True):
            layer.set_threshold(np.maximum(unit * value, SMALLEST_THRESHOLD))

    def _gradients(self, state: list[Any], frames: Any, targets: Any, price: Any) -> tuple[Any, Any, list[Any]]:
        """The divergence, and the slope of what is minimised in the logarithm of each layer's threshold."""
        watched = [layer.log_threshold.value for layer in self._by_path.values()]
        unlabelled = -tf.ones(tf.shape(frames)[:1], tf.int64)
        with tf.GradientTape(watch_accessed_variables=False) as tape, strides_taken_first(self._model):
            tape.watch(watched)
            with Stream(state or None, counting=False, charging=True) as stream:
                answers = answered(self._model, tf.cast(frames, tf.float32))
            divergence = self._loss(answers, targets, unlabelled)
            total = divergence + price * tf.add_n(self._model.losses)
        slopes = tape.gradient(total, watched, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        ends = [tf.stop_gradient(value) for value in stream.state] if state else []
        return divergence, tf.stack([tf.reduce_sum(slope) for slope in slopes]), ends


def _groups(
    videos: Sequence[np.ndarray], targets: Sequence[np.ndarray], *, whole: bool
) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    """Videos of about one length side by side, each with its targets; in pieces, or ``whole`` windows."""
    order = sorted(range(len(videos)), key=lambda place: -len(videos[place]))
    groups = []
    for begin in range(0, len(order), VIDEOS):
        places = order[begin : begin + VIDEOS]
        if whole:
            groups.append(
                [(np.stack([videos[place] for place in places]), np.stack([targets[place] for place in places]))]
            )
            continue
        length = min(len(videos[place]) for place in places)
        each = min(FRAMES, length)
        groups.append(
            [
                (
                    np.stack([videos[place][start : start + each] for place in places]),
                    np.stack([targets[place][start : start + each] for place in places]),
                )
                for start in range(0, length - each + 1, each)
            ]
        )
    return groups
