"""A Keras file with plain layers only, which loads without deltafine."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np

from deltafine.errors import DeltafineWarning
from deltafine.exporting.comparing import compare_answers
from deltafine.exporting.export_format import Agreement, ExportFormat
from deltafine.exporting.forms import export_plain, frames_of
from deltafine.storage.files import write_atomically


class KerasFile(ExportFormat):
    """For any program with Keras 3."""

    name = "keras"
    suffix = ".keras"
    endings = (".keras", ".h5")  # by which Keras tells what to write
    compared = "may"  # the file holds the very numbers

    def make(self, refined: keras.Model, *, form: str = "stripped", frames: int | None = None) -> keras.Model:
        return export_plain(refined, form, frames=frames)

    def write(self, made: keras.Model, file: Path) -> None:
        write_atomically(file, made.save)

    def check(self, made: keras.Model, file: Path, clips: np.ndarray | None) -> Agreement | None:
        if clips is None:
            return None
        try:
            read = keras.saving.load_model(file, custom_objects=dict(_classes(made)), compile=False, safe_mode=False)
        except (ValueError, TypeError, OSError) as error:  # whatever functions of one's own, which Keras asks for
            reason = " ".join(str(error).split())[:200]
            warnings.warn(f"{file} needs more than Keras to be read back ({reason}).", DeltafineWarning, stacklevel=2)
            return None
        inputs = frames_of(clips, made)
        by_clip = clips.ndim == inputs[0].ndim
        return compare_answers(lambda value: read(value, training=False), made, inputs, by_clip=by_clip)


def _classes(model: keras.Model) -> Iterator[tuple[str, type]]:
    """Layers of one's own, which the receiver has to know as well."""
    for layer in model.layers:
        yield type(layer).__name__, type(layer)
        if isinstance(layer, keras.Model):
            yield from _classes(layer)
