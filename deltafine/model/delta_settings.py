"""What a delta layer is set to; the words are those of ``DeltaActivation``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deltafine.layers.rules import RuleLike


@dataclass(frozen=True)
class DeltaSettings:
    """Settings of the delta layers that ``insert_deltas`` makes.

    Attributes:
        rule: ``"send-on-delta"``, ``"quantize"``, ``"identity"``, which only counts, or an instance of an
            ``deltafine.layers.EventRule`` of one's own.
        granularity: ``"element"`` or ``"pixel"``: what is sent together.
        threshold_per: ``"layer"``, ``"channel"`` or ``"neuron"``: how many thresholds a layer has.
        initial_threshold: the threshold to start from, one for all or by site name (sites left out get 1.0).
        penalty: weight of the layers' own penalty term.
        random_start: whether training starts each clip from a state as stale as in a stream.
        train_threshold: whether the thresholds are trainable.
    """

    rule: RuleLike = "send-on-delta"
    granularity: str = "element"
    threshold_per: str = "layer"
    initial_threshold: float | Mapping[str, float] = 1.0
    penalty: float = 0.0
    random_start: bool = True
    train_threshold: bool = True

    def arguments(self, site_name: str) -> dict[str, Any]:
        """The keyword arguments of ``DeltaActivation`` for one site."""
        threshold = self.initial_threshold
        return {
            "rule": self.rule,
            "granularity": self.granularity,
            "threshold_per": self.threshold_per,
            "initial_threshold": threshold.get(site_name, 1.0) if isinstance(threshold, Mapping) else threshold,
            "penalty": self.penalty,
            "random_start": self.random_start,
            "train_threshold": self.train_threshold,
        }
