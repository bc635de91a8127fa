"""What a run needs before anything is computed: the model, the places for delta layers, the videos."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np

from deltafine import model as models
from deltafine.errors import DeltafineError
from deltafine.measurement.fitting import fitting
from deltafine.measurement.given_inputs import give_inputs, sources_of
from deltafine.measurement.labelled_parts import labels_found, say_columns
from deltafine.measurement.metric import Metric
from deltafine.measurement.output import Output
from deltafine.measurement.parts import weighted
from deltafine.measurement.score import Score
from deltafine.measurement.scoring import Scoring, scoring_of
from deltafine.measurement.task import (
    check_labels,
    held_out,
    labelled_of,
    open_data,
    open_streams,
    output_of,
    read_output,
    split_in_time,
    task_by_labels,
)
from deltafine.model import Site
from deltafine.model.custom_objects import import_objects
from deltafine.refinement.listener import Listener
from deltafine.refinement.thresholds.descent import MANY_LAYERS
from deltafine.refinement.training.losses import ClassificationLoss, Loss, RegressionLoss
from deltafine.runtime.numba_there import MEND_NUMBA, why_no_numba
from deltafine.settings import RefineSettings
from deltafine.video import Augmentation, Dataset

if TYPE_CHECKING:
    from deltafine.video.clips import ClipSource


TRAINED: tuple[Literal["train", "validation"], ...] = ("train", "validation")
"""What a training reads; a test split is for the report alone."""
STEPS, MOST_EPOCHS = 1500, 30
"""That a training takes where no epochs are given. An epoch then goes through few clips several times."""
FEWEST_EPOCHS, FEWEST_OF_CLASSES = 12, 4
"""The same, with the defaults for classes."""

DIVERGENCE_OF_MANY = 0.2
"""Of the thresholds that training starts from where there are many delta layers, and classes. It keeps them."""
MIX_OF_MANY = 0.5
"""Share of the clips that are mixed there: such networks learn few clips by heart."""
RECALIBRATIONS = 4
"""In a training, where none are asked for and they can be done."""


@dataclass
class Prepared:
    """A model and videos that fit each other.

    Attributes:
        settings: of the run.
        model: the pretrained model.
        sites: all places for delta layers, those chosen being marked.
        data: what is trained and validated on.
        streams: continuous videos to measure on; where none are named, the test split of the data, or the data itself.
        reported: what the clips of the report are measured on: the test split of the data, or the data itself.
        size: height and width of a frame.
        channels: of a frame, 1 or 3.
        frames: length T of a clip.
        window: frames that a model that takes clips sees at once, None for a per-frame model.
        output: how predictions are read; final once :meth:`read_output` has seen some.
        warnings: what the user should know.
        scoring: what answers are judged by in place of accuracy, if anything.
    """

    settings: RefineSettings
    model: keras.Model
    sites: list[Site]
    data: Dataset
    streams: Dataset
    reported: Dataset
    size: tuple[int, int]
    channels: int
    frames: int
    window: int | None
    output: Output
    warnings: list[str] = field(default_factory=list)
    scoring: Scoring | None = None

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of what the model takes, without the batch axis."""
        frame = (*self.size, self.channels)
        return frame if self.window is None else (self.window, *frame)

    @property
    def form(self) -> dict[str, Any]:
        """How the model becomes a clip model, as ``insert_deltas`` takes it."""
        return {
            "rescale": self.settings.rescale,
            "clip_output": self.settings.clip_output or "mean",
            "frames": self.window,
            "frame_shape": (*self.size, self.channels),
        }

    @property
    def weights(self) -> dict[str, float]:
        """Share of all MACs that each delta layer's elements meet, by layer path."""
        return {site.delta_name: site.mac_share for site in self.sites if site.selected}

    @property
    def labelled(self) -> bool:
        """Whether the videos have labels that are looked at."""
        return self.output.has_targets if self.output.numbers else bool(self.data.classes)

    @property
    def epochs(self) -> int:
        """After each of them the training is validated."""
        if self.settings.epochs is not None:
            return self.settings.epochs
        fewest = FEWEST_OF_CLASSES if self.settings.of_classes else FEWEST_EPOCHS
        return max(fewest, min(MOST_EPOCHS, math.ceil(STEPS / len(self.clips("train", epoch=1)))))

    @property
    def passes(self) -> int:
        """Passes over the training clips in an epoch."""
        settings = self.settings
        if settings.passes is not None:
            return settings.passes
        if settings.epochs is not None:
            return 1
        return max(1, STEPS // MOST_EPOCHS // len(self.clips("train")))

    @property
    def fills_time(self) -> bool:
        """Whether the epochs are still to be found, by the time that the run may take."""
        return self.settings.time is not None and self.settings.epochs is None

    @property
    def recalibrations(self) -> int:
        """How often thresholds are calibrated again while training."""
        times = self.settings.recalibrations
        if times is None:
            return 0 if _why_not_recalibrated(self.window) else min(RECALIBRATIONS, self.epochs)
        return times

    @property
    def clips_come_again(self) -> bool:
        """Whether every pass shows the same training clips, mirrored or not."""
        drawn = self.settings.sampling == "random" and self.settings.clips_per_video is not None
        augmentation = _augmentation(self.settings)
        return not drawn and (augmentation is None or augmentation.mirrors_alone)

    @property
    def judged_by(self) -> str:
        """What a budget is about, see ``deltafine.refinement.thresholds.budget.DEFAULT_DROP``."""
        if self.scoring is not None:
            return "score"
        if not self.output.numbers:
            return "classes"
        return "numbers" if self.output.has_targets else "answers"

    @property
    def epochs_judged_by(self) -> Literal["accuracy", "error", "fidelity", "score"]:
        """What an epoch's quality on the validation videos is."""
        if self.scoring is not None:
            return "score"
        if self.output.numbers:
            return "error"
        return "accuracy" if self.labelled else "fidelity"

    @property
    def scores(self) -> list[Metric]:
        """What is measured in place of accuracy."""
        return [] if self.scoring is None else [Score(self.scoring, self.labelled)]

    @property
    def teaching(self) -> float:
        """Share of the loss that follows the original model."""
        if not self.labelled:
            return 1.0
        return self.settings.teaching_of_labelled_outputs if self.output.parts else self.settings.teaching

    @property
    def follows_original(self) -> bool:
        """Whether training needs the original's answers: outputs without labels have nothing else."""
        return self.teaching > 0 or any(part.weight and part.labels is None for part in self.output.parts)

    @property
    def teaching_of_features(self) -> float:
        """Weight of the original's features in the loss; 0 where nothing of the original is followed."""
        return self.settings.distill_features if self.teaching > 0 else 0.0

    def read_output(self, predictions: np.ndarray) -> Loss:
        """The loss; how the output is read is found out from the original's predictions (frames, ..., outputs)."""
        self.output = read_output(self.output, self.settings.task, predictions)
        if self.output.numbers:
            return RegressionLoss(
                predictions, self.teaching, self.output.values, self.output.parts, truth=self.output.truth
            )
        return ClassificationLoss(self.output.probabilities, self.teaching)

    def clips(
        self,
        split: Literal["train", "validation"],
        *,
        epoch: int = 0,
        start_batch: int = 0,
        shard: tuple[int, int] | None = None,
    ) -> ClipSource:
        """Batches of clips, or a shard of each; training clips come in another order in every pass, from epoch 1 on."""
        settings = self.settings
        training = split == "train"
        return self.data.clips(
            split,
            frames=self.frames,
            size=self.size,
            channels=self.channels,
            frame_stride=settings.frame_stride if training else 1,
            clip_stride=settings.clip_stride,
            clips_per_video=settings.clips_per_video if training else None,
            sampling=settings.sampling if training else "uniform",
            fps=settings.fps,
            augmentation=_augmentation(settings) if training else None,
            batch=settings.batch,
            shuffle=training and not settings.carried,
            continued=training and settings.carried and epoch > 0,
            seed=settings.seed,
            epoch=epoch,
            passes=self.passes if training and epoch > 0 else 1,
            start_batch=start_batch,
            shard=shard,
        )


FOUND = {
    "regression": "The labels are numbers: the model is refined with --task regression.",
    "distill": "There are no labels: the refined model is to answer as the original does (--task distill).",
}
"""What is said of a task that was left open, unless it is the commonest."""
OF_MANY_LAYERS = (
    "With so many delta layers, training clips continue each other and some are mixed (mix {mix:g}), thresholds stay "
    "as the training starts from them (training_divergence {divergence:g}), and λ follows the MAC density. --set "
    "start=noise trains as with few layers."
)
MIRROR = "Per-pixel, training gains from mirrored clips: add --set flip=true if a mirrored video has the same class."


def prepare(settings: RefineSettings, listener: Listener, frames_in: Path | None = None) -> Prepared:
    """Load and check everything; nothing is written but a cache of decoded frames.

    Args:
        settings: of the run.
        listener: told how far it is.
        frames_in: where decoded frames are kept if the user names no place; None to decode them each time.

    Raises:
        DeltafineError: the model or the data cannot be used as they are.
    """
    listener.progress("loading the model", 0, 0)
    model = models.load(
        settings.model, custom_objects=import_objects(settings.custom_objects), unsafe_lambda=settings.unsafe_lambda
    )
    fits = fitting(model, size=settings.size, frames=settings.frames, clip_output=settings.clip_output)
    sample, frames, window = fits.sample, fits.frames, fits.window
    if settings.recalibrations and (why_not := _why_not_recalibrated(window)):
        raise DeltafineError(why_not)
    sites = fits.sites(settings.places, settings.skip)
    scoring = None if settings.score is None else scoring_of(settings.score)
    listener.progress("looking for videos", 0, 0)
    read = functools.partial(listener.progress, "reading through the videos")
    data = open_data(
        settings.data,
        settings.task,
        classes=settings.classes,
        layout=settings.layout,
        split=settings.split,
        validation=settings.validation,
        seed=settings.seed,
        allow_outside=settings.allow_outside,
    )
    streams = data
    if settings.streams is not None:
        streams = open_streams(settings.streams, data, settings.task, allow_outside=settings.allow_outside)
    left_open = settings.task == "auto"
    settings = settings.model_copy(update={"task": task_by_labels(settings.task, data, streams, fits.answers.parts)})
    of_many_layers = _for_many_layers(settings, sum(site.selected for site in sites))
    many_layers, settings = of_many_layers.start != settings.start, of_many_layers
    check_labels(fits.answers, settings.task, labelled_of(fits.answers.parts, data, streams), window)
    parts = weighted(fits.answers.parts, settings.output_weight)
    output, data, streams = output_of(model, settings.task, settings.clip_output or "mean", data, streams, parts)
    give_inputs(model, settings.input, data, streams)
    if scoring is not None:
        scoring.check(fits.answers.shape, output.has_targets if output.numbers else bool(data.classes))
    warnings = [note for note in (models.pixels_note(settings.model, model, settings.rescale),) if note]
    kept_in = frames_in if settings.cache is None else settings.cache
    if settings.epochs != 0 and kept_in is not None:
        decoding = functools.partial(listener.progress, "decoding")
        data.use_cache(kept_in, announce=listener.say, progress=decoding, within=decoding)
    if len(data.videos) == 1 and not data.select("train"):
        data, said = split_in_time(data, settings.validation, read, sample)
        streams = data if settings.streams is None else streams
        warnings.append(said)
    listener.say(data.summary())
    if left_open and settings.task in FOUND:
        listener.say(FOUND[settings.task])
    if found := labels_found(output.parts):
        listener.say(found)
    if beside := sources_of(data):
        listener.say(f"Beside its frames the model takes {', '.join(beside)}.")
    if many_layers and settings.epochs != 0:
        listener.say(OF_MANY_LAYERS.format(mix=settings.mix or 0.0, divergence=settings.divergence_to_train_from))
    if settings.starts_generated and settings.granularity == "pixel" and not settings.flip and settings.epochs != 0:
        listener.say(MIRROR)
    warnings += [*data.notes, *(streams.notes if streams is not data else ()), *say_columns(output, data, streams)]
    held, of_test = held_out(data, frames, settings.fps, read)
    warnings += of_test
    for note in warnings:
        listener.say(note)
    if held is not None and settings.streams is None:
        streams = held
    height, width, channels = sample[-3:]
    size = (height, width)
    reported = held or data
    prepared = Prepared(
        settings, model, sites, data, streams, reported, size, channels, frames, window, output, warnings, scoring
    )
    for split in () if data.cache is None else TRAINED:
        prepared.clips(split)  # what the cache holds need not be decoded to be checked
    data.check(settings.max_bad_videos, progress=read, within=read)
    if streams is not data:
        streams.check(settings.max_bad_videos, split="validation", progress=read, within=read)
    for videos, split in ((data, "train"), (data, "validation"), (streams, "validation"), (reported, "validation")):
        videos.require_further(split, settings.fps)  # type: ignore[arg-type]
    for split in TRAINED:
        prepared.clips(split)  # refuses a split without a single clip, before anything is written
    resolved: dict[str, Any] = {
        "learning_rate": settings.rate,
        "training_divergence": settings.divergence_to_train_from,
        "freeze_batchnorm": settings.freezes_batchnorm,
    }
    if settings.starts_generated:
        resolved["start"] = "noise"
    if settings.epochs is None:
        resolved["passes"] = prepared.passes
    if settings.time is None:  # else they follow when it is known how long a step takes
        resolved["epochs"] = prepared.epochs
    prepared.settings = settings.model_copy(update=resolved)
    return prepared


def _for_many_layers(settings: RefineSettings, layers: int) -> RefineSettings:
    """The settings with what serves classes where there are many delta layers, unless how clips start was given.

    A large λ, or thresholds that change, wreck the weights of a deep network before it is sparse.
    """
    left_open = settings.start == "auto" and settings.starts_generated and settings.method == "deltafine"
    if layers <= MANY_LAYERS or not left_open or settings.granularity != "element":
        return settings
    divergence = settings.training_divergence
    if divergence is None and not settings.threshold_learning_rate:
        divergence = DIVERGENCE_OF_MANY
    chosen: dict[str, Any] = {"start": "carried", "recalibrate": 0, "training_divergence": divergence}
    if settings.freeze_batchnorm is None:
        chosen["freeze_batchnorm"] = True
    if settings.mix is None and settings.teaching:
        chosen["mix"] = MIX_OF_MANY
    return settings.model_copy(update=chosen)


def _why_not_recalibrated(window: int | None) -> str | None:
    if window is not None:
        return "recalibrate is for models that take single frames: leave it out."
    if why := why_no_numba():
        return f"recalibrate plays the clips with the delta runtime, which needs numba ({why}): {MEND_NUMBA}."
    return None


def _augmentation(settings: RefineSettings) -> Augmentation | None:
    """How training clips are varied; None where they are not."""
    varied = Augmentation(
        flip=settings.flip,
        crop=settings.crop,
        scale=settings.scale,
        brightness=settings.brightness,
        contrast=settings.contrast,
        saturation=settings.saturation,
        mix=settings.mix or 0.0,
    )
    return None if varied == Augmentation() else varied
