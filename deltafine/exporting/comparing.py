"""Comparing what a receiver answers with what the Keras model answers, on the same inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from deltafine.errors import DeltafineError
from deltafine.exporting.export_format import Agreement
from deltafine.layers.stream import Stream
from deltafine.model import graph
from deltafine.model.clip_model import frame_layers
from deltafine.model.further_inputs import answered, inputs_of

_PIECE = 16
"""Frames that the refined model is given at a time."""


def compare_answers(
    answer: Callable[[Any], Any], model: keras.Model, inputs: Sequence[np.ndarray], *, by_clip: bool = False
) -> Agreement:
    """Run both on the same inputs, one at a time.

    Args:
        answer: what the receiver makes of an input, or of a list of them; several outputs in the structure of the
            model's, or flat.
        model: the Keras model that was written.
        inputs: each of shape (1, ...), as the model takes them; with further lines where it has further inputs.
        by_clip: whether these are clips.

    Raises:
        DeltafineError: there is nothing to compare on.
    """
    if not inputs:
        raise DeltafineError("An exported model can only be checked on at least one frame.")
    largest, same = 0.0, 0
    for value in inputs:
        given = inputs_of(model, keras.ops.convert_to_tensor(value)) if len(model.inputs) > 1 else value
        pairs = list(zip(_flat(answer(given)), _flat(model(given, training=False)), strict=True))
        for found, expected in pairs:
            largest = float(np.maximum(largest, np.abs(found - expected).max()))  # NaN stays
        same += all(found.reshape(-1).argmax() == expected.reshape(-1).argmax() for found, expected in pairs)
    return Agreement(len(inputs), largest, same / len(inputs), "clips" if by_clip else "frames")


def compare_streams(
    step: Callable[[np.ndarray, bool], Sequence[np.ndarray]], refined: keras.Model, clips: np.ndarray
) -> Agreement:
    """Play clips frame by frame, and compare with what the refined model answers for every frame.

    Args:
        step: the outputs for a frame (height, width, channels) of a stream, flat and without batch axis; and whether
            the frame is the first.
        refined: a clip model of a per-frame network.
        clips: (clips, time, height, width, channels), each a stream.
    """
    largest, same, count = 0.0, 0, 0
    for clip in clips:
        for number, (frame, expected) in enumerate(zip(clip, answers_of(refined, clip), strict=True)):
            found = [np.asarray(value, "float32") for value in step(frame, number == 0)]
            for one, other in zip(found, expected, strict=True):
                largest = float(np.maximum(largest, np.abs(one.reshape(other.shape) - other).max()))  # NaN stays
            same += int(found[0].reshape(-1).argmax() == expected[0].reshape(-1).argmax())
            count += 1
    if not count:
        raise DeltafineError("An exported model can only be checked on at least one frame.")
    return Agreement(count, largest, same / count, of="frames", stream=True)


def answers_of(refined: keras.Model, clip: np.ndarray) -> list[list[np.ndarray]]:
    """The outputs of a refined model for each frame of a stream (time, height, width, channels), flat, float32."""
    frames = keras.Model(graph.input_tensors(refined), [layer.output for layer in frame_layers(refined)])
    own_length = graph.frames_input(refined).shape[1]
    length = own_length or _PIECE
    state, pieces = None, []
    for start in range(0, len(clip), length):
        piece = clip[start : start + length]
        missing = length - len(piece) if own_length else 0
        padded = np.concatenate([piece, *[piece[-1:]] * missing]) if missing else piece
        with Stream(state, measuring=True) as stream:
            outputs = keras.tree.flatten(answered(frames, keras.ops.convert_to_tensor(padded[None])))
        state = stream.state
        given = [keras.ops.convert_to_numpy(keras.ops.cast(output, "float32"))[0] for output in outputs]
        pieces += [[output[place] for output in given] for place in range(len(piece))]
    return pieces


def _flat(answer: Any) -> list[np.ndarray]:
    """The outputs, in an order that is the same for both."""
    return [keras.ops.convert_to_numpy(keras.ops.cast(one, "float32")) for one in keras.tree.flatten(answer)]
