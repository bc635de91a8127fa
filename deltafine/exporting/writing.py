"""Exporting a refined model: making, writing and checking it, in a format of deltafine's own or another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np

from deltafine.errors import DeltafineError
from deltafine.exporting import FORMATS
from deltafine.exporting.export_format import Agreement, ExportFormat, Source, WantedFrames
from deltafine.model.further_inputs import refuse_further_inputs
from deltafine.storage.files import make_folder

RealFrames = Callable[[WantedFrames], np.ndarray]


def write_export(
    refined: keras.Model,
    file: Path,
    format: str | ExportFormat = "keras",
    *,
    form: str = "stripped",
    frames: int | None = None,
    real_frames: RealFrames | None = None,
    source: Source | None = None,
) -> tuple[Agreement | None, str]:
    """Write a refined model and check what was written.

    Args:
        refined: a clip model with delta layers.
        file: where; its folder is made.
        format: name of a format, or one of your own.
        form: ``"stripped"`` or ``"quantized"``, for formats that hold a network.
        frames: clip length, where one is needed.
        real_frames: gives real frames (clips, time, height, width, channels); None to compare none.
        source: where the model comes from, without frames; these are ``real_frames``.

    Returns:
        How well the file agrees with the model, and why that was not compared: one of them is None or empty.

    Raises:
        DeltafineError: there is no such format, it has not this form or cannot hold this model, its files end
            otherwise, there are no frames to compare on where the format must be compared, or the file reads back as
            something else.
    """
    chosen = FORMATS.get(format)
    if chosen.endings and file.suffix not in chosen.endings:
        raise DeltafineError(f"{file} does not end in {' or '.join(chosen.endings)}: give the file such a name.")
    if chosen.forms and form not in chosen.forms:
        raise DeltafineError(f"The format {chosen.name} has no form {form}: choose {' or '.join(chosen.forms)}.")
    if not chosen.takes_further_inputs:
        refuse_further_inputs(refined, f"the format {chosen.name} has no such inputs: export it as keras or plan")
    made = chosen.make(refined, form=form, frames=frames)
    clips, why = None, "" if chosen.compared == "no" else "not compared with the Keras model"
    if real_frames is not None and chosen.compared != "no":
        try:
            clips = real_frames(WantedFrames(chosen.input_shape(made), chosen.frames_per_video(form)))
        except DeltafineError as error:
            if chosen.compared == "must":
                raise
            why = f"not compared with the Keras model: {str(error).rstrip('.')}"
    made = chosen.complete(made, replace(source or Source(), clips=clips))
    make_folder(file.parent)
    chosen.write(made, file)
    agreement = chosen.check(made, file, clips)
    return agreement, "" if agreement is not None else why
