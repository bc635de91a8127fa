"""One refinement from the model file to the measured refined model, with checkpoints on the way."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

import keras
import numpy as np

from deltafine import model as models
from deltafine.errors import DeltafineError
from deltafine.measurement.comparison import measure, measure_streams
from deltafine.measurement.figures import Figures, Measurement
from deltafine.measurement.probe import Probe
from deltafine.model import DeltaSettings, Site
from deltafine.model.custom_objects import import_objects
from deltafine.refinement import calibrate, checkpoints
from deltafine.refinement.allocation import Allocation
from deltafine.refinement.candidates import front, pick, worth_keeping
from deltafine.refinement.history import Epoch, FrontPoint, to_csv
from deltafine.refinement.interruption import Interrupted
from deltafine.refinement.losses import ClassificationLoss, are_probabilities, divergence
from deltafine.refinement.settings import RefineSettings
from deltafine.refinement.training import Trainer, prepare_batchnorm
from deltafine.video import Dataset, open_dataset
from deltafine.video.catalogue import SPLITS

CALIBRATION_PIECE = 24
CALIBRATION_FRAMES = 12 * CALIBRATION_PIECE
CALIBRATION_VALUES = 1 << 22
"""Frames of calibration video, and input values if frames are large."""
KEPT_CHECKPOINTS = 8


class Listener(Protocol):
    """Told how far a refinement is."""

    def say(self, text: str) -> None:
        """One line about what was found or comes next."""

    def progress(self, what: str, done: int, total: int, figures: str = "") -> None:
        """``done`` of ``total`` of something, with the latest figures in words."""

    def epoch(self, epoch: Epoch, epochs: int) -> None:
        """An epoch is over."""


@dataclass
class Outcome:
    """What a refinement gives."""

    settings: RefineSettings
    model: Any
    sites: list[Site]
    data: Dataset
    streams: Dataset
    refined: Any
    measurements: dict[str, Measurement]
    history: list[Epoch] = field(default_factory=list)
    front: list[FrontPoint] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass
class _Clip:
    """The clip models of one run."""

    original: Any
    calibrated: Any
    student: Any


class Refinement:
    """A run in a directory of its own.

    Args:
        settings: everything that is to be done.
        out: the run directory, existing.
        listener: told how far the run is.

    Raises:
        DeltafineError: the model or the data cannot be used as they are.
    """

    def __init__(self, settings: RefineSettings, out: Path, listener: Listener) -> None:
        self.settings = settings
        self.out = out
        self.listener = listener
        keras.utils.set_random_seed(settings.seed)
        self.model = models.load(
            settings.model,
            custom_objects=import_objects(settings.custom_objects),
            unsafe_lambda=settings.unsafe_lambda,
        )
        self.sites = models.choose(models.find_activations(self.model), settings.at, settings.skip)
        self.data = open_dataset(
            settings.data,
            layout=settings.layout,
            split=settings.split,
            classes=settings.classes,
            validation=settings.validation,
            seed=settings.seed,
        )
        self.streams = (
            self.data if settings.streams is None else open_dataset(settings.streams, classes=self.data.classes or None)
        )
        self.size, self.channels = _frame_size(self.model)
        _check_classes(self.model, self.data)
        listener.say(self.data.summary())
        self.data.check(settings.max_bad_videos)
        self._own_cache = out / "cache"
        if settings.epochs:
            self.data.use_cache(
                settings.cache or self._own_cache,
                announce=listener.say,
                progress=lambda done, total: listener.progress("decoding", done, total),
            )
        for split in SPLITS:
            # Refuses a split without a single clip, before anything is written.
            self._clips(split, shuffle=False, epoch=0)
        self.clip = self._clip_models()
        self.history: list[Epoch] = []
        self.points: list[FrontPoint] = []

    @property
    def checkpoint(self) -> Path:
        """Everything needed to go on after the last epoch that was over."""
        return self.out / "checkpoints" / "last.h5"

    def run(self, *, resume: bool = False) -> Outcome:
        """Calibrate, train, choose, measure; writes ``refined.keras``, ``history.csv`` and checkpoints.

        Raises:
            Interrupted: on Ctrl-C while training, after the best model so far was saved.
        """
        self._calibrate()
        warnings: list[str] = []
        if self.settings.epochs:
            warnings += self._train(resume)
        else:
            self.clip.student = self.clip.calibrated
        self._save_refined()
        clips = {"original": self.clip.original, "calibrated": self.clip.calibrated}
        if self.settings.epochs:
            clips["refined"] = self.clip.student
        measured = measure(
            clips,
            self.data,
            frames=self.settings.frames,
            streams=self.streams,
            progress=lambda what, done, total: self.listener.progress(f"measuring {what}", done, total),
        )
        shutil.rmtree(self._own_cache, ignore_errors=True)  # a cache elsewhere is the user's, and stays
        return Outcome(
            settings=self.settings,
            model=self.model,
            sites=self.sites,
            data=self.data,
            streams=self.streams,
            refined=self.clip.student,
            measurements=measured,
            history=self.history,
            front=front(self.points),
            warnings=warnings,
        )

    def _clip_models(self) -> _Clip:
        settings = self.settings
        deltas = DeltaSettings(
            rule=settings.layer_rule,
            initial_step=calibrate.SMALLEST_STEP,  # until calibrated, every layer sees what it would in the original
            unit=settings.unit,
            step_per=settings.step_per,
            random_start=settings.random_start,
            train_step=settings.step_learning_rate > 0 or settings.method == "paper",
        )
        rescale = settings.rescale
        student = models.insert_deltas(self.model, self.sites, deltas, rescale=rescale)
        prepare_batchnorm(student, freeze=settings.freeze_batchnorm)
        return _Clip(
            original=models.insert_deltas(self.model, [], rescale=rescale),
            calibrated=models.insert_deltas(self.model, self.sites, deltas, rescale=rescale),
            student=student,
        )

    def _calibrate(self) -> None:
        """Set the steps of the calibrated model and of the student."""
        settings = self.settings
        videos = self._calibration_videos()
        rms = calibrate.activation_rms(self.clip.calibrated, [video[None] for video in videos])
        if settings.relative_step is not None:
            for layers in (models.delta_layers(self.clip.calibrated), models.delta_layers(self.clip.student)):
                for path, layer in layers.items():
                    step = settings.relative_step * calibrate.step_unit(layer, rms[path])
                    layer.set_step(np.maximum(step, calibrate.SMALLEST_STEP))  # an activation may be silent
            return
        probabilities = self._gives_probabilities(videos[0])
        search = Allocation(
            self.clip.calibrated,
            self.clip.original,
            rms,
            videos,
            lambda original, predictions: divergence(original, predictions, probabilities),
        )
        search.explore(lambda done, total: self.listener.progress("calibrating", done, total))
        steps = search.steps(search.allocate(settings.training_divergence))
        for path, layer in models.delta_layers(self.clip.student).items():
            layer.set_step(steps[path])
        search.allocate(settings.max_divergence)

    def _calibration_videos(self) -> list[np.ndarray]:
        """The beginnings of some training videos, spread over all of them."""
        height, width = self.size
        total = len(self.data.select("train"))
        frames = max(24, min(CALIBRATION_FRAMES, CALIBRATION_VALUES // (height * width * self.channels)))
        wanted = {round(index) for index in np.linspace(0, total - 1, max(1, frames // CALIBRATION_PIECE))}
        found = []
        streams = self.data.streams(
            "train", size=self.size, channels=self.channels, chunk=CALIBRATION_PIECE, seed=self.settings.seed
        )
        for index, (_, pieces) in enumerate(streams):
            if index in wanted:
                found += [frames for frames, _ in islice(pieces, 1) if len(frames) > 1]
        if not found:
            raise DeltafineError(f"None of the training videos in {self.data.path} has two frames to calibrate on.")
        return found

    def _gives_probabilities(self, video: np.ndarray) -> bool:
        return are_probabilities(Probe(self.clip.original).run(video[None]).predictions)

    def _clips(self, split: Literal["train", "validation"], *, shuffle: bool, epoch: int) -> Any:
        settings = self.settings
        return self.data.clips(
            split,
            frames=settings.frames,
            size=self.size,
            channels=self.channels,
            clip_stride=settings.clip_stride,
            batch=settings.batch,
            shuffle=shuffle,
            seed=settings.seed,
            epoch=epoch,
        )

    def _train(self, resume: bool) -> list[str]:
        settings, student = self.settings, self.clip.student
        first = next(iter(self._clips("validation", shuffle=False, epoch=0)))
        probabilities = self._gives_probabilities(first.frames[0])
        accuracy = _accuracy(self._validate({"original": Probe(self.clip.original)})["original"])
        per_epoch = len(self._clips("train", shuffle=True, epoch=1))
        distill = settings.distill if self.data.classes else 1.0
        trainer = Trainer(
            student,
            self.clip.original if distill > 0 else None,
            ClassificationLoss(probabilities, distill),
            {site.delta_name: site.mac_share for site in self.sites if site.selected},
            settings,
            steps=per_epoch * settings.epochs,
        )
        variables = [*student.variables, *trainer.state]
        if resume and self.checkpoint.exists():
            self._restore(trainer, variables)
        probe = Probe(student)
        try:
            for number in range(len(self.history) + 1, settings.epochs + 1):
                self._one_epoch(number, trainer, probe, variables, per_epoch, accuracy)
        except KeyboardInterrupt as stop:
            saved = None
            # An epoch that was being kept when the user stopped may have no file yet.
            self.points = [point for point in self.points if self._weights_of(point.epoch).exists()]
            if self.points:
                self._choose(accuracy)
                saved = self._save_refined()
            raise Interrupted(saved) from stop
        return self._choose(accuracy)

    def _validate(self, probes: dict[str, Probe]) -> dict[str, Figures]:
        return measure_streams(
            probes,
            self.data,
            spliced=True,
            progress=lambda what, done, total: self.listener.progress("validating", done, total),
        )

    def _one_epoch(
        self,
        number: int,
        trainer: Trainer,
        probe: Probe,
        variables: Sequence[Any],
        steps: int,
        original_accuracy: float,
    ) -> None:
        started = time.monotonic()
        sums, batches = np.zeros(3), 0
        for batch in self._clips("train", shuffle=True, epoch=number):
            figures = trainer.train_on_batch(batch.frames, batch.labels)
            if not all(map(math.isfinite, figures[:2])):
                raise DeltafineError(
                    f"The loss is not a number at step {trainer.step} (epoch {number}): lower --learning-rate or "
                    f"--penalty. The last good checkpoint is {self.checkpoint}."
                )
            sums += figures
            batches += 1
            task, penalty, right = sums / batches
            words = f"loss {task + penalty:.3f}  accuracy {right:.3f}  expected MACs {self._ratio(trainer, penalty)}"
            self.listener.progress(f"epoch {number}", batches, steps, words)
        task, penalty, right = (float(value) for value in sums / batches)
        probes = {"refined": probe} if self.data.classes else {"original": Probe(self.clip.original), "refined": probe}
        measured = self._validate(probes)["refined"]
        accuracy = _accuracy(measured)
        epoch = Epoch(
            epoch=number,
            loss=task + penalty,
            task_loss=task,
            penalty_loss=penalty,
            penalty=trainer.penalty,
            accuracy=right if math.isfinite(right) else None,
            validation_accuracy=accuracy,
            validation_mac_density=measured.operations.mac_density,
            validation_pixel_density=measured.operations.pixel_density,
            seconds=round(time.monotonic() - started, 1),
        )
        self.history.append(epoch)
        self.points.append(
            FrontPoint(
                epoch=number,
                penalty=trainer.penalty,
                accuracy=accuracy,
                mac_density=epoch.validation_mac_density,
                pixel_density=epoch.validation_pixel_density,
            )
        )
        self._keep(number, variables, trainer, original_accuracy)
        self.listener.epoch(epoch, self.settings.epochs)

    @staticmethod
    def _ratio(trainer: Trainer, penalty: float) -> str:
        return f"{penalty / trainer.penalty:.3f}" if trainer.penalty else "-"

    def _keep(self, number: int, variables: Sequence[Any], trainer: Trainer, original_accuracy: float) -> None:
        """Write this epoch's weights if they are worth keeping, and everything needed to go on."""
        drop = self.settings.max_accuracy_drop
        kept = {point.epoch for point in worth_keeping(self.points, original_accuracy, drop, KEPT_CHECKPOINTS)}
        if number in kept:
            checkpoints.save(self._weights_of(number), self.clip.student.variables, {"epoch": number})
        facts = {
            "settings": self.settings.hash(),
            "step": trainer.step,
            "history": [epoch.model_dump() for epoch in self.history],
            "points": [point.model_dump() for point in self.points],
        }
        checkpoints.save(self.checkpoint, variables, facts)
        text = to_csv(self.history)
        checkpoints.write_atomically(self.out / "history.csv", lambda path: path.write_text(text, encoding="utf-8"))
        for file in self.checkpoint.parent.glob("epoch-*.h5"):
            if int(file.stem.removeprefix("epoch-")) not in kept:
                with suppress(FileNotFoundError):
                    file.unlink()

    def _weights_of(self, epoch: int) -> Path:
        return self.checkpoint.parent / f"epoch-{epoch:04d}.h5"

    def _restore(self, trainer: Trainer, variables: Sequence[Any]) -> None:
        facts = checkpoints.read_facts(self.checkpoint)
        if facts["settings"] != self.settings.hash():
            raise DeltafineError(f"The run in {self.out} has other settings: resume it with the same, or start anew.")
        checkpoints.restore(self.checkpoint, variables)
        trainer.step = facts["step"]
        self.history = [Epoch.model_validate(entry) for entry in facts["history"]]
        self.points = [FrontPoint.model_validate(entry) for entry in facts["points"]]
        self.listener.say(f"resumed after epoch {len(self.history)} of {self.settings.epochs}")

    def _choose(self, original_accuracy: float) -> list[str]:
        """Load the weights of the best epoch; return what the user should know about it."""
        chosen = pick(self.points, original_accuracy, self.settings.max_accuracy_drop)
        checkpoints.restore(self._weights_of(chosen.epoch), self.clip.student.variables)
        self.points = [point.model_copy(update={"chosen": point.epoch == chosen.epoch}) for point in self.points]
        drop = original_accuracy - chosen.accuracy
        if drop > self.settings.max_accuracy_drop:
            return [
                f"No epoch stayed within {self.settings.max_accuracy_drop:.3f} of the original's accuracy on the "
                f"validation streams; the most accurate one (epoch {chosen.epoch}) lost {drop:.3f}. "
                "Train longer, or lower the penalty."
            ]
        return []

    def _save_refined(self) -> Path:
        path = self.out / "refined.keras"
        checkpoints.write_atomically(path, self.clip.student.save)
        return path


def _accuracy(figures: Figures) -> float:
    """Frame accuracy, or fidelity to the original where nothing is labelled."""
    if figures.frame_accuracy is not None:
        return figures.frame_accuracy.value
    assert figures.fidelity is not None
    return figures.fidelity


def _frame_size(model: Any) -> tuple[tuple[int, int], int]:
    shape = model.inputs[0].shape
    if len(model.inputs) != 1 or len(shape) != 4 or shape[3] not in (1, 3):
        raise DeltafineError(
            f"The model takes {[tuple(tensor.shape) for tensor in model.inputs]}; refining needs one input of frames "
            "(batch, height, width, 1 or 3 channels)."
        )
    if None in shape[1:3]:
        raise DeltafineError("The model takes frames of any size: save it with a fixed input size first.")
    return (shape[1], shape[2]), shape[3]


def _check_classes(model: Any, data: Dataset) -> None:
    outputs = model.outputs
    if len(outputs) != 1 or len(outputs[0].shape) != 2:
        raise DeltafineError(
            f"The model gives {[tuple(tensor.shape) for tensor in outputs]}; refining needs one class vector per frame."
        )
    count = outputs[0].shape[1]
    if data.classes and len(data.classes) != (2 if count == 1 else count):
        raise DeltafineError(
            f"The model has {count} outputs but {data.path} has {len(data.classes)} classes "
            f"({', '.join(data.classes[:5])}{', ...' if len(data.classes) > 5 else ''}): "
            "name the model's classes in the order of its outputs with --classes."
        )
