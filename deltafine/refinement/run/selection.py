"""Which model a run takes in the end, of its epochs and of models that are only calibrated; trimmed to the budget."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from deltafine.document.history import FrontPoint
from deltafine.errors import DeltafineError, DeltafineWarning
from deltafine.model import delta_layers
from deltafine.refinement.run import checkpoints
from deltafine.refinement.run.front import front, pick, worth_keeping
from deltafine.refinement.thresholds import trimming as trim
from deltafine.refinement.thresholds.budget import Budget
from deltafine.refinement.training.validation import Validation
from deltafine.storage import run_files
from deltafine.storage.files import discard

KEPT_CHECKPOINTS = 8
MOST_TIGHTENED = 3
TIGHTER = ((0.85, 1.0), (0.8, 0.7), (0.65, 0.7), (0.5, 0.5))
"""What is tried with epochs that are over the budget, until one is within: a factor on the thresholds, and how far the
weights go from the original's to those of the epoch (WiSE-FT, arXiv 2109.01903). At most so many epochs are tried.
"""
WORTH_TRAINING = 1.25
"""By so much a trained model has to be sparser than one with the original's weights, which leave less to chance."""
NEAR = (1.1, 1.25, 1.5)
"""Factors of a target density. Nearer, less is lost on the way there: an epoch of each is brought to the target."""
AS_DENSE = 0.9
"""What needs at least this share of the MACs of another epoch tells how that one might have been without luck."""
AS_SPARSE = 1.25
"""What needs at most so many times the MACs of the sparsest epoch is one to go back to."""
LEAST_SCALE = 1e-3
"""Of the thresholds: a network that stands still with even smaller ones has nothing left to wake."""


SMALLER = (0.8, 0.6)
"""Factors on the thresholds of a calibrated model that is over the budget, tried until one is within."""


class Choice:
    """The measured epochs of a run.

    Args:
        student: clip model that is given the weights of an epoch.
        validation: of the student.
        budget: what the run is to come to.
        folder: of the checkpoints.
        calibrated: thresholds of each delta layer (their logarithms) by the divergence that they spend: models that
            need no training. The weights are those that the student has now.
        scale_that_follows: the factor on the student's thresholds with which it does not stand still inside; 1 if it
            does not anyway.

    Attributes:
        points: what was measured.
        floor: accuracy on the validation videos that the budget allows.
        epochs: of the whole training. Of these, the first half is not chosen from where the training came to its end.
            At large learning rates weights change much from one epoch to the next, and other videos show it more than
            those that an epoch was judged by.
    """

    def __init__(
        self,
        student: keras.Model,
        validation: Validation,
        budget: Budget,
        folder: Path,
        calibrated: Mapping[float, Sequence[np.ndarray]],
        scale_that_follows: Callable[[], float],
    ) -> None:
        self.points: list[FrontPoint] = []
        self.floor = -math.inf
        self.epochs = 0
        self._student, self._validation, self._budget, self._folder = student, validation, budget, folder
        self._calibrated, self._start = calibrated, [np.array(variable) for variable in student.variables]
        self._scale_that_follows = scale_that_follows

    @property
    def _original(self) -> float:
        """Accuracy of the original on the validation videos."""
        return self.floor + self._budget.drop

    @property
    def front(self) -> list[FrontPoint]:
        """What no other checkpoint beats, and what was chosen."""
        found = front(self.points)
        chosen = [point for point in self.points if point.chosen and point not in found]
        return sorted([*found, *chosen], key=lambda point: point.mac_density)

    @property
    def front_of_epochs(self) -> list[FrontPoint]:
        """Epochs that no other epoch beats."""
        return front(self._trained)

    def try_calibrated(self) -> None:
        """Measure the calibrated models, from the one that follows most closely on, until two are over the budget."""
        over = 0
        trained = [np.array(variable) for variable in self._student.variables]
        try:
            for divergence in sorted(self._calibrated):
                candidate = FrontPoint(
                    epoch=0, penalty=0, accuracy=0, mac_density=1, pixel_density=1, divergence=divergence
                )
                self.points.append(self._measure_scaled(candidate, 1.0))
                over += self.points[-1].judged < self.floor
                if over == 2:
                    break
        finally:
            self._assign(trained)

    def keep(self, number: int) -> None:
        """Write the student's weights after an epoch, if they are worth keeping."""
        if number in self._kept_epochs():
            checkpoints.save(self._weights_of(number), self._student.variables, {"epoch": number})

    def go_back(self) -> FrontPoint | None:
        """Give the student the weights of one of the sparsest epochs within the budget, else those of the start.

        The sparsest of all may be where the network is about to break: one that needs little more is safer.

        Returns:
            The epoch; None for the start.
        """
        there = self._files()
        within = [point for point in self._trained if point.judged >= self.floor and point.epoch in there]
        if not within:
            self._assign(self._start)
            return None
        densest = AS_SPARSE * self._pick(within).mac_density
        point = max((point for point in front(within) if point.mac_density <= densest), key=lambda point: point.judged)
        self._load(point)
        return point

    def tidy(self) -> None:
        """Remove the weights that are not worth keeping any more."""
        kept = self._kept_epochs()
        for epoch, file in self._files().items():
            if epoch not in kept:
                file.unlink(missing_ok=True)

    def remove_damaged(self) -> None:
        """Remove weights that are not as they were written; said in a ``DeltafineWarning``."""
        for epoch, file in self._files().items():
            try:
                checkpoints.check(file)
            except checkpoints.Damaged as error:
                discard(file)
                said = f"The weights of epoch {epoch} are not chosen, since they are lost: {error.reason}."
                warnings.warn(said, DeltafineWarning, stacklevel=2)

    def any_weights(self, points: list[FrontPoint]) -> bool:
        """Whether the weights of any of the epochs among these points are there; True where there are none."""
        epochs = {point.epoch for point in points if point.epoch}
        return not epochs or not self._files().keys().isdisjoint(epochs)

    def loadable(self, points: list[FrontPoint]) -> list[FrontPoint]:
        """The points without those of which the weights were kept and are lost."""
        self.points = points
        files = self._files()
        if not points or all(epoch in files for epoch in self._kept_epochs()):
            return points
        # What was not kept beside weights that are lost now cannot be chosen in their place.
        return [point for point in points if not point.epoch or point.epoch in files]

    def make(self, penalty: float, number: int | None = None) -> list[str]:
        """Give the student the weights of the best checkpoint, trimmed to the budget; or those of epoch ``number``.

        Args:
            penalty: λ that the training ended with.
            number: of the epoch to take.

        Returns:
            What the user should know about it.

        Raises:
            DeltafineError: epoch ``number`` was not kept.
        """
        if number is not None:
            chosen = self._kept_point(number)
        elif self._budget.density is not None:
            chosen = self._trim_to_target()
        else:
            self._tighten(self._pick(self._candidates))
            self._come_between(self._worth_training(self._pick(self._candidates)))
            chosen = self._worth_training(self._pick(self._candidates))
            if self._budget.spend and chosen.judged >= self.floor:
                chosen = self._trim_to_accuracy(chosen)
        # An epoch or a density that was asked for is given, with a word of warning.
        chosen, said = self._following(chosen, keep=number is not None or self._budget.density is not None)
        self._load(chosen)
        self.points = [point.model_copy(update={"chosen": point == chosen}) for point in self.points]
        return said if number is not None else [*said, *self._shortfall(chosen, penalty)]

    def reached(self) -> bool:
        """Whether what was chosen comes to the density that was asked for; True where none was."""
        return all(self._budget.reached(point) for point in self.points if point.chosen)

    def best_so_far(self) -> bool:
        """Give the student the best weights so far; False if no epoch was over."""
        # An epoch that was being kept when the user stopped may have no file yet.
        epochs = [point for point in self._trained if self._weights_of(point.epoch).exists()]
        if epochs:
            self._load(self._pick([*(point for point in self.points if not point.epoch), *epochs]))
        return bool(epochs)

    @property
    def _trained(self) -> list[FrontPoint]:
        return [point for point in self.points if point.epoch]

    @property
    def _settled(self) -> list[FrontPoint]:
        """What may be chosen: epochs of the second half, and models that are only calibrated.

        Where none of these epochs is within the budget, those of the first half that are expected to lose nothing.
        """
        begin = self.epochs / 2 if any(2 * point.epoch >= self.epochs for point in self._trained) else 0
        late = [point for point in self._trained if point.epoch >= begin and not self._by_luck(point)]
        lossless = math.inf if any(point.judged >= self.floor for point in late) else self._original
        early = [point for point in self._trained if point.epoch < begin and point.judged >= lossless]
        return [*(point for point in self.points if not point.epoch), *early, *late]

    @property
    def _candidates(self) -> list[FrontPoint]:
        """Of what may be chosen, that whose weights were kept: luck may show after others were not."""
        there = self._files()
        return [point for point in self._settled if not point.epoch or point.epoch in there]

    def _by_luck(self, point: FrontPoint) -> bool:
        """Whether an epoch is within the budget, and in the mean with those before and after it would not be.

        Of many epochs that scatter around the floor, the sparsest that is above it is the one with the most luck. An
        epoch that is a good deal sparser says nothing about it. One that was over the budget, and is not when tried
        once more with smaller thresholds, should lose nothing.
        """
        if point.threshold_scale < 1 or point.trained_share < 1:
            return self.floor <= point.judged < self._original
        if point.judged < self.floor or point.threshold_scale != 1:
            return False
        near = [
            other.judged
            for other in self._trained
            if abs(other.epoch - point.epoch) <= 1
            and other.threshold_scale == other.trained_share == 1
            and other.mac_density >= AS_DENSE * point.mac_density
        ]
        return sum(near) / len(near) < self.floor

    def _pick(self, points: Sequence[FrontPoint]) -> FrontPoint:
        return pick(points, self._original, self._budget.drop)

    def _worth_training(self, chosen: FrontPoint) -> FrontPoint:
        """What was chosen, or a calibrated model that is within the budget and nearly as sparse."""
        near = [
            point
            for point in self.points
            if not point.epoch
            and point.judged >= self.floor
            and point.mac_density <= WORTH_TRAINING * chosen.mac_density
        ]
        return min(near, key=lambda point: point.mac_density) if chosen.epoch and near else chosen

    def _kept_epochs(self) -> set[int]:
        trained = self._trained
        if not trained:
            return set()
        settled = [point for point in self._settled if point.epoch]
        kept = {
            point.epoch
            for points in (trained, settled)
            for point in worth_keeping(points, self._original, self._budget.drop, KEPT_CHECKPOINTS)
        }
        if self._budget.density is not None:
            kept |= {point.epoch for point in self._nearest_target(trained)}
        return kept

    def _weights_of(self, epoch: int) -> Path:
        return self._folder / run_files.epoch_file(epoch)

    def _files(self) -> dict[int, Path]:
        """The weights that are there, by epoch."""
        found = {run_files.epoch_of(file.name): file for file in sorted(self._folder.glob("*"))}
        return {epoch: file for epoch, file in found.items() if epoch is not None}

    def _load(self, point: FrontPoint) -> None:
        if point.divergence is None:
            checkpoints.restore(self._weights_of(point.epoch), self._student.variables)
            self._go_back_to_start(1 - point.trained_share)
        else:
            self._assign(self._start)
            deltas = delta_layers(self._student).values()
            for layer, threshold in zip(deltas, self._calibrated[point.divergence], strict=True):
                layer.log_threshold.assign(threshold)
        if point.threshold_scale != 1:
            for layer in delta_layers(self._student).values():
                layer.set_threshold(np.exp(np.asarray(layer.log_threshold)) * point.threshold_scale)

    def _go_back_to_start(self, share: float) -> None:
        """Move the weights and statistics, not the thresholds, towards those of the original by a share of the way."""
        if not share:
            return
        thresholds = {id(layer.log_threshold) for layer in delta_layers(self._student).values()}
        for variable, start in zip(self._student.variables, self._start, strict=True):
            if id(variable) not in thresholds and variable.dtype.startswith("float"):
                variable.assign((1 - share) * np.asarray(variable) + share * start)

    def _assign(self, values: Sequence[np.ndarray]) -> None:
        for variable, value in zip(self._student.variables, values, strict=True):
            variable.assign(value)

    def _kept_point(self, number: int) -> FrontPoint:
        points = [p for p in self.points if p.epoch == number and p.threshold_scale == p.trained_share == 1]
        if not points or not self._weights_of(number).exists():
            raise DeltafineError(
                f"Epoch {number} of the run in {self._folder.parent} was not kept: pick one of "
                f"{', '.join(map(str, self._files()))}."
            )
        return points[0]

    def _nearest_target(self, points: Sequence[FrontPoint]) -> list[FrontPoint]:
        """The most accurate of the points within each of the factors ``NEAR`` of the target, else the nearest."""
        found: list[FrontPoint] = []
        for factor in NEAR:
            near = [point for point in points if self._away(point) <= math.log(factor)]
            if near and (best := max(near, key=lambda point: (point.judged, point.epoch))) not in found:
                found.append(best)
        return found or [min(points, key=lambda point: (self._away(point), point.epoch))]

    def _away(self, point: FrontPoint) -> float:
        return abs(trim.excess(self._budget, point))

    def _trim_to_target(self) -> FrontPoint:
        """The most accurate model at the target, of an epoch or calibrated; the nearest if none is there."""
        ends = []
        for points in (self._trained, [point for point in self.points if not point.epoch]):
            for start in self._nearest_target(points) if points else ():
                tried = trim.to_density(self._budget, start, lambda scale: self._measure_scaled(start, scale))  # noqa: B023
                self.points += tried
                ends.append(min([start, *tried], key=self._away))
        reached = [point for point in ends if self._budget.reached(point)]
        return max(reached, key=lambda point: point.judged) if reached else min(ends, key=self._away)

    def _tighten(self, chosen: FrontPoint) -> None:
        """Try epochs that are sparser than what is chosen, but over the budget, nearer to the original."""
        trained = [point for point in self._settled if point.epoch]
        sparser = [point for point in front(trained) if point.mac_density < chosen.mac_density]
        for start in sorted(sparser, key=lambda point: -point.judged)[:MOST_TIGHTENED]:
            if not self._weights_of(start.epoch).exists():
                continue
            for scale, share in TIGHTER:
                tried = self._measure_scaled(start, scale, share)
                self.points.append(tried)
                if tried.judged >= self._original:
                    break

    def _come_between(self, chosen: FrontPoint) -> None:
        """Where a calibrated model is chosen, try the next sparser one with smaller thresholds."""
        calibrated = [point for point in self.points if point.divergence is not None]
        sparser = [point for point in calibrated if point.mac_density < chosen.mac_density]
        if chosen not in calibrated or not sparser:
            return
        start = max(sparser, key=lambda point: point.mac_density)
        for scale in SMALLER:
            tried = self._measure_scaled(start, start.threshold_scale * scale)
            self.points.append(tried)
            if tried.judged >= self.floor:
                break

    def _trim_to_accuracy(self, start: FrontPoint) -> FrontPoint:
        tried = trim.to_accuracy(self.floor, lambda scale: self._measure_scaled(start, scale))
        self.points += tried
        return self._pick([start, *tried])

    def _measure_scaled(self, start: FrontPoint, scale: float, share: float | None = None) -> FrontPoint:
        share = start.trained_share if share is None else share
        self._load(start.model_copy(update={"threshold_scale": scale, "trained_share": share}))
        figures, trained = self._validation.student(), start.divergence is None
        measured = self._validation.point(start.epoch, start.penalty, figures, scale, trained=trained)
        return measured.model_copy(update={"divergence": start.divergence, "trained_share": share})

    def _following(self, chosen: FrontPoint, *, keep: bool) -> tuple[FrontPoint, list[str]]:
        """The point with thresholds at which it does not stand still inside, unless ``keep``; and what is said of it.

        Where the answer never changes, accuracy is no reason for a training to update anything. Where it does, good
        answers show that the network follows.
        """
        self._load(chosen)
        scale = self._scale_that_follows()
        if scale == 1 or self._validation.answers_follow():
            return chosen, []
        still = (
            "The refined model hardly changed inside while the videos did, though its answers stayed as good: they "
            "cannot show what it has lost; refine on videos in which the answer changes, or lower the penalty."
        )
        if keep or scale < LEAST_SCALE:
            return chosen, [still]
        awake = self._measure_scaled(chosen, chosen.threshold_scale * scale)
        self.points.append(awake)
        return awake, [f"{still} All its thresholds were divided by {1 / scale:.0f}, so that it follows them."]

    def _shortfall(self, chosen: FrontPoint, penalty: float) -> list[str]:
        budget, lost = self._budget, self._original - chosen.judged
        if budget.density is not None:
            if budget.reached(chosen):
                return []
            return [
                f"The target of {budget.density:.4f} ({budget.kind} density) was not reached: the validation streams "
                f"reached {budget.density_of(chosen):.4f}. Train longer, or begin with another --penalty (it ended at "
                f"{penalty:.3g})."
            ]
        if lost > budget.drop:
            return [
                f"By the validation streams, nothing is expected to stay within {budget.drop:.3f} of the original's "
                f"accuracy; the most accurate ({_name_of(chosen)}) loses {lost:.3f}. Train longer, or lower the "
                "penalty."
            ]
        if chosen.divergence == 0:
            return [
                "By the validation streams, nothing that leaves out changes is expected to stay within "
                f"{budget.drop:.3f} of the original's accuracy: the refined model is the original, which needs "
                f"{chosen.mac_density:.1%} of its MACs where nothing is lost. Train longer, or allow a larger "
                "--max-accuracy-drop."
            ]
        if not chosen.epoch and self._trained:
            return [
                "Training gave nothing within the budget that is much sparser than calibration alone: the refined "
                "model has the original's weights. Train longer, or with another --penalty."
            ]
        return []


def _name_of(point: FrontPoint) -> str:
    return f"epoch {point.epoch}" if point.epoch else "calibrated"
