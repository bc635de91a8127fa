"""What a run needs before anything is computed: the model, the places for delta layers, the videos."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from deltafine import model as models
from deltafine.errors import DeltafineError
from deltafine.measurement.output import Output
from deltafine.model import Site
from deltafine.model.custom_objects import import_objects
from deltafine.model.frame_size import frame_shape
from deltafine.model.time_axis import takes_clips
from deltafine.refinement.listener import Listener
from deltafine.refinement.losses import ClassificationLoss, Loss, RegressionLoss, are_probabilities
from deltafine.refinement.settings import RefineSettings
from deltafine.refinement.task import check_output, label_values, split_in_time, without_labels
from deltafine.video import Dataset, open_dataset
from deltafine.video.catalogue import SPLITS
from deltafine.video.splitting import refuse_shared

FRAMES = 8
"""Length of a training clip where neither the user nor the model gives one."""


@dataclass
class Prepared:
    """A model and videos that fit each other.

    Attributes:
        settings: of the run.
        model: the pretrained model.
        sites: all places for delta layers, those chosen being marked.
        data: what is trained and validated on.
        streams: continuous videos to measure on; the data itself where none are named.
        size: height and width of a frame.
        channels: of a frame, 1 or 3.
        frames: length T of a clip.
        window: frames that a model that takes clips sees at once, None for a per-frame model.
        output: how predictions are read; final once :meth:`read_output` has seen some.
        warnings: what the user should know.
    """

    settings: RefineSettings
    model: Any
    sites: list[Site]
    data: Dataset
    streams: Dataset
    size: tuple[int, int]
    channels: int
    frames: int
    window: int | None
    output: Output
    warnings: list[str] = field(default_factory=list)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of what the model takes, without the batch axis."""
        frame = (*self.size, self.channels)
        return frame if self.window is None else (self.window, *frame)

    @property
    def weights(self) -> dict[str, float]:
        """Share of all MACs that each delta layer's elements meet, by layer path."""
        return {site.delta_name: site.mac_share for site in self.sites if site.selected}

    def keep_frames(self, directory: Path | str, listener: Listener) -> None:
        """Read decoded frames from a cache in this directory from now on, which is made when it is first needed."""
        self.data.use_cache(
            directory,
            announce=listener.say,
            progress=lambda done, total: listener.progress("decoding", done, total),
        )

    @property
    def labelled(self) -> bool:
        """Whether the videos have labels that are looked at."""
        return bool(self.output.values) if self.output.numbers else bool(self.data.classes)

    @property
    def teaching(self) -> float:
        """Share of the loss that follows the original model."""
        return self.settings.teaching if self.labelled else 1.0

    def read_output(self, predictions: np.ndarray) -> Loss:
        """The loss; how the output is read is found out from the original's predictions (frames, ..., outputs)."""
        kind, probabilities = self.output.kind, are_probabilities(predictions)
        if self.settings.task == "distill" and not probabilities:
            kind = "numbers"
        self.output = Output(kind, probabilities, self.output.values, self.output.head)
        if self.output.numbers:
            return RegressionLoss(predictions, self.teaching, self.output.values)
        return ClassificationLoss(probabilities, self.teaching)

    def clips(self, split: Literal["train", "validation"], *, epoch: int = 0, start_batch: int = 0) -> Any:
        """Batches of clips; those of the training split mixed anew in every epoch."""
        settings = self.settings
        return self.data.clips(
            split,
            frames=self.frames,
            size=self.size,
            channels=self.channels,
            frame_stride=settings.frame_stride if split == "train" else 1,
            clip_stride=settings.clip_stride,
            clips_per_video=settings.clips_per_video if split == "train" else None,
            sampling=settings.sampling if split == "train" else "uniform",
            fps=settings.fps,
            augmentation=settings.augmentation if split == "train" else None,
            batch=settings.batch,
            shuffle=split == "train",
            seed=settings.seed,
            epoch=epoch,
            start_batch=start_batch,
        )


def prepare(settings: RefineSettings, listener: Listener) -> Prepared:
    """Load and check everything; nothing is written but a cache of decoded frames in the place that the user gives.

    Raises:
        DeltafineError: the model or the data cannot be used as they are.
    """
    model = models.load(
        settings.model, custom_objects=import_objects(settings.custom_objects), unsafe_lambda=settings.unsafe_lambda
    )
    sample, frames = _sample_shape(model, settings)
    window = frames if takes_clips(model) else None
    sites = models.choose(models.find_activations(model, frame_shape=sample), settings.at, settings.skip)
    data = _open(settings)
    streams = data if settings.streams is None else _open_streams(settings, data)
    check_output(model, settings, data, sample, window)
    output = Output("numbers" if settings.task == "regression" else "classes", head=settings.head or "mean")
    if output.numbers:
        output = Output("numbers", values=label_values(model, data), head=output.head)
        data, streams = (part if output.values else without_labels(part) for part in (data, streams))
    warnings = []
    if len(data.videos) == 1 and not data.select("train"):
        data, said = split_in_time(data, settings.validation)
        streams = data if settings.streams is None else streams
        warnings.append(said)
    listener.say(data.summary())
    height, width, channels = sample[-3:]
    size = (height, width)
    prepared = Prepared(settings, model, sites, data, streams, size, channels, frames, window, output, warnings)
    if settings.epochs and settings.cache is not None:
        prepared.keep_frames(settings.cache, listener)  # what it holds need not be decoded to be checked
        for split in SPLITS:
            prepared.clips(split)
    data.check(settings.max_bad_videos)
    if streams is not data:
        streams.check(settings.max_bad_videos, split="validation")
    for split in SPLITS:
        prepared.clips(split)  # refuses a split without a single clip, before anything is written
    return prepared


def _open(settings: RefineSettings) -> Dataset:
    """The data; without labels where these are not looked at."""
    labels = settings.task != "distill"
    data = open_dataset(
        settings.data,
        layout=settings.layout,
        split=settings.split,
        classes=settings.classes if labels else None,
        validation=settings.validation,
        seed=settings.seed,
        allow_outside=settings.allow_outside,
    )
    return data if labels else without_labels(data)


def _open_streams(settings: RefineSettings, data: Dataset) -> Dataset:
    """Other videos to measure on: all of them where they have no split of their own, and none that was trained on."""
    path, allow = settings.streams or settings.data, settings.allow_outside
    streams = open_dataset(path, validation=1.0, allow_outside=allow)
    if data.classes and streams.classes:  # what has no labels can be measured as well
        streams = open_dataset(path, classes=data.classes, validation=1.0, allow_outside=allow)
    refuse_shared([*data.select("train"), *streams.select("validation")])
    return without_labels(streams) if settings.task == "distill" else streams


def _sample_shape(model: Any, settings: RefineSettings) -> tuple[tuple[int, ...], int]:
    """Shape of one input sample, and the number of frames of a clip.

    Raises:
        DeltafineError: the model takes something else than frames or clips, or sizes are missing or do not fit.
    """
    shape = model.inputs[0].shape
    if len(model.inputs) != 1 or len(shape) not in (4, 5) or shape[-1] not in (1, 3):
        raise DeltafineError(
            f"The model takes {[tuple(tensor.shape) for tensor in model.inputs]}; refining needs one input of frames "
            "(batch, height, width, 1 or 3 channels), or of clips (batch, time, height, width, 1 or 3 channels)."
        )
    *length, height, width, channels = shape[1:]
    given = frame_shape(model, settings.size)
    if given is not None:
        for own, wanted in zip((height, width), given[-3:-1], strict=True):
            if own not in (None, wanted):
                raise DeltafineError(f"The model takes frames of {height}x{width}: leave --size out.")
        height, width = given[-3:-1]
    if height is None or width is None:
        raise DeltafineError("The model takes frames of any size: give one with --size, such as --size 224x224.")
    frames = settings.frames or FRAMES
    if not length:
        return (height, width, channels), frames
    own_length = length[0]
    if settings.frames and own_length not in (None, settings.frames):
        raise DeltafineError(
            f"The model takes clips of {own_length} frames, not {settings.frames}: leave --frames out."
        )
    if settings.head is not None:
        raise DeltafineError("--head is for models that take single frames; this one takes clips as it stands.")
    frames = own_length or frames
    return (frames, height, width, channels), frames
