"""Where frames are in a traced model: on the batch axis, or on a time axis of their own.

A per-frame model takes frames of rank 2 to 4 (batch first); time is folded into its batch, and every one of its
tensors is a tensor of frames. A model with an input of rank 5, (batch, time, height, width, channels), takes
clips already; its tensors have time on axis 1 until something (a recurrent layer, a global pooling) sums it up.
"""

from __future__ import annotations

from typing import Any

import keras

from deltafine.errors import DeltafineError
from deltafine.model import graph
from deltafine.model.trace import Call, FoldFrames, Trace, UnfoldFrames, Value

layers = keras.layers
_CLIP_RANK = 5
# These slide over time and keep it as axis 1, shorter or longer.
_SLIDE_OVER_TIME = (
    layers.Conv3D, layers.Conv3DTranspose, layers.MaxPooling3D, layers.AveragePooling3D, layers.ZeroPadding3D,
    layers.Cropping3D, layers.UpSampling3D,
)  # fmt: skip
_MOVES_AXES = ("Transpose", "Moveaxis", "Swapaxes", "Permute")
_SUMMARIES = ("Mean", "Sum", "Max", "Min", "Prod", "Var", "Std", "Any", "All", "Logsumexp", "Median", "Norm")


def takes_clips(model: Any) -> bool:
    """Whether the model has a time axis of its own."""
    return any(len(tensor.shape) == _CLIP_RANK for tensor in graph.input_tensors(model))


def values_with_frames(trace: Trace) -> set[Value]:
    """The tensors in which a frame can be told from the one before it."""
    if not any(len(value.shape) == _CLIP_RANK for value in trace.inputs.values()):
        return set(trace.maker) | set(trace.inputs.values())
    found = {value for value in trace.inputs.values() if len(value.shape) >= 3}
    folded: set[Value] = set()
    for call in trace.calls:
        if isinstance(call.operation, FoldFrames) or any(value in folded for value in call.inputs):
            is_folded = not isinstance(call.operation, UnfoldFrames)
            (folded if is_folded else found).update(call.outputs)
            continue
        timed = [value for value in call.inputs if value in found]
        found.update(value for value in call.outputs if timed and _keeps_time(call, timed[0], value))
    return found | folded


def _keeps_time(call: Call, source: Value, value: Value) -> bool:
    if len(value.shape) < 3 or type(call.operation).__name__ in _MOVES_AXES:
        return False
    return isinstance(call.operation, _SLIDE_OVER_TIME) or value.shape[1] == source.shape[1]


def require_frames_apart(model: Any, trace: Trace) -> None:
    """Refuse a model that mixes the samples of a batch: with time folded into the batch it would mix frames.

    Raises:
        DeltafineError: naming the operation.
    """
    if any(tensor.shape[0] is not None for tensor in graph.input_tensors(model)):
        return
    for call in trace.calls:
        if call.inputs and call.inputs[0].shape[0] is None and _mixes_samples(call):
            raise DeltafineError(
                f"Operation '{call.path}' ({type(call.operation).__name__}) of model '{model.name}' works across the "
                "batch axis, which also holds the frames of a clip here: give it an axis other than 0."
            )


def _mixes_samples(call: Call) -> bool:
    if any(value.shape and value.shape[0] is not None for value in call.outputs):
        return True
    if any(not value.shape for value in call.outputs):
        return True
    axis = getattr(call.operation, "axis", 1)
    if axis is None:
        return type(call.operation).__name__ in _SUMMARIES
    axes = axis if isinstance(axis, list | tuple) else [axis]
    rank = len(call.inputs[0].shape)
    return type(call.operation).__name__ != "ExpandDims" and any(one in (0, -rank) for one in axes)


def require_channels_last(model: Any) -> None:
    """Refuse a model with its channels first: video frames come with the channels last, as pixels do.

    Raises:
        DeltafineError: naming the first such layer.
    """
    for _, layer in graph.all_layers_by_path(model):
        if getattr(layer, "data_format", None) == "channels_first":
            raise DeltafineError(
                f"Layer '{layer.name}' of model '{model.name}' has data_format='channels_first', and video has its "
                "channels last: build the model again with 'channels_last' and give it the same weights."
            )
