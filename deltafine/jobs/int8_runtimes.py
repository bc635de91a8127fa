"""Dense runtimes in 8 bits: the same network, quantised after its training on frames that it is timed on."""

from __future__ import annotations

import importlib
import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deltafine.jobs.dense_runtimes import DenseRun, beside_frames, onnx_file, onnx_session, openvino_run

if TYPE_CHECKING:
    import keras

INT8 = "int8"
"""How their names end."""
CALIBRATION_FRAMES = 32
ONNX = ("onnxruntime", "onnx", "tf2onnx")
"""What makes the quantised ONNX file; OpenVINO's own quantiser is not needed."""


def int8_runtimes(
    model: keras.Model, threads: int, frames: Sequence[np.ndarray]
) -> tuple[dict[str, DenseRun], dict[str, str]]:
    """What is installed and can run a model of single frames in 8 bits: weights per channel, activations per tensor.

    Args:
        model: a Keras model (1, height, width, channels) -> (1, ...).
        threads: that each may use.
        frames: (height, width, channels) float32, to find the ranges of activations on; some of them are taken.

    Returns:
        The runtimes by name and version; and for those left out, the reason.
    """
    some = some_of(frames)
    found: dict[str, DenseRun] = {}
    missing: dict[str, str] = {}
    contestants: list[tuple[str, tuple[str, ...], Callable[..., DenseRun]]] = [
        ("ONNX Runtime", ONNX, _onnx_runtime),
        ("OpenVINO", ("openvino", *ONNX), _openvino),
        ("LiteRT", (), _litert),
    ]
    for title, packages, make in contestants:
        if len(model.inputs) > 1:
            missing[f"{title} {INT8}"] = beside_frames(model)
            continue
        needed = [name for name in packages if importlib.util.find_spec(name) is None]
        if needed:
            missing[f"{title} {INT8}"] = f"not installed: pip install {' '.join(needed)}"
            continue
        try:
            version = metadata.version(packages[0]) if packages else _litert_version()
            found[f"{title} {version} {INT8}"] = make(model, threads, some)
        except Exception as error:  # as for dense runtimes: whatever a converter raises
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
            missing[f"{title} {INT8}"] = f"cannot run this model ({why})"
    return found, missing


def some_of(frames: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The frames that ranges are found on, evenly spread."""
    places = np.linspace(0, len(frames) - 1, min(len(frames), CALIBRATION_FRAMES)).round().astype(int)
    return [frames[place] for place in places]


def _quantised(model: keras.Model, folder: Path, frames: Sequence[np.ndarray]) -> Path:
    """An ONNX file whose tensors are quantised and dequantised, as both ONNX Runtime and OpenVINO read it."""
    quantization = importlib.import_module("onnxruntime.quantization")
    shapes = importlib.import_module("onnxruntime.quantization.shape_inference")
    whole, prepared, path = onnx_file(model, folder), folder / "prepared.onnx", folder / "int8.onnx"
    shapes.quant_pre_process(str(whole), str(prepared), skip_symbolic_shape=True)
    name = onnx_session(prepared, 1).get_inputs()[0].name
    reader = type("Frames", (quantization.CalibrationDataReader,), {"get_next": _one_by_one(name, frames)})
    quantization.quantize_static(
        str(prepared),
        str(path),
        reader(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        reduce_range=not _has_dot_products(),
    )
    return path


def _one_by_one(name: str, frames: Sequence[np.ndarray]) -> Callable[[Any], dict[str, np.ndarray] | None]:
    left = iter([{name: frame[None]} for frame in frames])
    return lambda _: next(left, None)


def _has_dot_products() -> bool:
    """Whether sums of 8-bit products do not overflow 16 bits on the way here; else weights get 7 bits."""
    from llvmlite import binding

    features: dict[str, bool] = dict(binding.get_host_cpu_features())
    return any(features.get(name) for name in ("avx512vnni", "avxvnni", "dotprod"))


def _onnx_runtime(model: keras.Model, threads: int, frames: Sequence[np.ndarray]) -> DenseRun:
    with tempfile.TemporaryDirectory() as folder:
        session = onnx_session(_quantised(model, Path(folder), frames), threads)
    name = session.get_inputs()[0].name
    return lambda frame: session.run(None, {name: frame[None]})[0][0]


def _openvino(model: keras.Model, threads: int, frames: Sequence[np.ndarray]) -> DenseRun:
    with tempfile.TemporaryDirectory() as folder:
        return openvino_run(_quantised(model, Path(folder), frames), threads)


def _litert_version() -> str:
    package = "ai-edge-litert" if importlib.util.find_spec("ai_edge_litert") is not None else "tensorflow"
    return metadata.version(package)


def _litert(model: keras.Model, threads: int, frames: Sequence[np.ndarray]) -> DenseRun:
    """Through TensorFlow's converter; its interpreter computes with XNNPACK."""
    from deltafine.exporting.tflite import interpreter_of, to_tflite

    runner = interpreter_of(to_tflite(model, frames=[frame[None] for frame in frames]), threads)
    source, target = runner.get_input_details()[0], runner.get_output_details()[0]
    runner.resize_tensor_input(source["index"], (1, *frames[0].shape))
    runner.allocate_tensors()

    def predict(frame: np.ndarray) -> Any:
        runner.set_tensor(source["index"], frame[None])
        runner.invoke()
        return runner.get_tensor(target["index"])[0]

    return predict
