"""The training of a run, epoch by epoch: validated, steered, and saved so that it can go on anywhere."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deltafine.errors import DeltafineError
from deltafine.files import write_atomically
from deltafine.measurement.comparison import measure_streams
from deltafine.measurement.figures import Figures
from deltafine.measurement.probe import Probe
from deltafine.model import delta_layers
from deltafine.refinement import checkpoints, trim
from deltafine.refinement.budget import AccuracyController, Budget, TargetController
from deltafine.refinement.candidates import front, pick, worth_keeping
from deltafine.refinement.history import Epoch, FrontPoint, to_csv
from deltafine.refinement.interruption import Requests
from deltafine.refinement.listener import Listener
from deltafine.refinement.logs import Logs
from deltafine.refinement.preparation import Prepared
from deltafine.refinement.stability import MOST_ROLLBACKS, LossWatch, Unsound
from deltafine.refinement.training import Trainer

KEPT_CHECKPOINTS = 8


@dataclass
class Progress:
    """How far a training is: all that is not in the variables of the model and the optimisers.

    Attributes:
        batches: of the epoch that is under way.
        sums: of the loss, the penalty and the accuracy over these batches.
        history: epochs that are over.
        points: what was measured of them.
        watch: notices a loss that runs away.
        mishaps: what the training had to go back for.
    """

    batches: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    history: list[Epoch] = field(default_factory=list)
    points: list[FrontPoint] = field(default_factory=list)
    watch: LossWatch = field(default_factory=LossWatch)
    mishaps: list[str] = field(default_factory=list)


class Training:
    """Trains the student of a run.

    Args:
        prepared: model, data and settings of the run.
        original: clip model to compare with.
        student: clip model with delta layers, changed in place.
        trainer: of the student.
        out: the run directory.
        listener: told how far the training is.
        requests: what stops the training.
    """

    def __init__(
        self,
        prepared: Prepared,
        original: Any,
        student: Any,
        trainer: Trainer,
        out: Path,
        listener: Listener,
        requests: Requests,
    ) -> None:
        self.prepared = prepared
        self.settings = prepared.settings
        self.budget = Budget.of(self.settings)
        self.out = out
        self.listener = listener
        self.progress = Progress()
        self._student, self._trainer = student, trainer
        self._original_probe, self._probe = Probe(original), Probe(student)
        self._variables = [*student.variables, *trainer.state]
        self._to_target: TargetController | None = None
        self._to_accuracy: AccuracyController | None = None
        self._floor = -math.inf
        self._start_density = 0.0
        self._requests = requests

    @property
    def checkpoint(self) -> Path:
        """Everything needed to go on."""
        return self.out / "checkpoints" / "last.h5"

    @property
    def front(self) -> list[FrontPoint]:
        """What no other checkpoint beats, and what was chosen."""
        found = front(self.progress.points)
        chosen = [point for point in self.progress.points if point.chosen and point not in found]
        return sorted([*found, *chosen], key=lambda point: point.mac_density)

    def run(self, *, resume: bool = False) -> None:
        """Train all epochs, from the last checkpoint on where there is one to resume from.

        Raises:
            Interrupted: on Ctrl-C or SIGTERM, after a checkpoint was written; the student is then the best so far.
        """
        resuming = resume and self.checkpoint.exists()
        measured = self._validate({"original": self._original_probe} if resuming else self._both())
        self._floor = quality(measured["original"]) - self.budget.drop
        self._start_controllers(None if resuming else measured["refined"])
        if resuming:
            self._restore()
            self._tidy()
        else:
            self._save()
        while not self._over():
            try:
                self._one_epoch()
            except Unsound as error:
                self._go_back(error)

    def choose(self, number: int | None = None) -> list[str]:
        """Give the student the weights of the best checkpoint, trimmed to the budget; or those of epoch ``number``.

        Returns:
            What the user should know about it.

        Raises:
            DeltafineError: epoch ``number`` was not kept.
        """
        points = self.progress.points
        if number is not None:
            chosen = self._kept_point(number)
        elif self.budget.density is not None:
            chosen = self._trim_to_target()
        else:
            chosen = pick(points, self._floor + self.budget.drop, self.budget.drop)
            if self.budget.spend and chosen.accuracy >= self._floor:
                chosen = self._trim_to_accuracy(chosen)
        self._load(chosen)
        self.progress.points = [point.model_copy(update={"chosen": point == chosen}) for point in self.progress.points]
        return [*self.progress.mishaps, *([] if number is not None else self._shortfall(chosen))]

    def best_so_far(self) -> bool:
        """Give the student the best weights so far; False if no epoch was over."""
        # An epoch that was being kept when the user stopped may have no file yet.
        points = [point for point in self.progress.points if self._weights_of(point.epoch).exists()]
        if points:
            self._load(pick(points, self._floor + self.budget.drop, self.budget.drop))
        return bool(points)

    def _over(self) -> bool:
        history, patience = self.progress.history, self.settings.early_stopping
        if len(history) >= self.settings.epochs:
            return True
        if patience is None or len(history) <= patience:
            return False
        recent = {epoch.epoch for epoch in history[-patience:]}
        return not any(point.epoch in recent for point in self.front)

    def _both(self) -> dict[str, Probe]:
        return {"original": self._original_probe, "refined": self._probe}

    def _validate(self, probes: dict[str, Probe]) -> dict[str, Figures]:
        def progress(what: str, done: int, total: int) -> None:
            self.listener.progress("validating", done, total)
            self._requests.obey()

        return measure_streams(
            probes,
            self.prepared.data,
            fps=self.settings.fps,
            spliced=True,
            output=self.prepared.output,
            progress=progress,
        )

    def _start_controllers(self, at_start: Figures | None) -> None:
        settings, budget = self.settings, self.budget
        if budget.density is not None:
            self._to_target = TargetController(
                budget.density, self._trainer.steps, settings.penalty, self._trainer.warmup_steps
            )
            if at_start is not None:
                self._start_density = budget.density_of(_point(0, 0.0, at_start))
        if budget.spend:
            self._to_accuracy = AccuracyController(self._floor, max(budget.drop, 0.01), settings.penalty)

    @property
    def _strength(self) -> float:
        """λ now, before warm-up."""
        if self._to_target is not None:
            return self._to_target.strength
        return self._to_accuracy.penalty if self._to_accuracy is not None else self.settings.penalty

    def _one_epoch(self) -> None:
        progress, trainer = self.progress, self._trainer
        number = len(progress.history) + 1
        started = saved = time.monotonic()
        source = self.prepared.clips("train", epoch=number, start_batch=progress.batches)
        steps = len(source)
        with Logs(self.out / "tensorboard" if self.settings.tensorboard else None) as logs:
            with self._requests.held():
                for batch in source:
                    figures = trainer.train_on_batch(batch.frames, batch.labels, self._strength)
                    progress.watch.see(figures[0], trainer.step)
                    self._steer(figures[1], steps)
                    progress.sums = [total + figure for total, figure in zip(progress.sums, figures, strict=True)]
                    progress.batches += 1
                    logs.step(trainer.step, figures, trainer.penalty)
                    self._tell(number, steps)
                    if self._requests.stop or time.monotonic() - saved > 60 * self.settings.checkpoint_minutes:
                        self._save()
                        saved = time.monotonic()
                        self._requests.obey()
                if not progress.batches:
                    raise DeltafineError(
                        f"No training video in {self.prepared.data.path} could be read any more in epoch {number}: put "
                        "them back, and go on with --resume."
                    )
                self._save()
            epoch = self._finish_epoch(number, started)
            logs.epoch(epoch, trainer.step)
        self.listener.epoch(epoch, self.settings.epochs)

    def _go_back(self, error: Unsound) -> None:
        """Go on from the last checkpoint with half the rates, if that is wanted.

        Raises:
            DeltafineError: it is not, or was tried too often.
        """
        mishaps, rate, epoch = self.progress.mishaps, self._trainer.rate / 2, len(self.progress.history) + 1
        if self.settings.on_nan == "stop" or len(mishaps) >= MOST_ROLLBACKS:
            raise DeltafineError(
                f"{error} (epoch {epoch}): lower --learning-rate or --penalty, or go on with --resume --on-nan "
                f"rollback, which halves the rates. The last good checkpoint is {self.checkpoint}."
            ) from error
        self._restore()
        self._trainer.rate = rate
        words = (
            f"{error}: went back to step {self._trainer.step} and on with the rates halved to {rate:g} of what was set."
        )
        self.progress.mishaps = [*mishaps, words]
        self._save()
        self.listener.say(words)

    def _steer(self, penalty: float, steps: int) -> None:
        controller = self._to_target
        if controller is None or not self._trainer.penalty:
            return
        controller.update(penalty / self._trainer.penalty)
        if controller.step == min(10, steps) and not self.progress.history:
            controller.validated(self._start_density)

    def _tell(self, number: int, steps: int) -> None:
        done, strength = self.progress.batches, self._trainer.penalty
        task, penalty, right = (total / done for total in self.progress.sums)
        expected = f"{penalty / strength:.3f}" if strength else "-"
        accuracy = f"accuracy {right:.3f}  " if math.isfinite(right) else ""
        words = f"loss {task + penalty:.3f}  {accuracy}expected MACs {expected}"
        self.listener.progress(f"epoch {number}", done, steps, words)

    def _finish_epoch(self, number: int, started: float) -> Epoch:
        progress, trainer = self.progress, self._trainer
        task, penalty, right = (total / progress.batches for total in progress.sums)
        probes = {"refined": self._probe} if self.prepared.labelled else self._both()
        measured = self._validate(probes)["refined"]
        point = _point(number, trainer.penalty, measured)
        epoch = Epoch(
            epoch=number,
            loss=task + penalty,
            task_loss=task,
            penalty_loss=penalty,
            penalty=trainer.penalty,
            accuracy=right if math.isfinite(right) else None,
            validation_accuracy=point.accuracy,
            validation_mac_density=point.mac_density,
            validation_pixel_density=point.pixel_density,
            seconds=round(time.monotonic() - started, 1),
        )
        if self._to_target is not None:
            self._to_target.validated(self.budget.density_of(point))
        if self._to_accuracy is not None:
            self._to_accuracy.validated(point.accuracy, self.settings.penalty)
        progress.history.append(epoch)
        progress.points.append(point)
        progress.batches, progress.sums = 0, [0.0, 0.0, 0.0]
        self._keep(number)
        return epoch

    def _keep(self, number: int) -> None:
        """Write this epoch's weights if they are worth keeping, and everything needed to go on."""
        if number in self._kept_epochs():
            checkpoints.save(self._weights_of(number), self._student.variables, {"epoch": number})
        self._save()
        self._tidy()

    def _kept_epochs(self) -> set[int]:
        points, drop = self.progress.points, self.budget.drop
        kept = {point.epoch for point in worth_keeping(points, self._floor + drop, drop, KEPT_CHECKPOINTS)}
        if self.budget.density is not None:
            kept.add(self._nearest_target().epoch)
        return kept

    def _tidy(self) -> None:
        """Bring the history on disk up to the last checkpoint, and remove the weights that were not worth keeping."""
        if not self.progress.history:
            return
        kept = self._kept_epochs()
        write_atomically(self.out / "history.csv", to_csv(self.progress.history).encode("utf-8"))
        for file in self.checkpoint.parent.glob("epoch-*.h5"):
            if int(file.stem.removeprefix("epoch-")) not in kept:
                file.unlink(missing_ok=True)

    def _save(self) -> None:
        progress = self.progress
        facts = {
            "settings": self.settings.hash_of_results(),
            "rate": self._trainer.rate,
            "watch": asdict(progress.watch),
            "mishaps": progress.mishaps,
            "step": self._trainer.step,
            "batches": progress.batches,
            "sums": progress.sums,
            "history": [epoch.model_dump() for epoch in progress.history],
            "points": [point.model_dump() for point in progress.points],
            "target": None if self._to_target is None else {**self._to_target.state(), "first": self._start_density},
            "penalty": self._trainer.penalty,
            "spending": None if self._to_accuracy is None else self._to_accuracy.penalty,
        }
        checkpoints.save(self.checkpoint, self._variables, facts)

    def _restore(self) -> None:
        facts = checkpoints.read_facts(self.checkpoint)
        if facts["settings"] != self.settings.hash_of_results():
            raise DeltafineError(f"The run in {self.out} has other settings: resume it with the same, or start anew.")
        checkpoints.restore(self.checkpoint, self._variables)
        self._trainer.step = facts["step"]
        self._trainer.rate = facts["rate"]
        self._trainer.set_penalty(facts["penalty"])
        self.progress = Progress(
            batches=facts["batches"],
            sums=facts["sums"],
            history=[Epoch.model_validate(entry) for entry in facts["history"]],
            points=[FrontPoint.model_validate(entry) for entry in facts["points"]],
            watch=LossWatch(**facts["watch"]),
            mishaps=facts["mishaps"],
        )
        if facts["target"] is not None:
            self._start_density = facts["target"].pop("first")
            self._to_target = TargetController(**facts["target"])
        if self._to_accuracy is not None:
            self._to_accuracy.penalty = facts["spending"]
        within = f" and {self.progress.batches} steps" if self.progress.batches else ""
        self.listener.say(f"resumed after epoch {len(self.progress.history)} of {self.settings.epochs}{within}")

    def _weights_of(self, epoch: int) -> Path:
        return self.checkpoint.parent / f"epoch-{epoch:04d}.h5"

    def _load(self, point: FrontPoint) -> None:
        checkpoints.restore(self._weights_of(point.epoch), self._student.variables)
        if point.step_scale != 1:
            for layer in delta_layers(self._student).values():
                layer.set_step(np.exp(np.asarray(layer.log_step)) * point.step_scale)

    def _kept_point(self, number: int) -> FrontPoint:
        points = [p for p in self.progress.points if p.epoch == number and p.step_scale == 1]
        if not points or not self._weights_of(number).exists():
            kept = sorted(int(file.stem.removeprefix("epoch-")) for file in self.checkpoint.parent.glob("epoch-*.h5"))
            raise DeltafineError(
                f"Epoch {number} of the run in {self.out} was not kept: pick one of {', '.join(map(str, kept))}."
            )
        return points[0]

    def _nearest_target(self) -> FrontPoint:
        """Of the epochs within a factor of 1.5 of the target the most accurate, else the nearest."""
        away = {point.epoch: abs(trim.excess(self.budget, point)) for point in self.progress.points}
        near = [point for point in self.progress.points if away[point.epoch] <= math.log(1.5)]
        if near:
            return max(near, key=lambda point: (point.accuracy, point.epoch))
        return min(self.progress.points, key=lambda point: (away[point.epoch], point.epoch))

    def _trim_to_target(self) -> FrontPoint:
        start = self._nearest_target()
        tried = trim.to_density(self.budget, start, lambda scale: self._measure_scaled(start, scale))
        self.progress.points += tried
        return min([start, *tried], key=lambda point: abs(trim.excess(self.budget, point)))

    def _trim_to_accuracy(self, start: FrontPoint) -> FrontPoint:
        tried = trim.to_accuracy(self._floor, lambda scale: self._measure_scaled(start, scale))
        self.progress.points += tried
        return pick([start, *tried], self._floor + self.budget.drop, self.budget.drop)

    def _measure_scaled(self, start: FrontPoint, scale: float) -> FrontPoint:
        point = start.model_copy(update={"step_scale": scale})
        self._load(point)
        measured = self._validate({"refined": self._probe} if self.prepared.labelled else self._both())["refined"]
        return _point(start.epoch, start.penalty, measured, scale)

    def _shortfall(self, chosen: FrontPoint) -> list[str]:
        budget, lost = self.budget, self._floor + self.budget.drop - chosen.accuracy
        if budget.density is not None:
            if budget.reached(chosen):
                return []
            return [
                f"The target of {budget.density:.4f} ({budget.kind} density) was not reached: the validation streams "
                f"came to {budget.density_of(chosen):.4f}. Train longer, or begin with another --penalty (it ended at "
                f"{self._trainer.penalty:.3g})."
            ]
        if lost > budget.drop:
            return [
                f"No epoch stayed within {budget.drop:.3f} of the original's accuracy on the validation streams; the "
                f"most accurate one (epoch {chosen.epoch}) lost {lost:.3f}. Train longer, or lower the penalty."
            ]
        return []


def _point(number: int, penalty: float, measured: Figures, scale: float = 1.0) -> FrontPoint:
    return FrontPoint(
        epoch=number,
        penalty=penalty,
        accuracy=quality(measured),
        mac_density=measured.operations.mac_density,
        pixel_density=measured.operations.pixel_density,
        delta_sparsity=measured.operations.delta_sparsity,
        step_scale=scale,
    )


def quality(figures: Figures) -> float:
    """Accuracy of frames or windows, or fidelity to the original where nothing is labelled.

    Of numbers: 1 - (error / spread)², the share of their variance that is explained.
    """
    accuracy = figures.frame_accuracy or figures.window_accuracy
    if accuracy is not None:
        return accuracy.value
    error = figures.label_error if figures.label_error is not None else figures.relative_error
    if error is not None:
        return 1 - error**2
    assert figures.fidelity is not None
    return figures.fidelity
