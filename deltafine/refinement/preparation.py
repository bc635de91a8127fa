"""What a run needs before anything is computed: the model, the places for delta layers, the videos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from deltafine import model as models
from deltafine.errors import DeltafineError
from deltafine.model import Site
from deltafine.model.custom_objects import import_objects
from deltafine.refinement.listener import Listener
from deltafine.refinement.settings import RefineSettings
from deltafine.video import Dataset, open_dataset
from deltafine.video.catalogue import SPLITS


@dataclass
class Prepared:
    """A model and videos that fit each other.

    Attributes:
        settings: of the run.
        model: the pretrained per-frame model.
        sites: all places for delta layers, those chosen being marked.
        data: what is trained and validated on.
        streams: continuous videos to measure on; the data itself where none are named.
        size: height and width of a frame.
        channels: of a frame, 1 or 3.
    """

    settings: RefineSettings
    model: Any
    sites: list[Site]
    data: Dataset
    streams: Dataset
    size: tuple[int, int]
    channels: int

    @property
    def weights(self) -> dict[str, float]:
        """Share of all MACs that each delta layer's elements meet, by layer path."""
        return {site.delta_name: site.mac_share for site in self.sites if site.selected}

    def clips(self, split: Literal["train", "validation"], *, epoch: int = 0, start_batch: int = 0) -> Any:
        """Batches of clips; those of the training split mixed anew in every epoch."""
        settings = self.settings
        return self.data.clips(
            split,
            frames=settings.frames,
            size=self.size,
            channels=self.channels,
            clip_stride=settings.clip_stride,
            fps=settings.fps,
            augmentation=settings.augmentation if split == "train" else None,
            batch=settings.batch,
            shuffle=split == "train",
            seed=settings.seed,
            epoch=epoch,
            start_batch=start_batch,
        )


def prepare(settings: RefineSettings, listener: Listener) -> Prepared:
    """Load and check everything; nothing is written.

    Raises:
        DeltafineError: the model or the data cannot be used as they are.
    """
    model = models.load(
        settings.model, custom_objects=import_objects(settings.custom_objects), unsafe_lambda=settings.unsafe_lambda
    )
    sites = models.choose(models.find_activations(model), settings.at, settings.skip)
    data = open_dataset(
        settings.data,
        layout=settings.layout,
        split=settings.split,
        classes=settings.classes,
        validation=settings.validation,
        seed=settings.seed,
        allow_outside=settings.allow_outside,
    )
    streams = data if settings.streams is None else open_dataset(settings.streams, classes=data.classes or None)
    size, channels = _frame_size(model)
    _check_classes(model, data)
    listener.say(data.summary())
    data.check(settings.max_bad_videos)
    prepared = Prepared(settings, model, sites, data, streams, size, channels)
    for split in SPLITS:
        prepared.clips(split)  # refuses a split without a single clip, before anything is written
    return prepared


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
