"""A clip model as it is trained and measured: predictions along time, and where each layer has its time.

A clip model of a per-frame network (see ``insert_deltas``) has all frames of all clips on the batch axis, from its
first layer to its last. One of a network that takes clips has them there only inside what was ``TimeDistributed``;
elsewhere they are on axis 1, as many as earlier layers left, until something sums time up.
"""

from __future__ import annotations

from typing import Any

import keras

from deltafine.errors import DeltafineError
from deltafine.model.time_axis import Steps, times_of_values
from deltafine.model.trace import trace

FRAME_PREDICTIONS = "frame_predictions"
"""Layer of a clip model of a per-frame network that gives one prediction per frame."""
CLIP_PREDICTION = "clip_prediction"
"""Layer that gives the prediction for a clip; the only one of a network that takes clips."""


def window_of(clip_model: Any) -> int | None:
    """The number of frames that a network that takes clips sees at once; None for a per-frame network.

    Raises:
        DeltafineError: the model is no clip model, has several outputs, or its clip length is unknown.
    """
    names = {layer.name for layer in clip_model.layers}
    if FRAME_PREDICTIONS in names:
        return None
    if CLIP_PREDICTION not in names:
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


def with_time(clip_model: Any) -> Any:
    """The same network with its predictions as (batch, time, ...), outputs last.

    Time is that of the clip for a per-frame network, and for one that takes clips as many steps as its output
    has: 1 where a clip has one answer. A single number per step gets an axis of its own.
    """
    if window_of(clip_model) is None:
        output = clip_model.get_layer(FRAME_PREDICTIONS).output
    else:
        output = clip_model.get_layer(CLIP_PREDICTION).output
        traced = trace(clip_model)
        if times_of_values(traced).get(traced.outputs[0]) is None:
            output = keras.ops.expand_dims(output, 1)
    if len(output.shape) == 2:
        output = keras.ops.expand_dims(output, -1)
    return keras.Model(clip_model.inputs, output, name=clip_model.name)


def times_of_calls(model: Any) -> dict[str, Steps | None]:
    """Where the (first) input of every call of a network that takes clips has its time, by path; None where nowhere."""
    traced = trace(model)
    times = times_of_values(traced)
    return {call.path: times.get(call.inputs[0]) for call in traced.calls if call.inputs}
