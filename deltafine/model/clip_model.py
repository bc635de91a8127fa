"""A clip model as it is trained and measured: predictions along time, and where each layer has its time.

A clip model of a per-frame network (see ``insert_deltas``) has all frames of all clips on the batch axis, from its
first layer to its last. One of a network that takes clips has them there only inside what was ``TimeDistributed``;
elsewhere they are on axis 1, as many as earlier layers left, until something sums time up.
"""

from __future__ import annotations

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


def window_layer(model: keras.Model) -> keras.layers.Layer | None:
    """The layer that gives the one prediction of a clip model of a network that takes clips; None if it is another."""
    outputs = keras.tree.flatten(graph.output_structure(model))
    end = graph.maker(outputs[0])
    clips = takes_clips(model) and len(outputs) == 1
    return end if clips and isinstance(end, keras.layers.Identity) and end.name.startswith(CLIP_PREDICTION) else None


def window_of(clip_model: keras.Model) -> int | None:
    """The number of frames that a network that takes clips sees at once; None for a per-frame network.

    Raises:
        DeltafineError: the model is no clip model, has several outputs, or its clip length is unknown.
    """
    if len(frame_layers(clip_model)) == 1:
        return None
    if window_layer(clip_model) is None:
        raise DeltafineError(
            f"Model '{clip_model.name}' has neither a layer '{FRAME_PREDICTIONS}' nor '{CLIP_PREDICTION}' to measure: "
            "make a clip model of one that gives one output, with insert_deltas."
        )
    length: int | None = clip_model.inputs[0].shape[1]
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
    """
    names = Names()
    for operation in graph.operations_between(clip_model.inputs, clip_model.outputs):
        names.keep(operation)
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


def times_of_calls(model: keras.Model) -> dict[str, Steps | None]:
    """Where the (first) input of every call of a network that takes clips has its time, by path; None where nowhere."""
    traced = trace(model)
    times = times_of_values(traced)
    return {call.path: times.get(call.inputs[0]) for call in traced.calls if call.inputs}
