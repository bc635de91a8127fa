"""The stripped form as a TFLite file in 8-bit integers, calibrated on frames of the run's videos."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from deltafine.errors import DeltafineError
from deltafine.exporting.comparing import compare_answers
from deltafine.exporting.export_format import Agreement, ExportFormat, Source
from deltafine.exporting.forms import export_plain, frames_of
from deltafine.exporting.tflite import interpreter_of, refused_by_tflite
from deltafine.model.precision import in_single_precision
from deltafine.storage.files import write_atomically

if TYPE_CHECKING:
    from deltafine.exporting.export_format import LabelledFrames


@dataclass(frozen=True)
class Calibrated:
    """A network, the frames that its ranges are measured on, and streams to judge it by.

    Attributes:
        model: of single frames.
        clips: (clips, time, height, width, channels).
        streams: of frames with their labels; None where there are none.
    """

    model: keras.Model
    clips: np.ndarray | None = None
    streams: Callable[[], Iterator[LabelledFrames]] | None = None


class Int8(ExportFormat):
    """Weights, activations, input and output are int8; scale and zero point stand in the file."""

    name = "int8"
    purpose = "microcontrollers and integer accelerators: the stripped form in 8-bit integers, as TFLite"
    suffix = ".int8.tflite"
    forms = ("stripped",)

    def input_shape(self, made: Calibrated) -> tuple[int | None, ...]:
        return tuple(made.model.inputs[0].shape)

    def make(self, refined: keras.Model, *, form: str = "stripped", frames: int | None = None) -> Calibrated:
        model = export_plain(refined, "stripped", frames=frames)
        if len(model.inputs[0].shape) != 4 or len(model.outputs) != 1:
            raise DeltafineError(
                f"Model '{model.name}' is not a network of frames with one output, which int8 is for: export it as "
                "tflite."
            )
        return Calibrated(in_single_precision(model))

    def complete(self, made: Calibrated, source: Source) -> Calibrated:
        if source.clips is None:
            raise DeltafineError("int8 is calibrated on frames of the run's videos: leave --no-check out.")
        streams = None if source.streams is None else partial(source.streams, self.input_shape(made))
        return replace(made, clips=source.clips, streams=streams)

    def write(self, made: Calibrated, file: Path) -> None:
        write_atomically(file, to_int8(made))

    def check(self, made: Calibrated, file: Path, clips: np.ndarray | None) -> Agreement | None:
        assert clips is not None
        answer = self.receiver(file.read_bytes())
        agreement = compare_answers(answer, made.model, frames_of(clips, made.model))
        return replace(agreement, more=_accuracy(answer, made))

    def receiver(self, content: bytes) -> Callable[[np.ndarray], np.ndarray]:
        """What runs the file: from a frame (1, height, width, channels) to the network's output, in its units."""
        return _answers(content)


def to_int8(made: Calibrated) -> bytes:
    """Convert a network.

    Raises:
        DeltafineError: an operation of it has no form in integers.
    """
    import tensorflow as tf

    assert made.clips is not None
    inputs = frames_of(made.clips, made.model)
    converter = tf.lite.TFLiteConverter.from_keras_model(made.model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([value.astype("float32")] for value in inputs)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return bytes(converter.convert())
    except Exception as error:  # the converter raises whatever the operation at fault raises
        raise refused_by_tflite(made.model, error) from error


def _answers(content: bytes) -> Callable[[np.ndarray], np.ndarray]:
    """What the file makes of a frame (1, height, width, channels), in units of the network's output."""
    runner = interpreter_of(content)
    runner.allocate_tensors()
    source, target = runner.get_input_details()[0], runner.get_output_details()[0]

    def answer(value: np.ndarray) -> np.ndarray:
        scale, zero = source["quantization"]
        whole = np.clip(np.round(np.asarray(value, "float32") / scale) + zero, -128, 127)
        runner.set_tensor(source["index"], whole.astype(np.int8))
        runner.invoke()
        scale, zero = target["quantization"]
        return (runner.get_tensor(target["index"]).astype("float32") - zero) * scale

    return answer


def _accuracy(answer: Callable[[np.ndarray], Any], made: Calibrated) -> str:
    """How many frames of the streams each is right on."""
    count, right = 0, {"int8": 0, "float32": 0}
    for frames, labels in made.streams() if made.streams is not None else ():
        if labels is None:
            continue
        expected = np.asarray(made.model(np.asarray(frames, "float32"), training=False)).argmax(-1)
        for frame, label, whole in zip(frames, labels, expected, strict=True):
            count += 1
            right["int8"] += int(np.argmax(answer(frame[None])) == label)
            right["float32"] += int(whole == label)
    if not count:
        return "no frame of the streams has a label to judge it by"
    return (
        f"on {count} frames of the streams the accuracy is {right['int8'] / count:.1%} "
        f"(in float32 {right['float32'] / count:.1%})"
    )
