"""Whether a model can be refined or measured at all: one check for every command that does, or says what would be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from deltafine import model as models
from deltafine.errors import DeltafineError
from deltafine.measurement.task import Answers, answers_of
from deltafine.model import Site
from deltafine.model.frame_size import sample_shape
from deltafine.model.insertable import require_insertable
from deltafine.model.time_axis import require_channels_last, require_frames_apart, takes_clips
from deltafine.model.trace import trace


@dataclass(frozen=True)
class Fitting:
    """A model that takes frames or clips of videos and gives one answer.

    Attributes:
        model: as it was loaded.
        sample: shape of what it takes, without the batch axis.
        frames: length T of a clip.
        window: frames that a model that takes clips sees at once, None for a per-frame model.
        answers: what it gives.
    """

    model: keras.Model
    sample: tuple[int, ...]
    frames: int
    window: int | None
    answers: Answers

    def sites(self, at: Sequence[str] = (), skip: Sequence[str] = ()) -> list[Site]:
        """All places for delta layers, those chosen being marked; see ``choose``."""
        return models.select_sites(models.find_activations(self.model, frame_shape=self.sample), at, skip)

    def clip_model(
        self, sites: Sequence[Site], settings: models.DeltaSettings | None = None, **how: Any
    ) -> keras.Model:
        """The model with delta layers, see ``insert_deltas``."""
        shape = self.sample[-3:]
        return models.insert_deltas(self.model, sites, settings, frames=self.window, frame_shape=shape, **how)


def fitting(
    model: keras.Model, *, size: str | None = None, frames: int | None = None, clip_output: str | None = None
) -> Fitting:
    """Check a model before any video is opened.

    Args:
        model: as it was loaded, without delta layers.
        size: such as ``"224x224"``, for a model that takes any.
        frames: clip length; None for the model's own, or else 8.
        clip_output: what stands for a clip, where the user has chosen.

    Raises:
        DeltafineError: it cannot be refined or measured; one sentence says why.
    """
    require_insertable(model)
    sample, length = sample_shape(model, size, frames)
    window = length if takes_clips(model) else None
    if window is not None and clip_output is not None:
        raise DeltafineError("--clip-output is for models that take single frames; this one takes clips as it stands.")
    answers = answers_of(model, sample, window)
    require_channels_last(model)
    require_frames_apart(model, trace(model, sample))
    return Fitting(model, sample, length, window, answers)
