"""Where frames are in a traced model: on the batch axis, or on a time axis of their own.

A per-frame model takes frames of rank 2 to 4 (batch first); time is folded into its batch, and every one of its
tensors is a tensor of frames. A model with an input of rank 5, (batch, time, height, width, channels), takes
clips already; its tensors have time on axis 1 until something (a recurrent layer, a global pooling) sums it up.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras

from deltafine.errors import DeltafineError
from deltafine.layers.time import FoldTime, UnfoldTime
from deltafine.model import graph
from deltafine.model.trace import Call, FoldFrames, Trace, UnfoldFrames, Value

layers = keras.layers
_CLIP_RANK = 5
# These slide over time and keep it as axis 1, shorter or longer.
_SLIDE_OVER_TIME = (
    layers.Conv3D, layers.Conv3DTranspose, layers.MaxPooling3D, layers.AveragePooling3D, layers.ZeroPadding3D,
    layers.Cropping3D, layers.UpSampling3D,
    layers.Conv1D, layers.SeparableConv1D, layers.DepthwiseConv1D, layers.Conv1DTranspose, layers.MaxPooling1D,
    layers.AveragePooling1D, layers.ZeroPadding1D, layers.Cropping1D, layers.UpSampling1D,
)  # fmt: skip
_MOVES_AXES = ("Transpose", "Moveaxis", "Swapaxes", "Permute")
_SUMMARIES = ("Mean", "Sum", "Max", "Min", "Prod", "Var", "Std", "Any", "All", "Logsumexp", "Median", "Norm")


def takes_clips(model: keras.Model) -> bool:
    """Whether the model has a time axis of its own."""
    return any(len(tensor.shape) == _CLIP_RANK for tensor in graph.input_tensors(model))


def takes_clips_as_traced(trace: Trace) -> bool:
    """The same of a traced model."""
    return any(len(value.shape) == _CLIP_RANK for value in trace.inputs.values())


@dataclass(frozen=True)
class Steps:
    """How many steps of time a tensor holds, and whether they are folded into its batch or on axis 1."""

    steps: int
    folded: bool


def values_with_frames(trace: Trace) -> set[Value]:
    """The tensors in which a frame can be told from the one before it."""
    if takes_clips_as_traced(trace):
        return set(times_of_values(trace))
    found = set(trace.maker) | set(trace.inputs.values())
    for call in trace.calls:
        # What TimeDistributed runs over in a single frame is something else than time.
        apart = any(value not in found for value in call.inputs) and not isinstance(call.operation, UnfoldFrames)
        if isinstance(call.operation, FoldFrames) or apart:
            found.difference_update(call.outputs)
    return found


def times_of_values(trace: Trace) -> dict[Value, Steps]:
    """The tensors of a model that takes clips in which a frame can be told from the one before it."""
    found = {value: Steps(value.shape[1] or 1, False) for value in trace.inputs.values() if len(value.shape) >= 3}
    for call in trace.calls:
        timed = [value for value in call.inputs if value in found]
        if not timed:
            continue
        before = found[timed[0]]
        if isinstance(call.operation, FoldFrames | FoldTime):
            if before.folded:
                raise DeltafineError(
                    f"Layer '{call.path.removesuffix('/fold')}' is TimeDistributed inside another TimeDistributed: "
                    "build the model again with time and the other axis in one."
                )
            found[call.outputs[0]] = Steps(before.steps, True)  # FoldTime's other output is the clock
        elif isinstance(call.operation, UnfoldFrames | UnfoldTime):
            found[call.outputs[0]] = Steps(before.steps, False)
        elif before.folded:
            found.update(dict.fromkeys(call.outputs, before))
        else:
            found.update(
                {
                    value: Steps(value.shape[1] or 1, False)
                    for value in call.outputs
                    if _keeps_time(call, timed[0], value)
                }
            )
    return found


def _keeps_time(call: Call, source: Value, value: Value) -> bool:
    if len(value.shape) < 3 or type(call.operation).__name__ in _MOVES_AXES:
        return False
    return isinstance(call.operation, _SLIDE_OVER_TIME) or value.shape[1] == source.shape[1]


def require_frames_apart(model: keras.Model, trace: Trace) -> None:
    """Refuse a model that mixes the samples of a batch: with time folded into the batch it would mix frames.

    Raises:
        DeltafineError: naming the operation.
    """
    if any(tensor.shape[0] is not None for tensor in graph.input_tensors(model)):
        return
    used = {*trace.readers, *trace.outputs}
    for call in trace.calls:
        if call.inputs and call.inputs[0].shape[0] is None and _mixes_samples(call, used):
            raise DeltafineError(
                f"Operation '{call.path}' ({type(call.operation).__name__}) of model '{model.name}' works across the "
                "batch axis, which also holds the frames of a clip here: give it an axis other than 0."
            )


def _mixes_samples(call: Call, used: set[Value]) -> bool:
    """Whether an output that something reads is of the whole batch; what else a layer gives does not matter."""
    outputs = [value for value in call.outputs if value in used]
    if any(not value.shape or value.shape[0] is not None for value in outputs):
        return True
    axis = getattr(call.operation, "axis", 1)
    if axis is None:
        return type(call.operation).__name__ in _SUMMARIES
    axes = axis if isinstance(axis, list | tuple) else [axis]
    rank = len(call.inputs[0].shape)
    return type(call.operation).__name__ != "ExpandDims" and any(one in (0, -rank) for one in axes)


def require_channels_last(model: keras.Model) -> None:
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
