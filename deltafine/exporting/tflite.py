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
from deltafine.model import graph
from deltafine.model.output_names import output_names
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


def to_tflite(model: keras.Model) -> bytes:
    """Convert a plain Keras model; one in half precision is converted in single, which is what TFLite has.

    Raises:
        DeltafineError: an operation of the model has no TFLite form.
    """
    import tensorflow as tf

    model = in_single_precision(model)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = _converter(tf, model).convert()
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
        model: the Keras model with one input that it was made of.
        inputs: each of shape (1, ...), as the model takes them.

    Raises:
        DeltafineError: there is nothing to compare on.
    """
    if not inputs:
        raise DeltafineError("A TFLite model can only be checked on at least one frame.")
    runner = _interpreter(content)
    source, targets = runner.get_input_details()[0], _outputs(runner, model)
    runner.resize_tensor_input(source["index"], inputs[0].shape)
    runner.allocate_tensors()

    def answer(value: np.ndarray) -> list[np.ndarray]:
        runner.set_tensor(source["index"], value.astype(source["dtype"]))
        runner.invoke()
        return [np.asarray(runner.get_tensor(target)) for target in targets]

    return compare_answers(answer, model, inputs, by_clip=inputs[0].ndim == _CLIP_RANK)


def _outputs(runner: Any, model: keras.Model) -> list[int]:
    """The tensors of a TFLite model that are the outputs of the Keras model, in its order: the file has another."""
    if len(model.outputs) == 1:
        return [runner.get_output_details()[0]["index"]]
    by_name = runner.get_signature_runner().get_output_details()
    keys = isinstance(graph.output_structure(model), dict)
    names = output_names(model) if keys else [f"output_{place}" for place in range(len(model.outputs))]
    return [by_name[name]["index"] for name in names]


def _interpreter(content: bytes) -> Any:
    """LiteRT's own package where it is installed; else the interpreter that TensorFlow still has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if importlib.util.find_spec("ai_edge_litert") is not None:
            lite: Any = importlib.import_module("ai_edge_litert.interpreter")
        else:
            lite = importlib.import_module("tensorflow").lite
        return lite.Interpreter(model_content=content)
