"""The calibration of a run: thresholds to train from, of the calibrated model, and of models to choose from."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from deltafine.errors import DeltafineWarning
from deltafine.measurement.probe import Probe
from deltafine.model import delta_layers
from deltafine.refinement.listener import Listener
from deltafine.refinement.run import checkpoints
from deltafine.refinement.run.preparation import Prepared
from deltafine.refinement.thresholds.allocation import Allocation
from deltafine.refinement.thresholds.calibration import activation_rms, threshold_unit
from deltafine.refinement.thresholds.following import SMALLEST_THRESHOLD, wake
from deltafine.refinement.thresholds.trials import Trials
from deltafine.refinement.training.losses import Loss
from deltafine.storage import run_files
from deltafine.storage.files import discard

CANDIDATES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Of the divergence that calibration may spend: what models that are only calibrated spend, to choose from."""
DIVERGENCES = "divergences"
"""Of these models, in the facts of the file of the calibration."""


class Calibrating:
    """Calibrates the thresholds of a run, or takes them from the file of an earlier calibration.

    Args:
        prepared: model, data and settings of the run.
        original: probe of the original; asked for only if thresholds are searched.
        calibrated: probe of the model that is only calibrated; its thresholds are set.
        student: what is trained from the calibration on; its thresholds are set.
        out: the run directory.
        listener: told how far the calibration is.
        trains: whether anything is trained, and models to choose from are needed.

    Attributes:
        candidates: thresholds (their logarithms) of models that are only calibrated, by the divergence that they spend.
    """

    def __init__(
        self,
        prepared: Prepared,
        original: Callable[[], Probe],
        calibrated: Callable[[], Probe],
        student: keras.Model,
        out: Path,
        listener: Listener,
        *,
        trains: bool,
    ) -> None:
        self.candidates: dict[float, list[np.ndarray]] = {}
        self.file = out / run_files.CHECKPOINTS / run_files.CALIBRATED
        self._prepared, self._settings = prepared, prepared.settings
        self._cache = Path(prepared.settings.cache or out / run_files.FRAMES)
        self._original, self._calibrated, self._student = original, calibrated, student
        self._listener, self._trains = listener, trains

    @property
    def thresholds(self) -> list[Any]:
        """Variables of the calibrated model, then of the student."""
        return [layer.log_threshold for model in self._models for layer in delta_layers(model).values()]

    def exists(self) -> bool:
        """Whether there is an earlier calibration; one that is damaged is none, and said."""
        if not self.file.exists():
            return False
        try:
            checkpoints.check(self.file)
        except checkpoints.Damaged as error:
            said = f"The thresholds are calibrated again, since {error.reason}."
            warnings.warn(said, DeltafineWarning, stacklevel=2)
            discard(self.file)
            return False
        return True

    def restore(self) -> None:
        """Take everything from the file."""
        more = checkpoints.restore(self.file, self.thresholds, more=True)
        divergences = checkpoints.read_facts(self.file).get(DIVERGENCES, [])  # earlier versions had none
        each = len(self.thresholds) // 2
        self.candidates = {
            divergence: more[place * each : (place + 1) * each] for place, divergence in enumerate(divergences)
        }

    def calibrate(self, videos: list[np.ndarray], loss: Loss, started_with: Mapping[str, str]) -> None:
        """Set the thresholds of both models, and write the file.

        Args:
            videos: arrays (time, height, width, channels).
            loss: says how far answers are from the original's.
            started_with: digests of the model and the videos, kept in the file.
        """
        rms = activation_rms(self._models[0], [video[None] for video in videos])
        if self._settings.relative_threshold is not None:
            self._set_relative(self._settings.relative_threshold, rms, videos)
        else:
            self._search(rms, videos, loss, started_with)
        saved = [*self.thresholds, *(one for candidate in self.candidates.values() for one in candidate)]
        checkpoints.save(self.file, saved, {**started_with, DIVERGENCES: list(self.candidates)})

    @property
    def _models(self) -> tuple[keras.Model, keras.Model]:
        return self._calibrated().clip_model, self._student

    def _set_relative(self, relative: float, rms: dict[str, np.ndarray], videos: list[np.ndarray]) -> None:
        for path, layer in delta_layers(self._models[0]).items():
            threshold = relative * threshold_unit(layer, rms[path])
            layer.set_threshold(np.maximum(threshold, SMALLEST_THRESHOLD))  # an activation may be silent
        if lowered := wake(self._models[0], videos):
            self._listener.say(
                f"With relative_threshold these would never send, so it is less there: {', '.join(lowered)}."
            )
        self._give_to_student()

    def _search(
        self, rms: dict[str, np.ndarray], videos: list[np.ndarray], loss: Loss, started_with: Mapping[str, str]
    ) -> None:
        settings, calibrated = self._settings, self._models[0]
        trials = self._trials(videos, loss, started_with)
        if trials.known:
            self._listener.say(f"{trials.known} trials of an earlier calibration are used, from {self._cache}.")
        try:
            weights, wanted = self._prepared.weights, [settings.max_divergence, settings.divergence_to_train_from]
            if self._trains:
                wanted.append(max(CANDIDATES) * settings.max_divergence)
            search = Allocation(self._calibrated(), self._original(), rms, videos, loss, weights, trials)
            search.explore(max(wanted), lambda done, total: self._listener.progress("calibrating", done, total))
            if self._trains:
                self._try_divergences(search, videos)
            search.allocate(settings.divergence_to_train_from)
            wake(calibrated, videos)
            self._give_to_student()
            search.allocate(settings.max_divergence)
            wake(calibrated, videos)
        finally:
            trials.keep()

    def _trials(self, videos: list[np.ndarray], loss: Loss, started_with: Mapping[str, str]) -> Trials:
        """What earlier calibrations of this model tried on these videos, or this one before it was stopped."""
        settings = self._settings
        own_code = bool(settings.custom_objects) or ":" in settings.rule  # what it does may have changed
        folder = None if own_code else self._cache
        layers = list(delta_layers(self._models[0]))
        rule = [settings.rule, settings.granularity, settings.threshold_per]
        output = self._prepared.output
        answers = [type(loss).__name__, output.probabilities, *((part.name, part.weight) for part in output.parts)]
        model = [started_with["model"], self._prepared.form]
        return Trials.of(folder, {"model": model, "layers": layers, "rule": rule, "answers": answers}, videos)

    def _try_divergences(self, search: Allocation, videos: list[np.ndarray]) -> None:
        """Find models that are only calibrated, from the original itself on."""
        deltas = delta_layers(self._models[0]).values()
        for layer in deltas:
            layer.set_threshold(SMALLEST_THRESHOLD)
        self.candidates[0.0] = [np.array(layer.log_threshold) for layer in deltas]
        for factor in CANDIDATES:
            divergence = factor * self._settings.max_divergence
            search.allocate(divergence)
            wake(self._models[0], videos)
            self.candidates[divergence] = [np.array(layer.log_threshold) for layer in deltas]

    def _give_to_student(self) -> None:
        calibrated = delta_layers(self._models[0])
        for path, layer in delta_layers(self._student).items():
            layer.log_threshold.assign(np.asarray(calibrated[path].log_threshold))
