"""What a delta layer is set to; the words are those of ``DeltaActivation``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DeltaSettings:
    """Settings of the delta layers that ``insert_deltas`` makes.

    Attributes:
        rule: ``"send-on-delta"``, ``"quantize"``, or ``"identity"``, which only counts.
        unit: ``"element"`` or ``"pixel"``: what is sent as one.
        step_per: ``"layer"``, ``"channel"`` or ``"neuron"``: how many step sizes a layer has.
        initial_step: the step size to start from, one for all or by site name (sites left out get 1.0).
        penalty: weight of the layers' own penalty term.
        random_start: whether training starts each clip from a state as stale as in a stream.
        train_step: whether the step sizes are trainable.
    """

    rule: str = "send-on-delta"
    unit: str = "element"
    step_per: str = "layer"
    initial_step: float | Mapping[str, float] = 1.0
    penalty: float = 0.0
    random_start: bool = True
    train_step: bool = True

    def arguments(self, site_name: str) -> dict[str, Any]:
        """The keyword arguments of ``DeltaActivation`` for one site."""
        step = self.initial_step
        return {
            "rule": self.rule,
            "unit": self.unit,
            "step_per": self.step_per,
            "initial_step": step.get(site_name, 1.0) if isinstance(step, Mapping) else step,
            "penalty": self.penalty,
            "random_start": self.random_start,
            "train_step": self.train_step,
        }
