"""Plays an exported file as its receiver does: ``receivers.py NAME FILE FRAMES.npz ANSWERS.npz``.

It runs in an environment that holds the receiver's packages alone, and imports nothing of deltafine. ``FRAMES.npz``
holds ``clips`` (clips, time, height, width, channels); a stream begins with each. ``NAME`` is one of ``RECEIVERS``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def each(call: Callable[[Any], Any], clips: Any, rank: int) -> Iterator[Any]:
    """The answer to every frame, or to every clip where the input has five axes."""
    for one in clips if rank == 5 else clips.reshape(-1, *clips.shape[2:]):
        yield call(one[None])


def streamed(call: Callable[[dict[str, Any]], dict[str, Any]], shapes: dict[str, Any], clips: Any) -> Iterator[Any]:
    """The answer to every frame of each stream, with the state carried from one to the next."""
    import numpy as np

    for clip in clips:
        state = {name: np.zeros(shape, "float32") for name, shape in shapes.items() if name.startswith("state_")}
        for number, frame in enumerate(clip):
            given = {"frame": frame[None], "first": np.full((1, 1), number == 0, "float32"), **state}
            outputs = call({name: value for name, value in given.items() if name in shapes})
            state = {name: np.asarray(outputs[f"new_{name}"]) for name in state}
            yield outputs["prediction"]


def keras(file: Path, clips: Any) -> Iterator[Any]:
    import keras

    model = keras.models.load_model(file)
    if isinstance(model.input, dict):
        shapes = {tensor.name: (1, *tensor.shape[1:]) for tensor in model.inputs}
        return streamed(lambda given: model(given, training=False), shapes, clips)
    return each(lambda value: model(value, training=False), clips, len(model.input_shape))


def tflite(file: Path, clips: Any) -> Iterator[Any]:
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file), num_threads=1)
    if "step" in interpreter.get_signature_list():
        runner = interpreter.get_signature_runner("step")
        shapes = {name: tuple(detail["shape"]) for name, detail in runner.get_input_details().items()}
        return streamed(lambda given: runner(**given), shapes, clips)
    interpreter.allocate_tensors()
    (given,), taken = interpreter.get_input_details(), interpreter.get_output_details()[0]

    def call(value: Any) -> Any:
        if given["dtype"] is np.int8:
            scale, zero = given["quantization"]
            value = np.clip(np.round(value / scale + zero), -128, 127).astype("int8")
        interpreter.set_tensor(given["index"], value.reshape(given["shape"]))
        interpreter.invoke()
        answer = interpreter.get_tensor(taken["index"])
        scale, zero = taken["quantization"]
        return (answer.astype("float32") - zero) * scale if taken["dtype"] is np.int8 else answer

    return each(call, clips, len(given["shape"]))


def onnx(file: Path, clips: Any) -> Iterator[Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    inputs, names = session.get_inputs(), [output.name for output in session.get_outputs()]
    if len(inputs) > 1:
        shapes = {one.name: tuple(one.shape) for one in inputs}
        return streamed(lambda given: dict(zip(names, session.run(names, given), strict=True)), shapes, clips)
    return each(lambda value: session.run(names[:1], {inputs[0].name: value})[0], clips, len(inputs[0].shape))


def plan(file: Path, clips: Any) -> Iterator[Any]:
    sys.path.insert(0, str(ROOT))
    from tests.exporting.plan_interpreter import Interpreter

    player = Interpreter(file)
    for clip in clips:
        player.reset()
        for frame in clip:
            yield player.step(frame)[0]


def fixed_plan(file: Path, clips: Any) -> Iterator[Any]:
    import numpy as np

    sys.path.insert(0, str(ROOT))
    from tests.exporting.fixed_interpreter import FixedInterpreter
    from tests.exporting.plan_interpreter import ACTIVATIONS

    player = FixedInterpreter(file)
    (output,) = player.plan["outputs"]
    last = next(one for one in player.plan["operations"] if one["output"] == output)
    for clip in clips:
        player.reset()
        for frame in clip:
            value = player.step(np.round(frame))[0] / 2.0 ** player.plan["tensors"][output]["fraction"]
            yield ACTIVATIONS[last["left_out"] or "linear"](value.astype("float32"))


def table(file: Path) -> None:
    """JSON of numbers that are finite, read by Python alone."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no number of JSON.")

    assert json.loads(file.read_text("utf-8"), parse_constant=refuse)


RECEIVERS = {"keras": keras, "tflite": tflite, "onnx": onnx, "plan": plan, "fixed-plan": fixed_plan}

if __name__ == "__main__":
    name, file = sys.argv[1], Path(sys.argv[2])
    if name == "table":
        table(file)
    else:
        import numpy as np

        given = np.load(sys.argv[3])["clips"]
        np.savez(sys.argv[4], answers=np.stack([np.asarray(one).reshape(-1) for one in RECEIVERS[name](file, given)]))
    assert not any(one.split(".")[0] == "deltafine" for one in sys.modules)
