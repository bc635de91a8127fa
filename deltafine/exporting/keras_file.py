"""A Keras file with plain layers only, which loads without deltafine."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from deltafine.errors import DeltafineWarning
from deltafine.exporting.export_format import Agreement
from deltafine.exporting.network_format import Network, NetworkFormat, model_of
from deltafine.storage.files import write_atomically


class KerasFile(NetworkFormat):
    """For any program with Keras 3."""

    name = "keras"
    purpose = "any program with Keras 3, without deltafine"
    suffix = ".keras"
    endings = (".keras", ".h5")  # by which Keras tells what to write
    compared = "may"  # the file holds the very numbers
    takes_further_inputs = True

    def write(self, made: Network, file: Path) -> None:
        write_atomically(file, model_of(made).save)

    def check(self, made: Network, file: Path, clips: np.ndarray | None) -> Agreement | None:
        if clips is None:
            return None
        classes = dict(_classes(model_of(made)))
        try:
            read = keras.saving.load_model(file, custom_objects=classes, compile=False, safe_mode=False)
        except (ValueError, TypeError, OSError) as error:  # whatever functions of one's own, which Keras asks for
            reason = " ".join(str(error).split())[:200]
            warnings.warn(f"{file} needs more than Keras to be read back ({reason}).", DeltafineWarning, stacklevel=2)
            return None

        import tensorflow as tf

        def answer(value: Any) -> Any:
            return read(value, training=False)

        return self.agreement(made, clips, tf.function(answer), answer)


def _classes(model: keras.Model) -> Iterator[tuple[str, type]]:
    """Layers of one's own, which the receiver has to know as well."""
    for layer in model.layers:
        yield type(layer).__name__, type(layer)
        if isinstance(layer, keras.Model):
            yield from _classes(layer)
