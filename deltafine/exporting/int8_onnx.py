"""The stripped form as ONNX in 8-bit integers, calibrated on frames of the run's videos by ONNX Runtime's quantiser."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from deltafine.exporting.forms import frames_of
from deltafine.exporting.int8 import Calibrated, Int8
from deltafine.exporting.onnx_file import require_packages, session_of, to_onnx
from deltafine.exporting.streaming import FRAME
from deltafine.storage.files import write_atomically


class Int8Onnx(Int8):
    """Weights and activations are int8 between QuantizeLinear and DequantizeLinear; input and output are float32."""

    name = "int8-onnx"
    purpose = "integer accelerators that read ONNX (QDQ): the stripped form in 8-bit integers"
    suffix = ".int8.onnx"
    endings = (".onnx",)

    def make(self, refined: keras.Model, *, form: str = "stripped", frames: int | None = None) -> Calibrated:
        made = super().make(refined, form=form, frames=frames)
        require_packages()
        return made

    def write(self, made: Calibrated, file: Path) -> None:
        write_atomically(file, _in_integers(made))

    def receiver(self, content: bytes) -> Callable[[np.ndarray], np.ndarray]:
        session = session_of(content)
        return lambda value: np.asarray(session.run(None, {FRAME: np.asarray(value, "float32")})[0])


def _in_integers(made: Calibrated) -> bytes:
    import onnx
    from onnxruntime import quantization

    assert made.clips is not None

    class Frames(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, inputs: Iterator[np.ndarray]) -> None:
            self._inputs = inputs

        def get_next(self) -> Any:
            value = next(self._inputs, None)
            return None if value is None else {FRAME: np.asarray(value, "float32")}

    level = logging.root.level
    logging.root.setLevel(logging.ERROR)  # it recommends a step that needs one more package
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "int8.onnx"
            quantization.quantize_static(
                onnx.load_from_string(to_onnx(made.model)),
                file,
                Frames(iter(frames_of(made.clips, made.model))),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QInt8,
                weight_type=quantization.QuantType.QInt8,
            )
            return file.read_bytes()
    finally:
        logging.root.setLevel(level)
