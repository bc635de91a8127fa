"""Sharing out an allowed divergence among the layers: large steps where they save most and harm least.

Each layer is tried alone with a few step sizes, all others sending every change. From what that costs (divergence of
the network's output) and saves (effective MACs), a Lagrange multiplier picks one step per layer, as in bit
allocation (Shoham and Gersho 1988, doi 10.1109/29.90373); the multiplier is then found by bisection on the whole
network, so that layers' interplay is measured, not assumed.

The videos are fed as one stream, state carried over the cuts between them. On separate short videos, whose answer
never changes, a network that sends nothing looks as good as any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deltafine.measurement.probe import Probe
from deltafine.model import delta_layers
from deltafine.refinement.calibrate import SMALLEST_STEP, step_unit

RELATIVE_STEPS = (0.03, 0.06, 0.125, 0.25, 0.5, 0.75, 1.0, 1.5)
"""Tried steps / RMS of the layer's activations."""
COARSE_STEPS = (0.06, 0.125, 0.25, 0.5, 1.0)
"""The same for models with many delta layers, so that calibration stays short."""
MANY_LAYERS = 16
BISECTIONS = 8

Divergence = Callable[[np.ndarray, np.ndarray], float]
"""divergence(original predictions, predictions), both (frames, ...): the mean over frames."""


@dataclass(frozen=True)
class Trial:
    """What some choice of steps gives on the calibration video."""

    divergence: float
    effective_macs: float  # mean per steady frame


class Allocation:
    """Searches steps for a clip model with delta layers on a little video.

    Args:
        clip_model: its steps are changed by the search.
        original: clip model without delta layers, to compare with.
        rms: of each delta layer's activations, from ``activation_rms``.
        videos: arrays (time, height, width, channels), each one continuous, at least 2 frames long.
        divergence: how far predictions are from the original's.
    """

    def __init__(
        self,
        clip_model: Any,
        original: Any,
        rms: dict[str, np.ndarray],
        videos: Sequence[np.ndarray],
        divergence: Divergence,
    ) -> None:
        self._layers = delta_layers(clip_model)
        self._units = {path: step_unit(layer, rms[path]) for path, layer in self._layers.items()}
        self._steps = COARSE_STEPS if len(self._layers) > MANY_LAYERS else RELATIVE_STEPS
        self._probe = Probe(clip_model)
        self._videos = [video[None] for video in videos]
        self._divergence = divergence
        probe = Probe(original)
        self._targets = [probe.run(video).predictions[0] for video in self._videos]
        self._alone: dict[str, list[Trial]] = {}

    def trials(self) -> int:
        """How many times :meth:`explore` runs the video through the network."""
        return len(self._layers) * len(self._steps)

    def explore(self, progress: Callable[[int, int], None]) -> None:
        """Try every layer alone with every step."""
        for path in self._layers:
            self._alone[path] = []
            for relative in self._steps:
                self._set({path: relative})
                self._alone[path].append(self._try())
                progress(sum(map(len, self._alone.values())), self.trials())

    def allocate(self, max_divergence: float) -> dict[str, float]:
        """Relative steps by layer path that stay within the divergence, and set them in the model.

        Where even the smallest steps tried exceed it, those are taken.
        """
        low, high = -12.0, 4.0  # log10 of the price of divergence, in shares of the dense MACs
        best = self._cheapest(10.0**high)
        for _ in range(BISECTIONS):
            price = (low + high) / 2
            chosen = self._cheapest(10.0**price)
            self._set(chosen)
            if self._try().divergence <= max_divergence:
                best, high = chosen, price
            else:
                low = price
        self._set(best)
        return best

    def steps(self, relative: dict[str, float]) -> dict[str, Any]:
        """Relative steps in units of the activations, by layer path."""
        return {path: np.maximum(self._units[path] * relative[path], SMALLEST_STEP) for path in self._layers}

    def _cheapest(self, price: float) -> dict[str, float]:
        """Per layer the step with the least MACs + price x divergence."""
        dense = sum(place.dense_macs for place in self._probe.layers)
        chosen = {}
        for path, trials in self._alone.items():
            costs = [trial.effective_macs / dense + price * trial.divergence for trial in trials]
            chosen[path] = self._steps[int(np.argmin(costs))]
        return chosen

    def _set(self, relative: dict[str, float]) -> None:
        """Layers not named send every change."""
        for path, layer in self._layers.items():
            layer.set_step(np.maximum(self._units[path] * relative.get(path, 0.0), SMALLEST_STEP))

    def _try(self) -> Trial:
        macs, steady, divergence, frames = 0, 0, 0.0, 0
        places = len(self._probe.layers)
        state = None
        for video, target in zip(self._videos, self._targets, strict=True):
            piece = self._probe.run(video, state)
            state = piece.state  # carried over the cut: steps at which nothing is ever sent must not look harmless
            macs += sum(int(counts.macs_delta[:, 1:].sum()) for counts in piece.counts[:places])
            steady += video.shape[1] - 1
            divergence += self._divergence(target, piece.predictions[0]) * len(target)
            frames += len(target)
        return Trial(divergence / frames, macs / steady)
