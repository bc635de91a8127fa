"""From a Keras model to a plan: each call lowered to plain operations, then what can be done in one pass joined.

Batch normalisation behind a convolution is folded into its weights, in double precision; activations and delta layers
move into the operation before them; zero padding moves into the convolution behind it. Delta layers with a rule of the
user's own stay operations by themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from deltafine.errors import DeltafineError
from deltafine.layers import DeltaActivation
from deltafine.layers.time import FoldTime, UnfoldTime
from deltafine.model import graph
from deltafine.model.carried_states import answers_of, carried_steps, clip_of, without_kept_states
from deltafine.model.clip_model import frame_layers
from deltafine.model.frame_steps import FrameSteps, frame_steps
from deltafine.model.further_inputs import FurtherInput, further_inputs
from deltafine.model.time_axis import require_channels_last, require_frames_apart
from deltafine.model.trace import Call, Trace, Value, trace
from deltafine.runtime.keras_macs import count_left_to_keras
from deltafine.runtime.lowering.draft import Lowering
from deltafine.runtime.lowering.layers import lower
from deltafine.runtime.lowering.masks import Masks
from deltafine.runtime.lowering.order import neighbours_together
from deltafine.runtime.output_structure import described
from deltafine.runtime.plan import DELAY, GIVEN, MACS, Finish, Operation, Plan

_NOT_FINISHED_HERE = ("place", "concatenate", "reshape", "constant", "keras", DELAY, GIVEN)
"""Kinds that move values around and compute no rows that could be finished at once."""


@dataclass
class Compiled:
    """A plan, and the calls that it leaves to Keras, with the place of the output, by the names of their operations."""

    plan: Plan
    calls: dict[str, tuple[Call, int]]


def compile_model(model: keras.Model, frame_size: tuple[int, int] | None = None) -> Compiled:
    """Compile a model that works frame by frame.

    Args:
        model: a clip model with or without delta layers, as ``insert_deltas`` makes it, a model of single frames, or
            one that takes clips and can go from frame to frame.
        frame_size: (height, width), for a model that takes any size.

    Raises:
        DeltafineError: the model cannot run on single frames, has inputs beside the frames that are no numbers of a
            frame, or computes in double precision.
    """
    tensors = graph.input_tensors(model)
    carried = carried_steps(model) if len(tensors) > 1 else None
    further = {} if carried is not None else _further(model)
    require_channels_last(model)
    _require_single(model)
    if carried is not None:
        return _compile_steps(carried, answers_of(model))
    shape = tuple(graph.frames_input(model).shape)
    if len(shape) == 5 and not frame_layers(model):
        compiled = _compile_steps(frame_steps(without_kept_states(model)), graph.output_structure(model))
        compiled.plan.clip = clip_of(model)
        return compiled
    clips = any(isinstance(layer, FoldTime) for _, layer in graph.all_layers_by_path(model))
    frame_shape = shape[2:] if clips else shape[1:]
    if frame_size is not None:
        frame_shape = (*frame_size, *frame_shape[2:])
    traced = trace(model, (1, *frame_shape) if clips else frame_shape, open_wrappers=False)
    if not clips:
        require_frames_apart(model, traced)
    source = traced.inputs[graph.frames_input(model).name]
    frame = Value((None, *source.shape[2:]), source.dtype) if clips else source
    lowering = Lowering(model.name, frame)
    if clips:
        lowering.alias(source, frame)
    for name, one in further.items():
        lowering.known[traced.inputs[name]] = _given(lowering, one)
    per_frame, masks = frame_layers(model), Masks(model.name)
    for call in traced.calls:
        # What does not come from a frame alone works on whole clips, behind the frames.
        if _is_of_frames(call, lowering) and not _is_one_of(call, per_frame):
            masks.follow(call)
            lower(lowering, call)
    ends = [_of_a_frame(value, traced, per_frame) for value in traced.outputs] if clips else traced.outputs
    outputs = [value for value in ends if value is not None and value in lowering.known]
    if not outputs or len(outputs) < len(ends):
        raise DeltafineError(f"Model '{model.name}' does not give one prediction per frame.")
    return _finished(lowering, graph.output_structure(model), outputs)


def _further(model: keras.Model) -> dict[str, FurtherInput]:
    """The inputs beside the frames, by the names of their tensors.

    Raises:
        DeltafineError: one of them is none that a frame could come with.
    """
    frames = graph.frames_input(model)
    tensors = [tensor for tensor in graph.input_tensors(model) if tensor is not frames]
    try:
        return {tensor.name: one for tensor, one in zip(tensors, further_inputs(model), strict=True)}
    except DeltafineError as error:
        raise DeltafineError(
            f"Model '{model.name}' has {len(tensors) + 1} inputs, and a stream gives one frame at a time, with numbers "
            f"at most: {error} Or, if all inputs but one are states, give it a dict of outputs with each new state "
            "under its input's name and of its shape."
        ) from error


def _given(lowering: Lowering, one: FurtherInput) -> int:
    """Append a further input; returns the tensor."""
    whole = any(wanted.whole for wanted in one.wanted)
    return lowering.add(GIVEN, one.name, (), one.shape, whole=whole, most=one.most or 0, layer="input")


def _compile_steps(steps: FrameSteps, structure: Any) -> Compiled:
    """Compile a graph of one frame with states; ``structure`` is that of its answers."""
    traced = trace(steps.model, open_wrappers=False)
    require_frames_apart(steps.model, traced)
    (_, frame), *before = traced.inputs.items()
    lowering = Lowering(steps.model.name, frame)
    for name, value in before:
        lowering.known[value] = lowering.add(DELAY, name, (), value.sample_shape, layer="state")
    masks = Masks(steps.model.name)
    for call in traced.calls:
        masks.follow(call)
        lower(lowering, call)
    answers = traced.outputs[: len(traced.outputs) - steps.states]
    delays = [operation for operation in lowering.plan.operations if operation.kind == DELAY]
    for operation, after in zip(delays, traced.outputs[len(answers) :], strict=True):
        operation.before = lowering.known[after]
    return _finished(lowering, structure, answers)


def _finished(lowering: Lowering, structure: Any, outputs: Sequence[Value]) -> Compiled:
    """The plan with these outputs, in such a structure."""
    plan = lowering.plan
    plan.outputs = tuple(
        lowering.reshaped(value, f"{plan.name}:{place}", value.sample_shape) for place, value in enumerate(outputs)
    )
    places = keras.tree.pack_sequence_as(structure, range(len(outputs)))
    plan.structure = described(places)
    _join(plan)
    plan.operations = neighbours_together(plan.operations)
    count_left_to_keras(plan, lowering.calls)
    return Compiled(plan, {operation.name: lowering.calls[operation.name] for operation in plan.unknown})


def _is_of_frames(call: Call, lowering: Lowering) -> bool:
    known = [value in lowering.known for value in call.inputs]
    with_clock = isinstance(call.operation, DeltaActivation | UnfoldTime)
    return any(known[:1]) and (with_clock or all(known))


def _is_one_of(call: Call, layers: Sequence[keras.layers.Layer]) -> bool:
    return any(call.operation is layer for layer in layers)


def _of_a_frame(value: Value, traced: Trace, per_frame: Sequence[keras.layers.Layer]) -> Value | None:
    """The prediction of a frame that an output of a clip model is made of."""
    call = traced.maker.get(value)
    while call is not None and call.inputs and not _is_one_of(call, per_frame):
        call = traced.maker.get(call.inputs[0])
    return call.inputs[0] if call is not None and call.inputs else None


def _require_single(model: keras.Model) -> None:
    """Half precision is computed in single, which holds all of its values; double is more than there is here."""
    for path, layer in graph.all_layers_by_path(model):
        if layer.compute_dtype == "float64":
            raise DeltafineError(
                f"Layer '{path}' of model '{model.name}' computes in {layer.compute_dtype}, and the runtime in "
                "float32: set keras.config.set_dtype_policy('float32') and build the model again with the same weights."
            )


def _join(plan: Plan) -> None:
    """Join operations until nothing changes, then drop what nobody needs and number the tensors again."""
    while _join_one(plan):
        pass
    needed = {*plan.outputs, *(operation.before for operation in plan.delays)}
    kept = []
    for operation in reversed(plan.operations):
        if operation.output in needed or operation.kind in ("input", GIVEN):
            kept.append(operation)
            needed.update(operation.inputs)
    plan.operations = kept[::-1]
    used = [operation.output for operation in plan.operations]
    number = {old: new for new, old in enumerate(used)}
    plan.tensors = [plan.tensors[old] for old in used]
    for operation in plan.operations:
        operation.inputs = tuple(number[old] for old in operation.inputs)
        operation.output = number[operation.output]
        operation.before = number.get(operation.before, -1)
    plan.outputs = tuple(number[old] for old in plan.outputs)
    names: set[str] = set()
    for operation in plan.operations:
        finish = operation.finish
        names |= {operation.weights, operation.table, operation.fan}
        names |= {finish.scale, finish.shift, finish.delta.threshold if finish.delta else ""}
    plan.arrays = {
        name: np.asarray(array, np.int32 if array.dtype.kind == "i" else np.float32, order="C")
        for name, array in plan.arrays.items()
        if name in names
    }


def _join_one(plan: Plan) -> bool:
    readers = Counter(index for operation in plan.operations for index in operation.inputs)
    readers.update(plan.outputs)
    readers.update(operation.before for operation in plan.delays)
    maker = {operation.output: operation for operation in plan.operations}
    for operation in plan.operations:
        if len(operation.inputs) != 1 or readers[operation.inputs[0]] != 1:
            continue
        before = maker[operation.inputs[0]]
        joined = (
            _join_finish(plan, before, operation)
            if operation.kind == "identity"
            else _join_padding(plan, before, operation)
        )
        if joined:
            return True
    return False


def _join_finish(plan: Plan, before: Operation, after: Operation) -> bool:
    """Let ``before`` do what ``after``, which only finishes rows, does."""
    first, second = before.finish, after.finish
    if plan.own_rule(after) is not None or after.restarts:
        return False  # it is asked in every frame, so what it sees must be there
    if before.kind == GIVEN:
        return False  # it keeps its name, its shape, and its place among the others
    shapes = (plan.tensors[operation.output].sample_shape for operation in (before, after))
    if before.kind == "input" and len(set(shapes)) > 1:
        return False  # frames keep the shape that they come in
    if second == Finish() and first.delta is None:  # the same values in another shape
        before.output = after.output
        plan.operations.remove(after)
        return True
    if before.kind in _NOT_FINISHED_HERE or first.delta is not None:
        return False
    if before.kind == "input" and second.activation != "linear":
        return False
    affine = bool(second.scale or second.shift)
    if affine and first.activation != "linear":
        return False
    if second.activation != "linear" and first.activation != "linear":
        return False
    if affine:
        _compose(plan, before, after)
    activation, parameters = (
        (second.activation, second.parameters)
        if second.activation != "linear"
        else (first.activation, first.parameters)
    )
    before.finish = replace(before.finish, activation=activation, parameters=parameters, delta=second.delta)
    before.output = after.output
    plan.operations.remove(after)
    return True


def _compose(plan: Plan, before: Operation, after: Operation) -> None:
    """Scale and shift of ``after`` behind those of ``before``: folded into weights where there are any."""
    arrays = plan.arrays
    scale = np.asarray(arrays.get(after.finish.scale, 1.0), np.float64)
    shift = arrays.get(before.finish.shift, np.float64(0)) * scale
    shift = shift + np.asarray(arrays.get(after.finish.shift, 0.0), np.float64)
    channels = plan.tensors[after.output].shape[2]
    if before.kind == "conv":
        arrays[before.weights] = arrays[before.weights] * scale
    elif before.kind == "depthwise":
        weights = arrays[before.weights]
        arrays[before.weights] = weights * np.broadcast_to(scale, (channels,)).reshape(weights.shape[2:])
    else:
        name = f"{after.name}:scale"
        arrays[name] = np.broadcast_to(arrays.get(before.finish.scale, np.float64(1)) * scale, (channels,))
        before.finish = replace(before.finish, scale=name)
    name = f"{after.name}:shift"
    arrays[name] = np.broadcast_to(shift, (channels,))
    before.finish = replace(before.finish, shift=name)


def _join_padding(plan: Plan, before: Operation, after: Operation) -> bool:
    """Let a convolution read the zeros around its input that a padding layer would write."""
    pads = before.kind == "place" and before.layer.startswith("ZeroPadding")
    if not pads or after.kind not in MACS:
        return False
    top, left = before.padding
    height, width, _ = plan.tensors[before.inputs[0]].shape
    plan.arrays[after.fan] = plan.arrays[after.fan][top : top + height, left : left + width]
    after.padding = (after.padding[0] + top, after.padding[1] + left)
    after.inputs = before.inputs
    plan.operations.remove(before)
    return True
