"""One refinement from the model file to the measured refined model, with checkpoints on the way."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import keras
import numpy as np

from deltafine import __version__
from deltafine import model as models
from deltafine.document.controls import Controls
from deltafine.document.figures import Measurement
from deltafine.document.history import Epoch, FrontPoint
from deltafine.document.report import Activity, Reference
from deltafine.document.sensitivity import SensitivityCurve
from deltafine.errors import Interrupted
from deltafine.measurement.activity import activity_of
from deltafine.measurement.probe import Probe
from deltafine.measurement.reference import check_reference, sentence_of
from deltafine.measurement.sensitivity_runs import SensitivityRuns
from deltafine.measurement.side_by_side import measure_with_controls
from deltafine.measurement.simple_controls import REFINED_HELD
from deltafine.model import DeltaSettings
from deltafine.model.custom_objects import import_rule
from deltafine.model.freezing import Frozen, frozen_weights, set_trainable
from deltafine.refinement.listener import Listener
from deltafine.refinement.run.calibrating import Calibrating
from deltafine.refinement.run.fingerprint import Fingerprint, started_with
from deltafine.refinement.run.interruption import Requests
from deltafine.refinement.run.preparation import Prepared, prepare
from deltafine.refinement.run.trained_control import measured_control, trained_control
from deltafine.refinement.thresholds.budget import Budget
from deltafine.refinement.thresholds.calibration import calibration_videos
from deltafine.refinement.thresholds.following import SMALLEST_THRESHOLD
from deltafine.refinement.training.confidence import Confidence
from deltafine.refinement.training.kept_answers import KeptAnswers
from deltafine.refinement.training.loop import Training
from deltafine.refinement.training.losses import Loss
from deltafine.refinement.training.step import Trainer
from deltafine.refinement.training.teaching import Features
from deltafine.refinement.training.trainable import can_be_trained, prepare_batchnorm
from deltafine.refinement.training.untrained import about_frozen, about_no_training
from deltafine.refinement.training.validation import lost
from deltafine.settings import RefineSettings
from deltafine.storage import run_files
from deltafine.storage.files import remove_unfinished, write_atomically
from deltafine.workers import ALONE, Workers, from_bytes, to_bytes


@dataclass
class Outcome:
    """What a refinement gives."""

    prepared: Prepared
    original: keras.Model
    refined: keras.Model
    own_cache: Path
    frozen: Frozen
    measurements: dict[str, Measurement]
    controls: Controls | None = None
    history: list[Epoch] = field(default_factory=list)
    front: list[FrontPoint] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    start_thresholds: dict[str, float] = field(default_factory=dict)  # median of each delta layer
    kept_budget: bool | None = None  # None where none was asked for
    reference: Reference | None = None  # of the chief
    activity: Activity | None = None  # the same
    sensitivity: SensitivityCurve | None = None


class Refinement:
    """A run in a directory of its own.

    Args:
        settings: everything that is to be done.
        out: the run directory; nothing is written there before :meth:`run`.
        listener: told how far the run is.
        requests: what stops the run; nothing, if not given.
        workers: who do it; the first of them decides and writes.

    Raises:
        DeltafineError: the model or the data cannot be used as they are.
    """

    def __init__(
        self,
        settings: RefineSettings,
        out: Path,
        listener: Listener,
        requests: Requests | None = None,
        workers: Workers = ALONE,
    ) -> None:
        self.settings = settings
        self.out = out
        self.listener = listener
        self.requests = requests or Requests()
        self.workers = workers
        self._started_with: dict[str, str] = {}
        self._started = time.monotonic()
        self._features: Features | None = None
        keras.utils.set_random_seed(settings.seed)
        self.prepared = self._prepare()
        self.settings = settings = self.prepared.settings
        deltas = DeltaSettings(
            rule=import_rule(settings.layer_rule),
            initial_threshold=SMALLEST_THRESHOLD,  # until calibrated, every layer sees what it would in the original
            granularity=settings.granularity,
            threshold_per=settings.threshold_per,
            random_start=settings.noisy,
            train_threshold=settings.rate_of_thresholds > 0,
        )
        model, sites = self.prepared.model, self.prepared.sites
        self.reference: Reference | None = None
        self.activity: Activity | None = None
        form = self.prepared.form
        with workers.scope():
            self.original = models.insert_deltas(model, [], **form)
            self.student = models.insert_deltas(model, sites, deltas, **form)
        self.calibrated = models.insert_deltas(model, sites, deltas, **form)
        # Only all workers together can save a model with copies on all of them: saving reads what each has counted.
        alone = workers.strategy is None
        self.refined = self.student if alone else models.insert_deltas(model, sites, deltas, **form)
        for trained in {id(one): one for one in (self.student, self.refined)}.values():
            set_trainable(trained, unfreeze=settings.unfreeze, freeze=settings.freeze)
        self.frozen = frozen_weights(self.student)
        for trained in {id(one): one for one in (self.student, self.refined)}.values():
            prepare_batchnorm(trained, freeze=settings.freezes_batchnorm)
        self.trains = self.prepared.epochs > 0 and can_be_trained(self.student)
        if not self.trains:
            self.frozen = frozen_weights(self.student)
        if self.trains and self.frozen.parameters:
            listener.say(about_frozen(self.frozen, settings))
        for said in () if self.trains else about_no_training(self.frozen, settings):
            listener.say(said)

    def run(self, *, resume: bool = False, pick: int | None = None) -> Outcome:
        """Calibrate, train, choose, measure; writes ``refined.keras``, ``history.csv`` and checkpoints.

        Args:
            resume: go on from the last checkpoint.
            pick: take the weights of this epoch instead of the best.

        Raises:
            Interrupted: on Ctrl-C or SIGTERM; while training, after the best model so far was saved.
            DeltafineError: the run to resume was started with another model or other videos.
        """
        loss = self._begin(resume)
        own_cache = self.out / run_files.FRAMES
        measuring: dict[str, keras.Model | Probe] = {
            "original": self._probe_of_original,
            "calibrated": self._probe_of_calibrated,
        }
        history, front, warnings = [], [], list(self.prepared.warnings)
        start_thresholds = {}
        budget, kept = None, True
        if self.trains:
            deltas = models.delta_layers(self.student)
            start_thresholds = {path: float(np.median(layer.threshold)) for path, layer in deltas.items()}
            training = self._train(loss, resume)
            said = self.workers.lead(lambda: training.choice.make(training.penalty, pick))
            self.workers.follow(self.student.variables)
            warnings += [*training.progress.mishaps, *said]
            if pick is None:
                budget, kept = training.budget, self.workers.lead(training.choice.reached)
            refined = self._taken_from_training()
            measuring["refined"] = training.probe_of_student if refined is self.student else refined
            history, front = training.progress.history, training.choice.front
        else:
            warnings += about_no_training(self.frozen, self.settings)
            self.refined = self.calibrated
        self.workers.lead(lambda: str(self._save_refined()))
        runs = SensitivityRuns(self.settings.sensitivity_frames)
        measured, controls = measure_with_controls(
            measuring,
            self.prepared.reported,
            self.prepared.frames,
            streams=self.prepared.streams,
            refined_held=REFINED_HELD if self.settings.streams is not None else (),
            fps=self.settings.fps,
            output=self.prepared.output,
            sensitivity=runs,
            metrics=[*self.prepared.scores, *(() if self.prepared.labelled else (Confidence(),))],
            progress=lambda what, done, total: self.listener.progress(f"measuring {what}", done, total),
            workers=self.workers,
        )
        if self.settings.control:
            warnings += self._control(controls, loss)
        if budget is not None and budget.density is None:
            kept, over = self._kept_budget(budget, measured)
            warnings += over
        return Outcome(
            self.prepared,
            self.original,
            self.refined,
            own_cache,
            self.frozen,
            measured,
            controls,
            history,
            front,
            warnings,
            start_thresholds,
            kept if budget is not None and budget.asked_for else None,
            self.reference,
            self.activity,
            runs.curve(),
        )

    @cached_property
    def _probe_of_original(self) -> Probe:
        return Probe(self.original)

    @cached_property
    def _kept_answers(self) -> KeptAnswers | None:
        """Of the original on training clips, where the same clips come again and there is room."""
        prepared = self.prepared
        if self.workers.count > 1 or not prepared.clips_come_again or not prepared.follows_original or self._features:
            return None
        clips = prepared.clips("train").clips * (2 if self.settings.flip else 1)
        answers = KeptAnswers(self.original)
        return answers if answers.fit(clips, prepared.frames) else None

    @cached_property
    def _probe_of_calibrated(self) -> Probe:
        return Probe(self.calibrated)

    @cached_property
    def _calibrating(self) -> Calibrating:
        return Calibrating(
            self.prepared,
            lambda: self._probe_of_original,
            lambda: self._probe_of_calibrated,
            self.student,
            self.out,
            self.listener,
            trains=self.trains,
        )

    def _control(self, controls: Controls | None, loss: Loss) -> list[str]:
        """Train and measure the control without delta layers, where that says anything; or say why not."""
        why_not = (
            "nothing was trained"
            if not self.trains
            else "without labels nothing tells whether training made it better"
            if controls is None or not self.prepared.labelled
            else "several workers train no control"
            if self.workers.count > 1
            else ""
        )
        if why_not or controls is None:
            return [f"There is no control without delta layers (--control): {why_not}."]
        control = trained_control(
            self.prepared,
            self.original,
            loss,
            self.out,
            self.listener,
            self.requests,
            self._features,
            self._kept_answers,
        )
        controls.trained = measured_control(control, self.prepared, controls.quality_of, self.listener)
        return []

    def _kept_budget(self, budget: Budget, measured: dict[str, Measurement]) -> tuple[bool, list[str]]:
        """Whether what was measured loses no more than may be lost; and what is to be said if it does."""
        original, refined = (measured[name].streams for name in ("original", "refined"))
        missing = lost(original, refined, labelled=self.prepared.labelled)
        if missing <= budget.allowed:
            return True, []
        what = "of accuracy" if self.prepared.labelled else "of accuracy, by how sure the original was,"
        if self.prepared.output.numbers:
            what = "of error, in units of the spread,"
        if original.score is not None:
            what = "of score"
        return False, [
            f"The budget is not kept on the videos measured here: the refined model loses {missing:.3f} {what} where "
            f"{budget.allowed:.3f} may be lost. Allow less with --max-accuracy-drop, validate on more recordings, or "
            "train longer."
        ]

    def _prepare(self) -> Prepared:
        """Every worker looks at the model and the videos, the chief first: it may keep frames for the others."""
        settings, workers = self.settings, self.workers
        own = self.out / run_files.FRAMES
        found: list[Prepared] = []

        def look() -> Prepared:
            return found[0] if found else prepare(settings, self.listener, own)

        if workers.chief:  # nobody else writes there now
            remove_unfinished(own)
        if settings.epochs != 0 and workers.count > 1:
            workers.lead(lambda: found.append(look()))
        prepared = workers.together(look)
        if workers.count > 1:
            clips = prepared.clips("train", epoch=1).digest()
            workers.agree("videos, settings or model", f"{__version__} {clips} {prepared.weights}")
        return prepared

    def _begin(self, resume: bool) -> Loss:
        """Calibrate, or go back to an earlier calibration; gives the loss, which depends on the original's answers."""
        calibrating = self._calibrating

        def begin() -> bytes:
            fingerprint = Fingerprint.of(self.prepared)
            self._started_with = asdict(fingerprint)
            before = started_with(calibrating.file.parent) if resume else None
            if before is not None:
                fingerprint.refuse_others(before, self.prepared, self.out)
            calibrated = resume and calibrating.exists()
            self.listener.progress("looking at the original's answers", 0, 0)
            videos = calibration_videos(self.prepared)
            pieces = [self._probe_of_original.run(video[None]).predictions[0] for video in videos]
            answers = np.concatenate(pieces)
            loss = self.prepared.read_output(answers)
            self.activity = activity_of(
                [video[:, : self.prepared.size[0]] for video in videos], pieces, self.prepared.output
            )
            self._check_reference()
            if self.trains and (weight := self.prepared.teaching_of_features):
                self._features = Features.measured(weight, self.original, self.student, videos)
            if calibrated:
                calibrating.restore()
            else:
                calibrating.calibrate(videos, loss, self._started_with)
            return to_bytes({"answers": answers})

        told = self.workers.lead_bytes(begin)
        self.workers.follow(calibrating.thresholds)
        features = self.workers.lead(lambda: None if self._features is None else asdict(self._features))
        self._features = None if features is None else Features(**features)
        return self.prepared.read_output(from_bytes(told)["answers"])

    def _check_reference(self) -> None:
        """Say how good the original is, and what is wrong where it is no better than a constant."""
        prepared = self.prepared
        self.reference = check_reference(
            "original",
            self.original,
            prepared.data,
            prepared.output,
            frames=prepared.frames,
            fps=self.settings.fps,
            rescale=self.settings.rescale,
            rescaled=lambda other: models.insert_deltas(prepared.model, [], **{**prepared.form, "rescale": other}),
        )
        self.listener.say(self.reference.broken or sentence_of(self.reference))

    def _train(self, loss: Loss, resume: bool) -> Training:
        settings = self.settings
        trainer = Trainer(
            self.student,
            self.original if self.prepared.follows_original else None,
            loss,
            self.prepared.weights,
            settings,
            steps=len(self.prepared.clips("train", epoch=1)) * self.prepared.epochs,
            workers=self.workers,
            features=self._features,
            answers=self._kept_answers,
        )
        training = Training(
            self.prepared,
            self._probe_of_original,
            self.student,
            trainer,
            self.out,
            self.listener,
            self.requests,
            self.workers,
            started_with=self._started_with,
            calibrated=self._calibrating.candidates,
            started=self._started,
        )
        try:
            training.run(resume=resume)
            self.settings = self.prepared.settings
        except KeyboardInterrupt as stop:
            saved = None
            if self.workers.chief and training.choice.best_so_far():
                self._taken_from_training()
                saved = self._save_refined()
            raise Interrupted(saved, getattr(stop, "signal", 2)) from stop
        return training

    def _taken_from_training(self) -> keras.Model:
        """The refined model, with the weights of the student."""
        if self.refined is not self.student:
            for variable, trained in zip(self.refined.variables, self.student.variables, strict=True):
                variable.assign(np.asarray(trained))
        return self.refined

    def _save_refined(self) -> Path:
        path = self.out / run_files.REFINED
        write_atomically(path, self.refined.save)
        return path
