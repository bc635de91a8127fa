"""Sharing out an allowed divergence among the layers: large thresholds where they save most and harm least.

Each layer is tried alone with a few thresholds, all others sending every change. From what that costs (divergence of
the network's output) and saves (effective MACs), a Lagrange multiplier picks one threshold per layer, as in bit
allocation (Shoham and Gersho 1988, doi 10.1109/29.90373). Between the thresholds that were tried, cost and saving are
interpolated, so that a small change of the multiplier is a small change of the thresholds. A few multipliers are tried
on the whole network, so that layers' interplay is measured, not assumed. These give a front, and any allowed divergence
is a point between two of the front.

The videos are fed as one stream, state carried over the cuts between them. On separate short videos, whose answer
never changes, a network that sends nothing looks as good as any. Where it does so all the same, features and logits are
looked at as well (``deltafine.refinement.thresholds.following``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import keras
import numpy as np

from deltafine.measurement.probe import Probe, probe_of
from deltafine.model import delta_layers
from deltafine.refinement.thresholds.calibration import threshold_unit
from deltafine.refinement.thresholds.descent import MANY_LAYERS, Descent
from deltafine.refinement.thresholds.following import MOST_APART, SMALLEST_THRESHOLD, Seen, play
from deltafine.refinement.thresholds.trials import AllocationTrial, Trials
from deltafine.refinement.training.losses import Loss

RELATIVE_STEPS = (0.03, 0.06, 0.125, 0.25, 0.5, 0.75, 1.0, 1.5)
"""Tried thresholds / RMS of the layer's activations."""
BETWEEN = 4
"""Thresholds that are considered from one that was tried to the next."""
PRICES = np.logspace(4, -4, 17)
"""Of divergence, in shares of the dense MACs; at most so many choices are tried on the whole network."""
BISECTIONS = 4
CLOSE = 0.05
"""A divergence within 5% of what is allowed is near enough."""


class Allocation:
    """Searches thresholds for a clip model with delta layers on a little video.

    Args:
        clip_model: its thresholds are changed by the search; or a probe of it.
        original: clip model without delta layers, to compare with; or a probe of it.
        rms: of each delta layer's activations, from ``activation_rms``.
        videos: arrays (time, height, width, channels), each one continuous, at least 2 frames long.
        loss: says how far predictions are from the original's, and what stands behind them.
        weights: share of all MACs that each delta layer's elements meet, by layer path.
        trials: what is known already; more is added.
    """

    def __init__(
        self,
        clip_model: keras.Model | Probe,
        original: keras.Model | Probe,
        rms: dict[str, np.ndarray],
        videos: Sequence[np.ndarray],
        loss: Loss,
        weights: Mapping[str, float],
        trials: Trials | None = None,
    ) -> None:
        self._probe = probe_of(clip_model)
        self._layers = delta_layers(self._probe.clip_model)
        self._units = {path: threshold_unit(layer, rms[path]) for path, layer in self._layers.items()}
        self._weights = weights
        self._videos = videos
        self._loss = loss
        pieces = play(probe_of(original), videos, carried=False)
        self._targets = [piece.predictions[0] for piece in pieces]
        self._seen = Seen.of(pieces, loss)
        self._alone: dict[str, list[AllocationTrial]] = {}
        self._known = trials or Trials()

    def explore(self, most: float, progress: Callable[[int, int], None]) -> None:
        """Try every layer alone with every threshold; or, of many, find the path that all of them take together.

        Args:
            most: the largest divergence that is going to be allowed.
            progress: told what is done, and how much there is to do.
        """
        if len(self._layers) > MANY_LAYERS and self._follow_path(most, progress):
            return
        for path in self._layers:
            self._alone[path] = []
            for relative in RELATIVE_STEPS:
                self._alone[path].append(self._tried({path: relative})[1])
                progress(sum(map(len, self._alone.values())), len(self._layers) * len(RELATIVE_STEPS))

    def _follow_path(self, most: float, progress: Callable[[int, int], None]) -> bool:
        """Whether there is a path: a rule of one's own may have no gradients."""
        points = self._known.path
        descent = Descent(self._probe, self._units, self._weights, self._videos, self._targets, self._loss)
        for point in descent.path(points, most, progress):
            self._known.go_on(point)
            if not any(point.mean):
                break
        return any(points[0].mean)

    def allocate(self, max_divergence: float) -> dict[str, float]:
        """Relative thresholds by layer path that stay within the divergence, and set them in the model.

        If the network then stands still inside, whatever its answers are, features and logits have to be followed as
        well. Where even the smallest thresholds tried exceed what is allowed, those are taken.
        """
        best, trial = self._within(max_divergence)
        if trial.apart > MOST_APART:
            best, _ = self._within(max_divergence, inside=True)
        self._set(best)
        return best

    def _within(self, max_divergence: float, *, inside: bool = False) -> tuple[dict[str, float], AllocationTrial]:
        """The cheapest thresholds that keep within the divergence (``inside``: and follow), and their trial."""

        def keeps(trial: AllocationTrial) -> bool:
            return trial.divergence <= max_divergence and (not inside or trial.apart <= MOST_APART)

        # One unit of what is inside is worth as much divergence as makes both limits count alike.
        worth = max_divergence / MOST_APART if inside else 0.0
        choices = self._choices(worth)
        best, trial = self._tried(next(choices))
        beyond: dict[str, float] | None = None
        for choice in choices:
            chosen, tried = self._tried(choice)
            if not keeps(tried):
                beyond = chosen
                break
            best, trial = chosen, tried
        if beyond is None or not keeps(trial):
            return best, trial
        low, high, start = 0.0, 1.0, best
        for _ in range(BISECTIONS):
            if trial.divergence >= (1 - CLOSE) * max_divergence:
                break
            part = (low + high) / 2
            between = {path: start[path] ** (1 - part) * beyond[path] ** part for path in start}
            chosen, tried = self._tried(between)
            if keeps(tried):
                best, trial, low = chosen, tried, part
            else:
                high = part
        return best, trial

    def _choices(self, worth: float) -> Iterator[dict[str, float]]:
        """Thresholds of all layers, from those that follow most closely on."""
        if self._alone:
            return (self._cheapest(price, worth) for price in PRICES)
        return (dict(zip(self._layers, point.relative, strict=True)) for point in self._known.path)

    def _cheapest(self, price: float, worth: float) -> dict[str, float]:
        """Per layer the threshold with the least MACs + price x (divergence + worth x what is apart inside)."""
        dense = sum(place.dense_macs for place in self._probe.layers)
        chosen = {}
        for path, trials in self._alone.items():
            macs = self._refined([trial.effective_macs / dense for trial in trials])
            harm = self._refined([trial.divergence + worth * trial.apart for trial in trials])
            chosen[path] = float(self._refined(RELATIVE_STEPS, geometric=True)[np.argmin(macs + price * harm)])
        return chosen

    @staticmethod
    def _refined(values: Sequence[float], *, geometric: bool = False) -> np.ndarray:
        """Values at the thresholds that were tried, and between them on a straight line over their logarithm."""
        places = np.linspace(0, len(values) - 1, BETWEEN * (len(values) - 1) + 1)
        if geometric:
            return np.exp(np.interp(places, range(len(values)), np.log(values)))
        return np.interp(places, range(len(values)), values)

    def _tried(self, relative: dict[str, float]) -> tuple[dict[str, float], AllocationTrial]:
        """What thresholds give on the whole network; tried once."""
        key = tuple(relative.get(path, 0.0) for path in self._layers)
        trial = self._known.get(key)
        if trial is None:
            self._set(relative)
            trial = self._try()
            self._known.put(key, trial)
        return relative, trial

    def _set(self, relative: dict[str, float]) -> None:
        """Layers not named send every change."""
        for path, layer in self._layers.items():
            layer.set_threshold(np.maximum(self._units[path] * relative.get(path, 0.0), SMALLEST_THRESHOLD))

    def _try(self) -> AllocationTrial:
        macs, steady, divergence, frames = 0, 0, 0.0, 0
        places = len(self._probe.layers)
        # State is carried over the cuts: thresholds at which nothing is ever sent must not look harmless.
        pieces = play(self._probe, self._videos)
        for video, piece, target in zip(self._videos, pieces, self._targets, strict=True):
            macs += sum(int(counts.macs_delta[:, 1:].sum()) for counts in piece.counts[:places])
            steady += len(video) - 1
            divergence += self._loss.divergence(target, piece.predictions[0]) * len(target)
            frames += len(target)
        return AllocationTrial(divergence / frames, macs / steady, self._seen.apart(Seen.of(pieces, self._loss)))
