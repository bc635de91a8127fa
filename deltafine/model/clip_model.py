"""A clip model as it is trained and measured: predictions along time, and where each layer has its time.

A clip model of a per-frame network (see ``insert_deltas``) has all frames of all clips on the batch axis, from its
first layer to its last. One of a network that takes clips has them there only inside what was ``TimeDistributed``;
elsewhere they are on axis 1, as many as earlier layers left, until something sums time up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras

from deltafine.errors import DeltafineError
from deltafine.layers.time import TimeLast, TimeMean, UnfoldTime
from deltafine.model import graph
from deltafine.model.layer_names import Names
from deltafine.model.precision import HALF_PRECISION
from deltafine.model.time_axis import Steps, takes_clips, times_of_values
from deltafine.model.trace import trace

FRAME_PREDICTIONS = "frame_predictions"
"""Layer of a clip model of a per-frame network that gives one prediction per frame."""
CLIP_PREDICTION = "clip_prediction"
"""Layer that gives the prediction for a clip; the only one of a network that takes clips."""


def frame_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers that give one prediction per frame, in the order of the outputs; none unless it is a clip model of a
    per-frame network. They are found by where they stand: layers of the user's own may have their names.
    """
    found = []
    for output in keras.tree.flatten(graph.output_structure(model)):
        end = graph.maker(output)
        if isinstance(end, TimeMean | TimeLast):
            end = graph.maker(graph.arguments_of_maker(output)[0])
        if isinstance(end, UnfoldTime):
            found.append(end)
    return found


def window_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers that give the predictions of a clip model of a network that takes clips; none if it is another."""
    if not takes_clips(model):
        return []
    ends = [graph.maker(output) for output in keras.tree.flatten(graph.output_structure(model))]
    named = all(isinstance(end, keras.layers.Identity) and end.name.startswith(CLIP_PREDICTION) for end in ends)
    return ends if named else []


def window_of(clip_model: keras.Model) -> int | None:
    """The number of frames that a network that takes clips sees at once; None for a per-frame network.

    Raises:
        DeltafineError: the model is no clip model, or its clip length is unknown.
    """
    if len(frame_layers(clip_model)) == len(clip_model.outputs):
        return None
    if not window_layers(clip_model):
        raise DeltafineError(
            f"Model '{clip_model.name}' has neither a layer '{FRAME_PREDICTIONS}' nor '{CLIP_PREDICTION}' to measure: "
            "make a clip model of it, with insert_deltas."
        )
    length: int | None = graph.frames_input(clip_model).shape[1]
    if length is None:
        raise DeltafineError(
            f"Model '{clip_model.name}' takes clips of any length, so it is not known how many frames it sees at once: "
            "make the clip model with insert_deltas(..., frames=T)."
        )
    return length


def with_time(clip_model: keras.Model) -> keras.Model:
    """The same network with its predictions as (batch, time, ...), outputs last, in single precision.

    Time is that of the clip for a per-frame network, and for one that takes clips as many steps as its output
    has: 1 where a clip has one answer. A single number per step gets an axis of its own.

    Several outputs are laid out one after the other, in the order of the model's outputs: (batch, time, values). See
    ``deltafine.measurement.parts``.
    """
    names = Names()
    for operation in graph.operations_between(clip_model.inputs, clip_model.outputs):
        names.keep(operation)
    if len(clip_model.outputs) > 1:
        return names.model(clip_model.inputs, _laid_out(clip_model, names), clip_model.name)
    if window_of(clip_model) is None:
        output = frame_layers(clip_model)[0].output
    else:
        output = clip_model.outputs[0]
        traced = trace(clip_model)
        if times_of_values(traced).get(traced.outputs[0]) is None:
            output = keras.ops.expand_dims(output, 1)
    if len(output.shape) == 2:
        output = keras.ops.expand_dims(output, -1)
    if keras.backend.standardize_dtype(output.dtype) in HALF_PRECISION:
        output = keras.ops.cast(output, "float32")
    return names.model(clip_model.inputs, output, clip_model.name)


def answer_shapes(clip_model: keras.Model) -> list[tuple[int | None, ...]]:
    """Shape of one answer of each output, to a frame or a step of time; a single number has an axis of its own."""
    if ends := frame_layers(clip_model):
        return [tuple(end.output.shape[2:]) or (1,) for end in ends]
    traced = trace(clip_model)
    times = times_of_values(traced)
    shapes = [value.sample_shape if times.get(value) is None else value.sample_shape[1:] for value in traced.outputs]
    return [tuple(shape) or (1,) for shape in shapes]


def _laid_out(clip_model: keras.Model, names: Names) -> keras.KerasTensor:
    """All outputs (batch, time, values), one after the other."""
    sizes = [math.prod(size or 0 for size in shape) for shape in answer_shapes(clip_model)]

    def flat(values: Sequence[keras.KerasTensor], *steps: int) -> keras.KerasTensor:
        shaped = [
            keras.ops.reshape(keras.ops.cast(value, "float32"), (-1, *steps, size))
            for value, size in zip(values, sizes, strict=True)
        ]
        return keras.ops.concatenate(shaped, axis=-1)

    if window_of(clip_model) is None:
        folded = [graph.arguments_of_maker(end.output) for end in frame_layers(clip_model)]
        clock = folded[0][1]
        return names.make(UnfoldTime, "laid_out", dtype="float32")(flat([value for value, _ in folded]), clock)
    traced = trace(clip_model)
    times = [times_of_values(traced).get(value) for value in traced.outputs]
    return flat(clip_model.outputs, 1 if times[0] is None else times[0].steps)


def times_of_calls(model: keras.Model) -> dict[str, Steps | None]:
    """Where the (first) input of every call of a network that takes clips has its time, by path; None where nowhere."""
    traced = trace(model)
    times = times_of_values(traced)
    return {call.path: times.get(call.inputs[0]) for call in traced.calls if call.inputs}
