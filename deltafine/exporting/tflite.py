"""TFLite (LiteRT) files of exported models, checked against the Keras model on real frames."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import re
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from deltafine.errors import DeltafineError
from deltafine.exporting.comparing import compare_answers, compare_streams
from deltafine.exporting.export_format import Agreement
from deltafine.exporting.forms import frames_of
from deltafine.exporting.network_format import Network, NetworkFormat, model_of
from deltafine.exporting.streaming import Streaming
from deltafine.model import graph
from deltafine.model.output_names import output_names
from deltafine.model.precision import in_single_precision
from deltafine.storage.files import write_atomically

_CLIP_RANK = 5
SIGNATURE = "step"
"""Of a streaming network."""


class TFLite(NetworkFormat):
    """For phones and boards with LiteRT; operations that TFLite has not are refused when it is written."""

    name = "tflite"
    purpose = "phones and boards with LiteRT"
    suffix = ".tflite"

    def write(self, made: Network, file: Path) -> None:
        write_atomically(file, to_tflite(model_of(made), signature=isinstance(made, Streaming)))

    def check(self, made: Network, file: Path, clips: np.ndarray | None) -> Agreement | None:
        if clips is None:
            return None
        content = file.read_bytes()
        if not isinstance(made, Streaming):
            return compare(content, made, frames_of(clips, made))
        runner = interpreter_of(content).get_signature_runner(SIGNATURE)
        return compare_streams(made.player(lambda given: runner(**given)), made.refined, clips)


def to_tflite(model: keras.Model, *, signature: bool = False, frames: Sequence[np.ndarray] = ()) -> bytes:
    """Convert a plain Keras model; one in half precision is converted in single, which is what TFLite has.

    Args:
        model: with one input and one output; or with named ones, in dictionaries.
        signature: whether inputs and outputs keep their names, in a signature ``step`` for a batch of one.
        frames: (1, ...) float32 as the model takes them, to quantise on: the file then computes in 8 bits wherever it
            can, between inputs and outputs in 32-bit floating point. Without any it computes in those.

    Raises:
        DeltafineError: an operation of the model has no TFLite form.
    """
    import tensorflow as tf

    model = in_single_precision(model)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            warnings.catch_warnings(),
            tempfile.TemporaryDirectory() as folder,
        ):
            warnings.simplefilter("ignore")
            converter = _with_signature(tf, model, folder) if signature else _converter(tf, model)
            if len(frames):
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
                converter.representative_dataset = lambda: ([frame] for frame in frames)
            content = converter.convert()
    except Exception as error:  # The converter raises whatever the operation at fault raises.
        raise refused_by_tflite(model, error) from error
    return bytes(content)


def refused_by_tflite(model: keras.Model, error: Exception) -> DeltafineError:
    """What to say where TensorFlow cannot convert a model."""
    missing = dict.fromkeys(re.findall(r"'tf\.(\w+)' op", str(error)))
    if missing:
        return DeltafineError(
            f"Model '{model.name}' has operations that TFLite has not: {', '.join(missing)}; export it as keras, "
            "or replace the layers that need them."
        )
    text = " ".join(str(error).split())[:300]
    return DeltafineError(f"TensorFlow cannot convert model '{model.name}' to TFLite ({text}).")


def _converter(tf: Any, model: keras.Model) -> Any:
    shape = model.inputs[0].shape
    if len(shape) < _CLIP_RANK:
        return tf.lite.TFLiteConverter.from_keras_model(model)
    # Recurrent layers have a TFLite form for a known batch only, and clips come one by one.
    one = tf.TensorSpec((1, *shape[1:]), model.inputs[0].dtype)
    function = tf.function(lambda clips: model(clips, training=False), input_signature=[one])
    return tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])


def _with_signature(tf: Any, model: keras.Model, folder: str) -> Any:
    """Weights are made constants first: a converter that reads a saved model leaves Keras' variables without values."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    specs = {tensor.name: tf.TensorSpec((1, *tensor.shape[1:]), tensor.dtype) for tensor in model.inputs}
    named = tf.function(lambda **given: model(given, training=False)).get_concrete_function(**specs)
    frozen = convert_variables_to_constants_v2(named)
    order = [tensor.name.partition(":")[0] for tensor in frozen.inputs]
    outputs = list(tf.nest.flatten({name: name for name in named.structured_outputs}))

    def step(**given: Any) -> dict[str, Any]:
        return dict(zip(outputs, tf.nest.flatten(frozen(*[given[name] for name in order])), strict=True))

    module = tf.Module()
    module.step = tf.function(step)
    signatures = {SIGNATURE: module.step.get_concrete_function(**specs)}
    tf.saved_model.save(module, folder, signatures=signatures)
    return tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE])


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
    runner = interpreter_of(content)
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


def interpreter_of(content: bytes, threads: int | None = None) -> Any:
    """LiteRT's own package where it is installed; else the interpreter that TensorFlow still has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if importlib.util.find_spec("ai_edge_litert") is not None:
            lite: Any = importlib.import_module("ai_edge_litert.interpreter")
        else:
            lite = importlib.import_module("tensorflow").lite
        return lite.Interpreter(model_content=content, num_threads=threads)
