"""ONNX files of exported models, with standard operators only, checked in ONNX Runtime on real frames."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from deltafine.errors import DeltafineError
from deltafine.exporting.export_format import Agreement
from deltafine.exporting.network_format import Network, NetworkFormat, model_of
from deltafine.exporting.streaming import FRAME, Streaming, prediction_names
from deltafine.model import graph
from deltafine.model.precision import in_single_precision
from deltafine.storage.files import write_atomically

OPSET = 17
_NEEDED = ("onnx", "tf2onnx", "onnxruntime")
_STANDARD = ("", "ai.onnx")


class OnnxFile(NetworkFormat):
    """For ONNX Runtime and the many tools that read ONNX. Inputs and outputs have names, and a batch of one."""

    name = "onnx"
    purpose = "ONNX Runtime, and tools that read ONNX: standard operators, named inputs and outputs"
    suffix = ".onnx"
    endings = (".onnx",)

    def make(self, refined: keras.Model, *, form: str = "stripped", frames: int | None = None) -> Network:
        made = super().make(refined, form=form, frames=frames)
        require_packages()
        return made

    def write(self, made: Network, file: Path) -> None:
        write_atomically(file, to_onnx(model_of(made), streaming=isinstance(made, Streaming)))

    def check(self, made: Network, file: Path, clips: np.ndarray | None) -> Agreement | None:
        if clips is None:
            return None
        session = session_of(file.read_bytes())
        names = [output.name for output in session.get_outputs()]
        source = session.get_inputs()[0].name

        def call(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return dict(zip(names, session.run(None, given), strict=True))

        def answer(value: np.ndarray) -> np.ndarray:
            return call({source: np.asarray(value, "float32")})[prediction_names(model_of(made))[0]]

        return self.agreement(made, clips, call, answer)


def require_packages() -> None:
    """Refuse to go on without what ONNX is written and run with.

    Raises:
        DeltafineError: naming what is missing.
    """
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise DeltafineError(f"To write ONNX, deltafine needs {' and '.join(missing)}: pip install 'deltafine[onnx]'.")


def session_of(content: bytes) -> Any:
    """An ONNX Runtime that runs a model on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def to_onnx(model: keras.Model, *, streaming: bool = False) -> bytes:
    """Convert a plain Keras model; one in half precision is converted in single.

    Args:
        model: with one input, which is called ``frame`` or ``clip``, and outputs that ``prediction_names`` names.
        streaming: whether inputs and outputs are dictionaries, whose names they keep.

    Raises:
        DeltafineError: an operation of the model has no form in standard operators.
    """
    import tensorflow as tf
    import tf2onnx

    model = in_single_precision(model)
    alone = "clip" if len(model.inputs[0].shape) == 5 else FRAME
    names = [tensor.name if streaming else alone for tensor in model.inputs]
    specs = [
        tf.TensorSpec((1, *tensor.shape[1:]), tensor.dtype, name=name)
        for name, tensor in zip(names, model.inputs, strict=True)
    ]

    def run(*values: Any) -> dict[str, Any]:
        outputs = model(dict(zip(names, values, strict=True)) if streaming else values[0], training=False)
        if streaming:
            return {name: tf.identity(value) for name, value in outputs.items()}
        return dict(zip(prediction_names(model), keras.tree.flatten(outputs), strict=True))

    function = tf.function(run, input_signature=specs)
    try:
        with _quietly(), _in_one_graph():
            function.get_concrete_function()
        with _quietly():
            made, _ = tf2onnx.convert.from_function(function, input_signature=specs, opset=OPSET)
    except Exception as error:  # the converter raises whatever the operation at fault raises
        text = " ".join(str(error).split())[:300]
        raise DeltafineError(f"tf2onnx cannot convert model '{model.name}' to ONNX ({text}).") from error
    _keep_constants(made.graph, function.get_concrete_function().graph.captures)
    _replace_erfc(made.graph)
    _require_standard(model, made)
    return bytes(made.SerializeToString())


def _keep_constants(made: Any, captures: Iterable[tuple[Any, Any]]) -> None:
    """Constants that a model was built with, such as embedded positions, which the converter takes for inputs."""
    import onnx

    known = {inside.name: outside for outside, inside in captures}
    for given in [one for one in made.input if one.name in known]:
        made.input.remove(given)
        made.initializer.append(onnx.numpy_helper.from_array(known[given.name].numpy(), given.name))


def _replace_erfc(made: Any) -> None:
    """erfc(x), which TensorFlow makes of an exact GELU and ONNX has not, as 1 - erf(x)."""
    import onnx

    if not any(node.op_type == "Erfc" for node in made.node):
        return
    one = "deltafine/one"
    made.initializer.append(onnx.numpy_helper.from_array(np.array(1, "float32"), one))
    nodes = []
    for node in made.node:
        if node.op_type != "Erfc":
            nodes.append(node)
            continue
        inner = f"{node.output[0]}/erf"
        nodes.append(onnx.helper.make_node("Erf", list(node.input), [inner], name=f"{node.name}/erf"))
        nodes.append(onnx.helper.make_node("Sub", [one, inner], list(node.output), name=node.name))
    del made.node[:]
    made.node.extend(nodes)


def _require_standard(model: keras.Model, made: Any) -> None:
    import onnx

    opset = max(entry.version for entry in made.opset_import if entry.domain in _STANDARD)
    for node in _nodes(made.graph):
        if node.domain not in _STANDARD or not onnx.defs.has(node.op_type, opset):
            raise DeltafineError(
                f"Layer '{_layer(model, node.name)}' of model '{model.name}' needs the operation "
                f"{node.op_type}, which ONNX has not: export the model as keras or tflite, or replace the layer."
            )
    onnx.checker.check_model(made)


def _layer(model: keras.Model, name: str) -> str:
    """The layer that an operation comes from: TensorFlow numbers the scope of one that has several operations."""
    path = "/".join(name.split("/")[1:-1]) or name
    bare = re.sub(r"_\d+$", "", path)
    return bare if bare in dict(graph.all_layers_by_path(model)) else path


def _nodes(made: Any) -> Iterator[Any]:
    for node in made.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


@contextlib.contextmanager
def _in_one_graph() -> Iterator[None]:
    """Functions inside of others become part of their graph: Keras makes one, for XLA, of a convolution in groups."""
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """What the converter says on its way is for those who develop it."""
    logger = logging.getLogger("tf2onnx")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
