"""What the formats that hold a network have in common: it is a Keras model with plain layers that is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import keras
import numpy as np

from deltafine.exporting.comparing import compare_answers, compare_streams
from deltafine.exporting.export_format import FORMS, Agreement, ExportFormat
from deltafine.exporting.forms import export_plain, frames_of
from deltafine.exporting.streaming import Call, Streaming, export_streaming
from deltafine.model import graph
from deltafine.model.further_inputs import picture_shape

Network: TypeAlias = keras.Model | Streaming


class NetworkFormat(ExportFormat):
    """A file with a network of any form; a subclass converts it, and says how its receiver runs it."""

    forms = tuple(FORMS)

    def make(self, refined: keras.Model, *, form: str = "stripped", frames: int | None = None) -> Network:
        if form == "streaming":
            return Streaming(export_streaming(refined), refined)
        return export_plain(refined, form, frames=frames)

    def frames_per_video(self, form: str) -> int:
        return 75 if form == "streaming" else super().frames_per_video(form)

    def input_shape(self, made: Network) -> tuple[int | None, ...]:
        if isinstance(made, Streaming):
            return (None, *picture_shape(made.refined))
        return tuple(graph.frames_input(made).shape)

    def agreement(self, made: Network, clips: np.ndarray, call: Call, answer: Callable[[np.ndarray], Any]) -> Agreement:
        """How well a receiver agrees.

        Args:
            made: what was written.
            clips: real frames, (clips, time, height, width, channels).
            call: what it makes of named inputs, for the streaming form.
            answer: what it makes of the input of another form, batch axis first; of the inputs, where there are more.
        """
        if isinstance(made, Streaming):
            return compare_streams(made.player(call), made.refined, clips)
        inputs = frames_of(clips, made)
        return compare_answers(answer, made, inputs, by_clip=clips.ndim == inputs[0].ndim)


def model_of(made: Network) -> keras.Model:
    """The Keras model that is written."""
    return made.model if isinstance(made, Streaming) else made
