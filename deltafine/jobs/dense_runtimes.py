"""Dense runtimes to compare with: the same model, every frame computed whole."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

if TYPE_CHECKING:
    import keras

DenseRun = Callable[[np.ndarray], Any]
"""From a frame (height, width, channels) float32 to its prediction; of several outputs, some give the first alone."""


def set_threads(threads: int) -> None:
    """How many threads TensorFlow computes with; only before it has computed anything."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def dense_runtimes(model: keras.Model, threads: int) -> tuple[dict[str, DenseRun], dict[str, str]]:
    """What is installed and can run a model of single frames.

    Args:
        model: a Keras model (1, height, width, channels) -> (1, ...); with further inputs, TensorFlow alone runs it, on
            frames with the lines of their further values.
        threads: threads that each may use.

    Returns:
        The runtimes by name and version; and for those left out, the reason.
    """
    found: dict[str, DenseRun] = {f"TensorFlow {tf.__version__}": _tensorflow(model)}
    missing: dict[str, str] = {}
    if len(model.inputs) > 1:
        return found, dict.fromkeys(("ONNX Runtime", "OpenVINO"), beside_frames(model))
    for title, package, make in (
        ("ONNX Runtime", "onnxruntime", _onnx_runtime),
        ("OpenVINO", "openvino", _openvino),
    ):
        needed = [name for name in (package, "tf2onnx") if importlib.util.find_spec(name) is None]
        if needed:
            missing[title] = f"not installed: pip install {' '.join(needed)}"
            continue
        try:
            found[f"{title} {metadata.version(package)}"] = make(model, threads)
        except Exception as error:  # a converter raises whatever it meets; the comparison goes on without it
            missing[title] = f"cannot run this model ({type(error).__name__}: {' '.join(str(error).split())[:160]})"
    return found, missing


def beside_frames(model: keras.Model) -> str:
    """Why a runtime is left out that is given frames alone."""
    from deltafine.model.further_inputs import listed

    return f"is not given {listed(model)}, which the model takes beside its frames"


def _tensorflow(model: keras.Model) -> DenseRun:
    from deltafine.model.further_inputs import answered

    run = tf.function(lambda frames: answered(model, frames), jit_compile=False, autograph=False)

    def predict(frame: np.ndarray) -> Any:
        return tf.nest.map_structure(lambda output: output.numpy()[0], run(tf.constant(frame[None])))

    return predict


def onnx_file(model: keras.Model, folder: Path) -> Path:
    """Write a model as ONNX, as it is exported."""
    from deltafine.exporting.onnx_file import to_onnx

    path = folder / "model.onnx"
    path.write_bytes(to_onnx(model))
    return path


def onnx_session(path: Path, threads: int) -> Any:
    """ONNX Runtime with a file loaded."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _onnx_runtime(model: keras.Model, threads: int) -> DenseRun:
    with tempfile.TemporaryDirectory() as folder:
        session = onnx_session(onnx_file(model, Path(folder)), threads)
    name = session.get_inputs()[0].name
    return lambda frame: session.run(None, {name: frame[None]})[0][0]


def _openvino(model: keras.Model, threads: int) -> DenseRun:
    with tempfile.TemporaryDirectory() as folder:
        return openvino_run(onnx_file(model, Path(folder)), threads)


def openvino_run(path: Path, threads: int) -> DenseRun:
    """OpenVINO with an ONNX file."""
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",  # else it computes in bfloat16 where the processor can
    }
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(path), "CPU", settings)
    request = compiled.create_infer_request()
    return lambda frame: request.infer({0: frame[None]})[compiled.output(0)][0]


def per_frame(model: keras.Model) -> keras.Model:
    """The network of single frames inside a refined model, without thresholds; a model of single frames as it is."""
    from deltafine.exporting.forms import export_plain
    from deltafine.model import delta_layers

    return export_plain(model) if delta_layers(model) else model
