"""Steering λ: towards a density that is to be reached, or as far as accuracy allows."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from deltafine.refinement.history import FrontPoint
from deltafine.refinement.settings import RefineSettings

TOLERANCE = 0.05
"""A density within 5% of the target has reached it."""
DEFAULT_DROP = 0.01
"""Accuracy that the chosen checkpoint may lose where no budget is given."""


@dataclass(frozen=True)
class Budget:
    """What a run is to come to.

    Attributes:
        kind: the figure that is aimed at: ``macs``, ``sparsity`` or ``pixels``; None without a target.
        density: the density to reach (of a sparsity, 1 - sparsity).
        drop: accuracy that may be lost.
        spend: whether all of ``drop`` is to be spent.
    """

    kind: str | None
    density: float | None
    drop: float
    spend: bool

    @classmethod
    def of(cls, settings: RefineSettings) -> Budget:
        """The budget that the settings give."""
        drop = settings.max_accuracy_drop
        wanted = {
            "macs": settings.target_macs,
            "sparsity": None if settings.target_sparsity is None else 1 - settings.target_sparsity,
            "pixels": settings.target_pixels,
        }
        kind, density = next(((name, value) for name, value in wanted.items() if value is not None), (None, None))
        return cls(kind, density, DEFAULT_DROP if drop is None else drop, drop is not None and kind is None)

    def density_of(self, point: FrontPoint) -> float:
        """The density of a point that the target is about; the MAC density without a target."""
        if self.kind == "pixels":
            return point.pixel_density
        if self.kind == "sparsity":
            assert point.delta_sparsity is not None
            return 1 - point.delta_sparsity
        return point.mac_density

    def reached(self, point: FrontPoint) -> bool:
        """Whether a point is within the tolerance of the target."""
        return self.density is None or abs(self.density_of(point) / self.density - 1) <= TOLERANCE


@dataclass
class TargetController:
    """λ from the density of events in training, step by step, towards a target.

    A proportional-integral controller on log λ. Its error is the log of (density / reference); the reference falls
    geometrically from the density at the start to the target over the first half of the training, so that the
    error stays small and the network is led, not torn. Densities answer to λ about as λ^-0.5 and within some 5% of a
    training; the integral gain of 14 per training then closes an error with a time constant of
    1 / (14 x 0.5) = a seventh of the training, three times slower than the network answers, which leaves no room
    for oscillation; the proportional part of 0.5 adds damping.

    What is steered is the expected density in training clips, ``ratio`` times that of the validation streams; the
    ratio is measured anew at every validation.
    """

    target: float
    steps: int
    penalty: float
    warmup: int
    ratio: float = 1.0
    smoothed: float | None = None
    start: float | None = None
    integral: float = 0.0
    step: int = 0

    PROPORTIONAL = 0.5
    INTEGRAL = 14.0
    MEMORY = 0.9
    RANGE = math.log(100.0)

    def validated(self, density: float) -> None:
        """Take in the density that the target is about, as measured on the validation streams."""
        if self.smoothed is not None and density > 0:
            self.ratio = self.smoothed / density

    def update(self, expected: float) -> None:
        """Take in the expected density of a training batch."""
        if not expected > 0:
            return
        log = math.log(expected)
        before = log if self.smoothed is None else math.log(self.smoothed)
        self.smoothed = math.exp(self.MEMORY * before + (1 - self.MEMORY) * log)
        self.step += 1
        if self.step <= self.warmup:
            return
        if self.start is None:
            self.start = self.smoothed
        error = self._error()
        self.integral += self.INTEGRAL / self.steps * error
        self.integral = max(-self.RANGE, min(self.RANGE, self.integral))  # no wind-up while a limit is met

    @property
    def strength(self) -> float:
        """λ for the next step."""
        proportional = self.PROPORTIONAL * self._error() if self.start is not None else 0.0
        return self.penalty * math.exp(max(-self.RANGE, min(self.RANGE, self.integral + proportional)))

    def _error(self) -> float:
        assert self.smoothed is not None
        assert self.start is not None
        goal = math.log(self.target * self.ratio)
        begin = max(goal, math.log(self.start))
        done = min(1.0, 2 * max(0, self.step - self.warmup) / max(1, self.steps - self.warmup))
        reference = begin + done * (goal - begin)
        return max(-1.0, min(1.0, math.log(self.smoothed) - reference))

    def state(self) -> dict[str, Any]:
        """Everything that changes, for a checkpoint."""
        return asdict(self)


@dataclass
class AccuracyController:
    """λ from validation accuracy, epoch by epoch: up while accuracy can be spared, down when it is overspent.

    The factor is 2 to the power of the accuracy left over, in units of the allowed drop, at most 2 either way; so λ
    comes to rest where the drop is spent.
    """

    floor: float
    scale: float
    penalty: float

    RANGE = 16.0

    def validated(self, accuracy: float, first: float) -> None:
        """Take in a validation accuracy; ``first`` is the λ that the run began with."""
        left = max(-1.0, min(1.0, (accuracy - self.floor) / self.scale))
        self.penalty = max(first / self.RANGE, min(first * self.RANGE, self.penalty * 2.0**left))
