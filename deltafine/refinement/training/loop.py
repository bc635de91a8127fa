"""The training of a run, epoch by epoch: validated, steered, and saved so that it can go on anywhere."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from deltafine.document.figures import Figures
from deltafine.document.history import Epoch, FrontPoint, to_csv
from deltafine.errors import DeltafineError, DeltafineWarning, Interrupted
from deltafine.measurement.probe import Probe
from deltafine.model import delta_layers
from deltafine.refinement.listener import Listener
from deltafine.refinement.run import checkpoints
from deltafine.refinement.run.interruption import Requests
from deltafine.refinement.run.preparation import Prepared
from deltafine.refinement.run.selection import Choice
from deltafine.refinement.run.tensorboard import Logs
from deltafine.refinement.thresholds.budget import Budget
from deltafine.refinement.thresholds.calibration import calibration_videos
from deltafine.refinement.thresholds.following import scale_that_follows
from deltafine.refinement.training.carried_state import by_name
from deltafine.refinement.training.epochs_in_time import epochs_in, frames_of, seconds_per_step
from deltafine.refinement.training.stability import MOST_ROLLBACKS, LossWatch, Unsound
from deltafine.refinement.training.steering import Steering
from deltafine.refinement.training.step import Trainer
from deltafine.refinement.training.validation import Validation, quality
from deltafine.storage import run_files
from deltafine.storage.files import discard, write_atomically
from deltafine.workers import ALONE, Workers, from_bytes, to_bytes


@dataclass
class Progress:
    """How far a training is: all that is not in the variables of the model and the optimisers.

    Attributes:
        batches: of the epoch that is under way.
        sums: of the loss, the penalty and the accuracy over these batches.
        judged: how many of them have an accuracy: in the others, no clip has a label.
        history: epochs that are over.
        watch: notices a loss that diverges.
        mishaps: what the training had to go back for.
    """

    batches: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    judged: int = 0
    history: list[Epoch] = field(default_factory=list)
    watch: LossWatch = field(default_factory=LossWatch)
    mishaps: list[str] = field(default_factory=list)

    def add(self, task: float, penalty: float, right: float) -> None:
        """Take in what a batch came to."""
        known = math.isfinite(right)
        self.sums = [self.sums[0] + task, self.sums[1] + penalty, self.sums[2] + (right if known else 0.0)]
        self.judged += known
        self.batches += 1

    @property
    def means(self) -> tuple[float, float, float]:
        """Of the loss, the penalty and the accuracy; the last is NaN where no batch has one."""
        task, penalty, right = self.sums
        return task / self.batches, penalty / self.batches, right / self.judged if self.judged else math.nan


class Training:
    """Trains the student of a run.

    Args:
        prepared: model, data and settings of the run.
        original: clip model to compare with, or a probe of it.
        student: clip model with delta layers, changed in place.
        trainer: of the student.
        out: the run directory.
        listener: told how far the training is.
        requests: what stops the training.
        workers: who train; the first of them measures, decides and writes.
        started_with: digests of the model and the videos, for the checkpoint of the first worker.
        calibrated: thresholds of models that need no training, see :class:`Choice`.
        started: when the run was, by ``time.monotonic``.
    """

    def __init__(
        self,
        prepared: Prepared,
        original: keras.Model | Probe,
        student: keras.Model,
        trainer: Trainer,
        out: Path,
        listener: Listener,
        requests: Requests,
        workers: Workers = ALONE,
        *,
        started_with: Mapping[str, str],
        calibrated: Mapping[float, Sequence[np.ndarray]],
        started: float,
    ) -> None:
        self.prepared = prepared
        self.settings = prepared.settings
        self.budget = Budget.of(self.settings, prepared.judged_by)
        self.out = out
        self.listener = listener
        self.progress = Progress()
        self._trainer = trainer
        self._validation = Validation(prepared, original, student, listener, requests)
        self.choice = Choice(
            student, self._validation, self.budget, self.checkpoint.parent, calibrated, self._scale_that_follows
        )
        self._variables = [*student.variables, *trainer.state]
        self._started = started
        self._steering: Steering  # made once the original is measured
        self._requests = requests
        self._workers = workers
        self._started_with = dict(started_with)

    @property
    def checkpoint(self) -> Path:
        """Everything needed to go on."""
        return self.out / run_files.CHECKPOINTS / run_files.LAST

    @property
    def penalty(self) -> float:
        """λ now."""
        return self._trainer.penalty

    @property
    def probe_of_student(self) -> Probe:
        return self._validation.probe_of_student

    def run(self, *, resume: bool = False) -> None:
        """Train all epochs, from the last checkpoint on where there is one to resume from.

        Raises:
            Interrupted: on Ctrl-C or SIGTERM, after a checkpoint was written; the student is then the best so far.
        """
        resuming = self._workers.lead(lambda: resume and self._can_go_on())
        began = time.monotonic()
        measured = self._measured(
            lambda: self._validation.measure(["original"] if resuming else ["original", "refined"])
        )
        self._validation.original = measured["original"]  # for all workers, of which one has measured it
        if self.prepared.fills_time:
            self._plan_epochs(time.monotonic() - began)
        trainer, floor = self._trainer, quality(measured["original"]) - self.budget.drop
        self.choice.floor, self.choice.epochs = floor, self.prepared.epochs
        steps = trainer.steps, trainer.warmup_steps
        self._steering = Steering(self.settings, self.budget, floor, *steps, self.prepared.epochs, paced=self._paced)
        if resuming:
            self._restore()
            self._tidy()
        else:
            self._steering.before_training(self._validation.point(0, 0.0, measured["refined"]))
            self._workers.lead(self.choice.try_calibrated)
            self._save()
        while not self._over():
            try:
                self._one_epoch()
            except Unsound as error:
                self._go_back(error)

    def _plan_epochs(self, validated: float) -> None:
        """Find how many epochs fit into the time that the run may take, and keep that with its settings.

        Args:
            validated: seconds in which the original and the student were measured.
        """
        prepared, settings = self.prepared, self.settings
        assert settings.time is not None
        self.listener.say("Timing the first steps, for the number of epochs.")
        step, answering = seconds_per_step(self._trainer, prepared)
        left = settings.time - (time.monotonic() - self._started)
        per_frame = validated / max(1, frames_of(prepared.data))
        epochs = self._workers.lead(
            lambda: epochs_in(left, prepared, step=step, answering=answering, per_frame=per_frame)
        )
        self.listener.say(
            f"A step takes {step:.2g} s, and {left / 60:.1f} of {settings.time / 60:.1f} minutes are left: "
            f"{epochs} {'epoch' if epochs == 1 else 'epochs'}."
        )
        prepared.settings = self.settings = settings.model_copy(update={"epochs": epochs})
        self._trainer.plan(len(prepared.clips("train", epoch=1)) * epochs)
        self._variables = [*self._trainer.student.variables, *self._trainer.state]
        if self._workers.chief:  # a run that is resumed goes on with as many
            write_atomically(self.out / run_files.SETTINGS, self.settings.to_toml().encode("utf-8"))

    def _can_go_on(self) -> bool:
        """Whether there is a sound checkpoint with anything to choose from; why not is said."""
        if not self.checkpoint.exists():
            return False
        try:
            checkpoints.check(self.checkpoint)
            facts = checkpoints.read_facts(self.checkpoint)
            self.choice.remove_damaged()
            points = [FrontPoint.model_validate(entry) for entry in facts["points"]]
            if not points or self.choice.any_weights(points):
                return True
            reason = f"no weights of any epoch are left in {self.checkpoint.parent}"
        except checkpoints.Damaged as error:
            reason = error.reason
            discard(self.checkpoint)
        said = f"The training starts again from the calibration, since {reason}."
        warnings.warn(said, DeltafineWarning, stacklevel=2)
        return False

    def _over(self) -> bool:
        history, patience = self.progress.history, self.settings.early_stopping
        if len(history) >= self.prepared.epochs:
            return True
        if patience is None or len(history) <= patience:
            return False
        recent = {epoch.epoch for epoch in history[-patience:]}
        return not any(point.epoch in recent for point in self.choice.front_of_epochs)

    def _measured(self, measure: Callable[[], dict[str, Figures]]) -> dict[str, Figures]:
        """What the chief measures, for all: they have to decide the same."""
        if self._workers.count == 1:
            return measure()
        told = self._workers.lead(
            lambda: {name: figures.model_dump(mode="json") for name, figures in measure().items()}
        )
        return {name: Figures.model_validate(figures) for name, figures in told.items()}

    def _one_epoch(self) -> None:
        progress, trainer = self.progress, self._trainer
        number = len(progress.history) + 1
        started = saved = time.monotonic()
        source = self.prepared.clips("train", epoch=number, start_batch=progress.batches, shard=self._workers.shard)
        steps = len(source)
        if self._trainer.carried is not None and not progress.batches:
            self._trainer.carried.restart()
        logged = self.settings.tensorboard and self._workers.chief
        with Logs(self.out / run_files.TENSORBOARD if logged else None) as logs:
            with self._requests.held():
                for batch in source:
                    figures = trainer.train_on_batch(
                        batch.frames,
                        batch.targets if self.prepared.window is None else batch.labels,
                        self._steering.strength,
                        first=batch.first,
                        clips=batch.clips,
                        stopping=self._requests.signal,
                        saving=time.monotonic() - saved > 60 * self.settings.checkpoint_minutes,
                    )
                    progress.watch.see(figures[0], trainer.step)
                    if trainer.penalty:
                        expected = figures[1] / trainer.penalty
                        self._steering.after_batch(expected, steps, first_epoch=not progress.history)
                    progress.add(*figures)
                    logs.step(trainer.step, figures, trainer.penalty)
                    self._tell(number, steps)
                    stopping = self._requests.signal if self._workers.count == 1 else trainer.stopping
                    if stopping or trainer.saving:
                        self._save(within=True)
                        saved = time.monotonic()
                    if stopping:
                        raise Interrupted(None, stopping)
                if not progress.batches:
                    raise DeltafineError(
                        f"No training video in {self.prepared.data.path} could be read any more in epoch {number}: put "
                        "them back, and go on with --resume."
                    )
                self._save()
                if stopping := self._workers.stopping(self._requests.signal):
                    raise Interrupted(None, stopping)
            if self._workers.count == 1:
                epoch = self._finish_epoch(number, started)
            else:
                with self._requests.held():  # one that stopped on its own would be lost to the others
                    epoch = self._finish_epoch(number, started)
                    if stopping := self._workers.stopping(self._requests.signal):
                        raise Interrupted(None, stopping)
            logs.epoch(epoch, trainer.step)
        self.listener.epoch(epoch, self.prepared.epochs)

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

    def _tell(self, number: int, steps: int) -> None:
        done, strength = self.progress.batches, self._trainer.penalty
        task, penalty, right = self.progress.means
        expected = f"{penalty / strength:.3f}" if strength else "-"
        accuracy = f"accuracy {right:.3f}  " if math.isfinite(right) else ""
        words = f"loss {task + penalty:.3f}  {accuracy}expected MACs {expected}"
        self.listener.progress(f"epoch {number}", done, steps, words)

    def _finish_epoch(self, number: int, started: float) -> Epoch:
        progress, trainer = self.progress, self._trainer
        task, penalty, right = progress.means
        last = number == self.prepared.epochs
        if last and number in self._recalibrated_after:
            self._recalibrate(number)
        with trainer.averaged():
            measured = self._measured(lambda: {"refined": self._validation.student()})
            point = self._validation.point(number, trainer.penalty, measured["refined"])
            self.choice.points.append(point)
            if self._workers.chief:
                self.choice.keep(number)
        epoch = Epoch(
            epoch=number,
            loss=task + penalty,
            task_loss=task,
            penalty_loss=penalty,
            penalty=trainer.penalty,
            accuracy=right if math.isfinite(right) else None,
            validation_accuracy=point.accuracy,
            judged_by=self.prepared.epochs_judged_by,
            validation_mac_density=point.mac_density,
            validation_pixel_density=point.pixel_density,
            seconds=round(time.monotonic() - started, 1),
        )
        due = not self._recalibrated_after or number in self._recalibrated_after
        done = number / self.prepared.epochs
        self._steering.after_epoch(point, done, caught_up=due)
        if not last and not self._went_back(number, point, done):
            if number in self._recalibrated_after and not self._steering.spent(point, done):
                self._recalibrate(number)  # what it costs, the next epochs win back: what was won before is kept
                epoch = epoch.model_copy(update={"seconds": round(time.monotonic() - started, 1)})
            elif self._thresholds_follow(number):
                self._scale_thresholds(self._steering.factor(point, done))
        progress.history.append(epoch)
        progress.batches, progress.judged, progress.sums = 0, 0, [0.0, 0.0, 0.0]
        self._save()
        self._tidy()
        return epoch

    def _went_back(self, number: int, point: FrontPoint, done: float) -> bool:
        """Go back to weights within the budget, if epoch ``number`` left it by far."""
        if not self._steering.wrecked(point, done):
            return False

        def go_back() -> dict[str, Any] | None:
            earlier = self.choice.go_back()
            return None if earlier is None else earlier.model_dump()

        told = self._workers.lead(go_back)
        earlier = None if told is None else FrontPoint.model_validate(told)
        self._workers.follow(self._trainer.student.variables)
        self._trainer.go_on_from_here()
        self._steering.go_back(earlier)
        self.listener.say(
            f"Epoch {number} left the budget by far: the training goes on from "
            f"{'its start' if earlier is None else f'epoch {earlier.epoch}'} with λ {self._steering.strength:.3g}."
        )
        return True

    @property
    def _paced(self) -> bool:
        """Whether the density answers to λ: thresholds are trained, or stay while the clips of classes go on."""
        settings = self.settings
        of_classes = settings.names_classes and settings.carried and settings.method == "deltafine"
        return not self._recalibrated_after and (settings.trains_thresholds or of_classes)

    @property
    def _recalibrated_after(self) -> set[int]:
        """Epochs, evenly spread; the last one is among them only where so many were asked for."""
        times, epochs = self.prepared.recalibrations, self.prepared.epochs
        found = {math.ceil(epochs * number / times) for number in range(1, times + 1)}
        return found if self.settings.recalibrate is not None else found - {epochs}

    def _thresholds_follow(self, number: int) -> bool:
        """Whether one factor on all thresholds follows what accuracy is left after an epoch.

        Where they are calibrated again, that leads them for the most part. Where not, they would stay where the
        original needed them.
        """
        if after := self._recalibrated_after:
            return number in after or number > max(after)
        return self.settings.method == "deltafine" and self.settings.relative_threshold is None

    def _scale_thresholds(self, factor: float) -> None:
        if factor == 1:
            return
        deltas = delta_layers(self._trainer.student)
        self._trainer.set_thresholds({path: np.asarray(layer.threshold) * factor for path, layer in deltas.items()})

    def _recalibrate(self, number: int) -> None:
        """Compute the thresholds again, by the λ of the next epoch."""
        from deltafine.refinement.thresholds.recalibration import Recalibration

        trainer = self._trainer

        def told(done: int, total: int) -> None:
            self.listener.progress("recalibrating", done, total)
            self._requests.obey()

        def search() -> bytes:
            batches = self.prepared.clips("train", epoch=number)
            with trainer.averaged():
                found = Recalibration(trainer.student, trainer.teacher, trainer.loss, self.prepared.weights, batches)
            last = number == self.prepared.epochs
            return to_bytes(found.search(self._steering.strength, told, lossless=last))

        trainer.set_thresholds(from_bytes(self._workers.lead_bytes(search)))

    def _scale_that_follows(self) -> float:
        """Of the student, on the videos that were calibrated on."""
        videos = calibration_videos(self.prepared)
        return scale_that_follows(self._validation.probe_of_student, videos, self._trainer.loss)

    def _tidy(self) -> None:
        """Bring the history on disk up to the last checkpoint, and remove the weights that were not worth keeping."""
        if not self.progress.history or not self._workers.chief:
            return
        write_atomically(self.out / run_files.HISTORY, to_csv(self.progress.history).encode("utf-8"))
        self.choice.tidy()

    def _save(self, *, within: bool = False) -> None:
        """Write the checkpoint; ``within`` an epoch, with what the clips of the last batch have left."""
        progress, carried = self.progress, self._trainer.carried
        states: list[np.ndarray] = []
        if within and carried is not None:
            of_workers = [from_bytes(content) for content in self._workers.gather(to_bytes(by_name(carried.arrays)))]
            states = [np.concatenate([of_one[name] for of_one in of_workers]) for name in of_workers[0]]
        facts = {
            "settings": self.settings.hash_of_results(),
            "started_with": self._started_with,
            "rate": self._trainer.rate,
            "watch": asdict(progress.watch),
            "mishaps": progress.mishaps,
            "step": self._trainer.step,
            "batches": progress.batches,
            "sums": progress.sums,
            "judged": progress.judged,
            "history": [epoch.model_dump() for epoch in progress.history],
            "points": [point.model_dump() for point in self.choice.points],
            "penalty": self._trainer.penalty,
            **self._steering.state(),
        }
        if self._workers.chief:
            with self._workers.own_work():
                checkpoints.save(self.checkpoint, [*self._variables, *states], facts)

    def _read(self) -> list[np.ndarray]:
        """Restore the variables of the chief; returns what the clips of the last batch had left."""
        facts = checkpoints.read_facts(self.checkpoint)
        if facts["settings"] != self.settings.hash_of_results():
            raise DeltafineError(
                f"The run in {self.out} has other settings: resume it with the same, or start a new run."
            )
        return checkpoints.restore(self.checkpoint, self._variables, more=True)

    def _facts(self) -> dict[str, Any]:
        facts = checkpoints.read_facts(self.checkpoint)
        points = self.choice.loadable([FrontPoint.model_validate(entry) for entry in facts["points"]])
        return {**facts, "points": [point.model_dump() for point in points]}

    def _restore(self) -> None:
        told = self._workers.lead_bytes(lambda: to_bytes(by_name(self._read())))
        facts = self._workers.lead(self._facts)
        self._workers.follow(self._variables)
        if self._trainer.carried is not None:
            which, of = self._workers.shard or (0, 1)
            states = list(from_bytes(told).values())
            self._trainer.carried.arrays = [
                state[len(state) * which // of : len(state) * (which + 1) // of] for state in states
            ]
        self._trainer.step = facts["step"]
        self._trainer.rate = facts["rate"]
        self._trainer.set_penalty(facts["penalty"])
        self.progress = Progress(
            batches=facts["batches"],
            sums=facts["sums"],
            judged=facts.get("judged", facts["batches"]),  # runs of earlier versions counted all alike
            history=[Epoch.model_validate(entry) for entry in facts["history"]],
            watch=LossWatch(**facts["watch"]),
            mishaps=facts["mishaps"],
        )
        self.choice.points = [FrontPoint.model_validate(entry) for entry in facts["points"]]
        self._steering.restore(facts)
        within = f" and {self.progress.batches} steps" if self.progress.batches else ""
        self.listener.say(f"resumed after epoch {len(self.progress.history)} of {self.prepared.epochs}{within}")
