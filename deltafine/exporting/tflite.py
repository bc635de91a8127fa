"""TFLite (LiteRT) files of exported models, checked against the Keras model on real frames."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from deltafine.errors import DeltafineError
from deltafine.exporting.comparing import compare_answers
from deltafine.exporting.export_format import Agreement, ExportFormat
from deltafine.exporting.forms import export_plain, frames_of
from deltafine.model.precision import in_single_precision
from deltafine.storage.files import write_atomically

_CLIP_RANK = 5


class TFLite(ExportFormat):
    """For phones and boards with LiteRT; operations that TFLite has not are refused when it is written."""

    name = "tflite"
    suffix = ".tflite"

    def make(self, refined: keras.Model, *, form: str = "stripped", frames: int | None = None) -> keras.Model:
        return export_plain(refined, form, frames=frames)

    def write(self, made: keras.Model, file: Path) -> None:
        write_atomically(file, to_tflite(made))

    def check(self, made: keras.Model, file: Path, clips: np.ndarray | None) -> Agreement | None:
        return None if clips is None else compare(file.read_bytes(), made, frames_of(clips, made))


def to_tflite(model: keras.Model, frames: Sequence[np.ndarray] = ()) -> bytes:
    """Convert a plain Keras model; one in half precision is converted in single, which is what TFLite has.

    Args:
        model: of frames or of clips.
        frames: (1, ...) float32 as the model takes them, to quantise on: the file then computes in 8 bits wherever it
            can, between inputs and outputs in 32-bit floating point. Without any it computes in those.

    Raises:
        DeltafineError: an operation of the model has no TFLite form.
    """
    import tensorflow as tf

    model = in_single_precision(model)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            converter = _converter(tf, model)
            if len(frames):
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
                converter.representative_dataset = lambda: ([frame] for frame in frames)
            content = converter.convert()
    except Exception as error:  # The converter raises whatever the operation at fault raises.
        missing = dict.fromkeys(re.findall(r"'tf\.(\w+)' op", str(error)))
        if missing:
            raise DeltafineError(
                f"Model '{model.name}' has operations that TFLite has not: {', '.join(missing)}; export it as keras, "
                "or replace the layers that need them."
            ) from error
        text = " ".join(str(error).split())[:300]
        raise DeltafineError(f"TensorFlow cannot convert model '{model.name}' to TFLite ({text}).") from error
    return bytes(content)


def _converter(tf: Any, model: keras.Model) -> Any:
    shape = model.inputs[0].shape
    if len(shape) < _CLIP_RANK:
        return tf.lite.TFLiteConverter.from_keras_model(model)
    # Recurrent layers have a TFLite form for a known batch only, and clips come one by one.
    one = tf.TensorSpec((1, *shape[1:]), model.inputs[0].dtype)
    function = tf.function(lambda clips: model(clips, training=False), input_signature=[one])
    return tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])


def compare(content: bytes, model: keras.Model, inputs: Sequence[np.ndarray]) -> Agreement:
    """Run the TFLite model and the Keras model on the same inputs, one at a time.

    Args:
        content: the TFLite file.
        model: the Keras model with one input and one output that it was made of.
        inputs: each of shape (1, ...), as the model takes them.

    Raises:
        DeltafineError: there is nothing to compare on.
    """
    if not inputs:
        raise DeltafineError("A TFLite model can only be checked on at least one frame.")
    runner = interpreter(content)
    source, target = runner.get_input_details()[0], runner.get_output_details()[0]
    runner.resize_tensor_input(source["index"], inputs[0].shape)
    runner.allocate_tensors()

    def answer(value: np.ndarray) -> np.ndarray:
        runner.set_tensor(source["index"], value.astype(source["dtype"]))
        runner.invoke()
        return np.asarray(runner.get_tensor(target["index"]))

    return compare_answers(answer, model, inputs, by_clip=inputs[0].ndim == _CLIP_RANK)


def interpreter(content: bytes, threads: int | None = None) -> Any:
    """LiteRT's own package where it is installed; else the interpreter that TensorFlow still has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if importlib.util.find_spec("ai_edge_litert") is not None:
            lite: Any = importlib.import_module("ai_edge_litert.interpreter")
        else:
            lite = importlib.import_module("tensorflow").lite
        return lite.Interpreter(model_content=content, num_threads=threads)
