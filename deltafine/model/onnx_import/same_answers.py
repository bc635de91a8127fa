"""Whether a Keras model that was made of an ONNX file answers as that does, on frames of noise."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from deltafine.errors import DeltafineError, DeltafineWarning
from deltafine.model import graph

RUNTIME = "onnxruntime"
"""What runs the file if it is installed."""
FRAMES = 2
SIZE = 64
"""Of frames where the network takes any."""
TOLERANCE, SHARE = 1e-5, 1e-3
"""Of answers about 1 or below, and of the largest one: what large ones round to grows with them."""


def check_answers(
    proto: Any, model: keras.Model, inputs: Sequence[Sequence[int]], outputs: Sequence[Sequence[int]], path: Path
) -> None:
    """Compare the two on the same frames, in ONNX Runtime if it is installed, or else in onnx's own evaluator.

    Args:
        proto: of the file.
        model: made of it.
        inputs: for each input the ONNX axes that its axes are.
        outputs: the same of the outputs.
        path: of the file, for what is said if they cannot be compared.

    Raises:
        DeltafineError: the answers differ, saying by how much.
    """
    initial = {tensor.name for tensor in proto.graph.initializer}
    infos = [info for info in proto.graph.input if info.name not in initial]
    fixed = [info.type.tensor_type.shape.dim[0].dim_value for info in infos]
    count = next((size for size in fixed if size), FRAMES)
    types = ["float32" if info.type.tensor_type.elem_type == 1 else "uint8" for info in infos]
    frames = [_noise(tensor, count, kind) for tensor, kind in zip(graph.input_tensors(model), types, strict=True)]
    given = {
        info.name: in_onnx_order(frame, order).astype(kind)
        for info, frame, order, kind in zip(infos, frames, inputs, types, strict=True)
    }
    try:
        expected = _answers(proto, path, given)
        if not all(np.isfinite(values).all() for values in expected):
            raise ValueError("its answers to noise are not finite")
    except Exception as error:
        text = " ".join(str(error).split())[:150]
        said = f"{path} could not be run to compare the answers of the Keras model with it ({text})."
        warnings.warn(said, DeltafineWarning, stacklevel=2)
        return
    made = keras.tree.flatten(model(frames if len(frames) > 1 else frames[0], training=False))
    for info, own, other, order in zip(proto.graph.output, made, expected, outputs, strict=True):
        values = in_onnx_order(keras.ops.convert_to_numpy(own), order)
        largest = float(np.abs(other).max(initial=0))
        apart = float(np.abs(values - other).max(initial=0)) if values.shape == other.shape else np.inf
        limit = min(TOLERANCE * max(largest, 1), max(SHARE * largest, 1e-7))
        if not apart <= limit:  # also where it is not a number
            raise DeltafineError(
                f"the Keras model made of it gives other answers: its output '{info.name}' differs by {apart:.2g} on "
                f"frames of noise, where the largest answer is {largest:.2g}; please report this with the file."
            )


def _noise(tensor: keras.KerasTensor, count: int, kind: str) -> np.ndarray:
    shape = (count, *(size or SIZE for size in tensor.shape[1:]))
    random = np.random.default_rng(0)
    return (random.normal(size=shape) if kind == "float32" else random.integers(0, 256, shape)).astype("float32")


def in_onnx_order(values: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """The values with their axes in the order of ONNX."""
    return values.transpose([list(order).index(axis) for axis in range(len(order))])


def _answers(proto: Any, path: Path, given: dict[str, np.ndarray]) -> list[np.ndarray]:
    if importlib.util.find_spec(RUNTIME) is not None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return [np.asarray(value) for value in session.run(None, given)]
    from onnx.reference import ReferenceEvaluator

    return [np.asarray(value) for value in ReferenceEvaluator(proto).run(None, given)]
