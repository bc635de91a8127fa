"""Steering λ: towards a density that is to be reached, or as far as accuracy allows."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from deltafine.document.history import FrontPoint
from deltafine.refinement.thresholds.budget import Budget
from deltafine.settings import RefineSettings

FIRST_PAID = 3.6
"""λ times the density at the start, where λ is the default for classes and would be larger: beside a task's loss of
about 1, more tears a network that events cost much from what it knows."""
FASTEST = 8.0
"""Gently, the density falls by so much in half of the training at most: faster, and accuracy shows too late that it was
too far."""
LEAST_DENSITY = 1e-9
"""Of a network that sends nothing any more: it has a logarithm."""
RETURNED = 0.5
"""Factor on λ where a training goes back to earlier weights."""
SMALLEST_SCALE = 0.01
"""Accuracy that is spent or saved is measured by the budget, but by no less."""


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
    ratio is measured again at every validation.
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
    aim: float | None = None  # what to keep to, in place of a reference that falls to the target

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
        if self.aim is not None:
            return max(-1.0, min(1.0, math.log(self.smoothed) - math.log(max(self.aim * self.ratio, LEAST_DENSITY))))
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
    """λ from validation accuracy: up while accuracy can be spared, down when it is overspent.

    The factor is 2 to the power of the accuracy left over, in units of the allowed drop, at most 2 either way; so λ
    comes to rest where the drop is spent, or at ``most``. The end of the training, with its small learning rates,
    wins back some of what was lost: before, more is tolerated. Where no recalibration lets λ move the thresholds, a
    factor on all of them leads the accuracy to where the drop is spent.

    ``gently``, what is left or missing is measured by more than one allowed drop, and counts less and less towards the
    end: the accuracy of few videos scatters by more than that, and what follows it at once swings around the budget.
    """

    floor: float
    scale: float
    penalty: float
    most: float = math.inf
    gently: bool = False
    tolerance: float = 2.0  # what may be lost at the very beginning, beside the allowed drop and in units of it

    RANGE = 16.0
    SETTLED = 0.75
    """Share of the training after which nothing is tolerated any more."""

    FAR, FAR_FACTOR = 10.0, 8.0
    """More than so many allowed drops below the floor, λ falls at once by so much. A training does not come back from
    there within what is left of it."""
    WIDTH, END = 3.0, 0.25
    """Gently: allowed drops that are answered in proportion; share of the answer that is left at the end."""
    THRESHOLDS = 1.2
    """Factor by which thresholds grow or shrink at most after an epoch; where half of the allowed drop is left or
    missing, they do."""

    def left(self, accuracy: float, done: float) -> float:
        """Accuracy that can be spared, in units of the allowed drop, -1 to 1; ``done`` of the training is over."""
        left = self.away(accuracy, done)
        if not self.gently:
            return max(-1.0, min(1.0, left))
        return max(-1.0, min(1.0, left / self.WIDTH)) * (1 - (1 - self.END) * min(1.0, done))

    def away(self, accuracy: float, done: float) -> float:
        """How far an accuracy is above what is tolerated now, in units of the allowed drop."""
        return (accuracy - self.floor) / self.scale + self.tolerance * max(0.0, 1 - done / self.SETTLED)

    def factor(self, accuracy: float, done: float) -> float:
        """On all thresholds, where they are not calibrated again."""
        return float(self.THRESHOLDS ** max(-1.0, min(1.0, 2 * self.left(accuracy, done))))

    def validated(self, accuracy: float, first: float, done: float = 1.0) -> None:
        """Take in a validation accuracy.

        Args:
            accuracy: of the model, where learning has caught up with its thresholds.
            first: the λ that the run began with.
            done: share of the training that is over.
        """
        wrecked = (self.floor - accuracy) / self.scale > self.FAR
        self.penalty *= 1 / self.FAR_FACTOR if wrecked else 2.0 ** self.left(accuracy, done)
        self.penalty = max(first / self.RANGE, min(first * self.RANGE, self.most, self.penalty))


class PacedController:
    """λ from the density of events, which accuracy allows to fall from epoch to epoch, at a pace.

    A λ that follows the accuracy of few videos swings, and with it a density that answers to λ: weights that a large λ
    has torn do not come back under a small one. Here the density has an aim, which λ follows step by step. The aim
    falls by the pace after each epoch within the budget, and stays after one that is outside. In the second half of the
    training it rises after one that is far outside: before, large learning rates cost accuracy that no smaller λ wins
    back, and that the end of the training does. At the end it falls no more. An epoch counts by the mean of its
    accuracy and that of the one before.

    Args:
        accuracy: tells how far an epoch is from the budget.
        density: what λ comes from; its aim is led.
        pace: factor on the aim.
    """

    FAR = 3.0
    """Allowed drops below the floor, from which on the aim rises."""
    AHEAD = 0.75
    """Of the density, which the aim is at least. Farther ahead, λ has grown too much before accuracy shows it."""
    FALLS_UNTIL = 0.85
    """Share of the training. Small learning rates win back what was lost, as long as nothing more is asked of them."""
    RISES_AFTER = 0.5
    """Share of the training."""
    TOLERANCE = 6.0
    """Beside what calibration has lost. Nothing is torn here, and the end of the training wins back more."""

    def __init__(self, accuracy: AccuracyController, density: TargetController, pace: float) -> None:
        self._accuracy, self._density, self._pace = accuracy, density, pace
        self.last: float | None = None

    def begin(self, point: FrontPoint) -> None:
        """Take in what the training starts from, and its λ. What calibration has lost, training has yet to win back."""
        accuracy = self._accuracy
        accuracy.tolerance = self.TOLERANCE + max(0.0, (accuracy.floor - point.judged) / accuracy.scale)
        self._density.aim, self._density.penalty = point.mac_density * self._pace, accuracy.penalty

    def validated(self, accuracy: float, density: float, done: float) -> None:
        """Take in what an epoch came to; ``done`` of the training is over."""
        assert self._density.aim is not None
        mean = accuracy if self.last is None else (accuracy + self.last) / 2
        self.last = accuracy
        left, aim = self._accuracy.away(mean, done), self._density.aim
        if accuracy >= self._accuracy.floor:
            self._accuracy.tolerance = min(self.TOLERANCE, self._accuracy.tolerance)  # what was lost is won back
        if left >= 0:
            aim = max(min(aim, density) * self._pace, density * self.AHEAD) if done < self.FALLS_UNTIL else aim
        else:
            rises = done > self.RISES_AFTER and left <= -self.FAR
            aim = max(aim, density) / (self._pace if rises else 1.0)
        self._density.aim = min(1.0, aim)

    @property
    def tolerance(self) -> float:
        """What may be lost at the very beginning, beside the allowed drop and in units of it."""
        return self._accuracy.tolerance

    def go_on(self, density: float, penalty: float) -> None:
        """From weights with this density, and with this λ."""
        self._density.aim, self.last = density, None
        if penalty > 0:
            self._density.integral = math.log(penalty / self._density.penalty)


class Steering:
    """λ in the course of a training, before warm-up: as it was set, or steered towards the budget.

    Args:
        settings: of the run.
        budget: what it is to come to.
        floor: validation accuracy that it may fall to.
        steps: of the whole training.
        warmup: steps in which λ rises.
        epochs: of the whole training.
        paced: whether the density answers to λ, since thresholds are trained; see :class:`PacedController`.
    """

    def __init__(
        self,
        settings: RefineSettings,
        budget: Budget,
        floor: float,
        steps: int,
        warmup: int,
        epochs: int = 1,
        *,
        paced: bool = False,
    ) -> None:
        self._budget, self._first = budget, settings.first_penalty
        self._target: TargetController | None = None
        self._accuracy: AccuracyController | None = None
        self._start_density, self._large = 0.0, False
        self._slowest = FASTEST ** (-2 / epochs)
        self._density, self._fall = 0.0, 1.0  # after the last epoch, beside what the pace allows
        self._before = self._began = math.inf  # λ of the epoch that was validated last; what the training began with
        if budget.density is not None:
            self._target = TargetController(budget.density, steps, self._first, warmup)
        if budget.steers:
            self._large = settings.of_classes and settings.penalty is None  # the default for classes: it only falls
            most = self._first if self._large else math.inf
            scale = max(budget.drop, SMALLEST_SCALE)
            self._accuracy = AccuracyController(floor, scale, self._first, most, gently=settings.of_classes)
        self._paced: PacedController | None = None
        if paced and self._accuracy is not None:
            self._target = TargetController(0.0, steps, self._first, warmup)
            self._paced = PacedController(self._accuracy, self._target, self._slowest)

    @property
    def strength(self) -> float:
        """λ for the next step."""
        if self._target is not None:
            return self._target.strength
        return self._accuracy.penalty if self._accuracy is not None else self._first

    def before_training(self, point: FrontPoint) -> None:
        """Take in what the calibrated network comes to."""
        self._start_density = self._budget.density_of(point)
        self._density, self._began = point.mac_density, point.judged
        if self._accuracy is not None and self._large and point.mac_density > 0:
            self._accuracy.penalty = min(self._accuracy.penalty, FIRST_PAID / point.mac_density)
        if self._paced is not None:
            self._paced.begin(point)

    def after_batch(self, expected: float, batches: int, *, first_epoch: bool) -> None:
        """Take in the expected density of a training batch, of an epoch of so many ``batches``."""
        if self._target is None:
            return
        self._target.update(expected)
        if self._target.step == min(10, batches) and first_epoch:
            self._target.validated(self._start_density)

    def after_epoch(self, point: FrontPoint, done: float = 1.0, *, caught_up: bool = True) -> None:
        """Take in what the network came to on the validation streams.

        Args:
            point: what was measured.
            done: share of the training that is over.
            caught_up: whether learning has caught up with the thresholds, as far as it is going to.
        """
        if self._target is not None:
            self._target.validated(self._budget.density_of(point))
        if self._paced is not None:
            self._before = self.strength
            self._paced.validated(point.judged, point.mac_density, done)
            assert self._accuracy is not None
            if point.judged >= self._accuracy.floor:
                self._began = max(self._began, point.judged)  # it may begin far outside the budget, but not stay there
        if self._accuracy is None or self._paced is not None or not caught_up:
            return
        penalty = self._before = self._accuracy.penalty
        self._accuracy.validated(point.judged, self._first, done)
        if self._accuracy.gently:
            self._fall = point.mac_density / (self._slowest * self._density) if self._density else 1.0
            self._density = point.mac_density
            if self._fall < 1:  # nothing is pushed that goes too fast by itself
                self._accuracy.penalty = min(self._accuracy.penalty, penalty * max(0.5, self._fall))

    def wrecked(self, point: FrontPoint, done: float) -> bool:
        """Whether what the network came to is so far outside the budget that the training should go back."""
        accuracy = self._accuracy
        if accuracy is None or min(accuracy.floor, self._began) - point.judged <= accuracy.FAR * accuracy.scale:
            return False
        return self._paced is None or accuracy.away(point.judged, done) < -accuracy.FAR

    def go_back(self, point: FrontPoint | None) -> None:
        """Go on from a point that was measured earlier, or from the start, with a smaller λ than led away from it."""
        assert self._accuracy is not None
        smallest = self._first / self._accuracy.RANGE
        if point is not None:
            self._accuracy.penalty = max(RETURNED * min(point.penalty, self._before), smallest)
        if self._paced is not None:
            density = self._start_density if point is None else point.mac_density
            penalty = max(RETURNED * self._before, smallest) if point is None else self._accuracy.penalty
            self._paced.go_on(density, penalty)
        self._density, self._fall = 0.0 if point is None else point.mac_density, 1.0

    def spent(self, point: FrontPoint, done: float) -> bool:
        """Whether nothing is left that larger thresholds could cost."""
        return self._accuracy is not None and self._accuracy.left(point.judged, done) <= 0

    def factor(self, point: FrontPoint, done: float) -> float:
        """On all thresholds after an epoch, so that what is left of the training ends within the budget."""
        if self._accuracy is None or self._paced is not None:
            return 1.0
        factor = self._accuracy.factor(point.judged, done)
        return min(1.0, factor) if self._fall < 1 else factor

    def state(self) -> dict[str, Any]:
        """Everything that changes, for a checkpoint."""
        return {
            "target": None if self._target is None else {**self._target.state(), "first": self._start_density},
            "spending": None if self._accuracy is None else self._accuracy.penalty,
            "pace": [self._density, self._fall],
            "began": self._began,
            "paced": None if self._paced is None else [self._paced.last, self._paced.tolerance],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's ``state``."""
        if state["target"] is not None:
            self._start_density = state["target"]["first"]
            rest = {name: value for name, value in state["target"].items() if name != "first"}
            assert self._target is not None
            for name, value in rest.items():  # others are led through it
                setattr(self._target, name, value)
        if self._accuracy is not None:
            self._accuracy.penalty = state["spending"]
        self._density, self._fall = state.get("pace", (0.0, 1.0))  # runs of earlier versions kept none
        self._began = state.get("began", math.inf)
        if state["target"] is None:  # of a version that followed accuracy alone: it goes on as it was begun
            self._paced = self._target = None
        if self._paced is not None and self._accuracy is not None:
            self._paced.last, self._accuracy.tolerance = state["paced"]
