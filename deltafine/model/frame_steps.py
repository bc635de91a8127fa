"""A network that takes clips, as what it does with one frame after the other.

``TimeDistributed`` parts, and what works on each step alone, take the frame. Recurrent layers take one step: their
states go in, and their next states come out. So does a causal convolution over time, of which the states are the
frames before. The answer to a frame is then the one that the network gives for the clip
that ends with it, however long that is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from deltafine.errors import DeltafineError
from deltafine.layers import DeltaActivation, FoldTime, UnfoldTime
from deltafine.layers.state_deltas import DeltaStates
from deltafine.model import along_time, graph, keras_private, recurrent
from deltafine.model.activation_calls import activation_kind
from deltafine.model.insert import insert_deltas
from deltafine.model.layer_names import Names
from deltafine.model.recurrent_steps import RecurrentStep

layers = keras.layers
_STEP_BY_STEP = (
    layers.Dense, layers.Identity, layers.Rescaling, layers.Dropout, layers.GaussianNoise, layers.GaussianDropout,
    layers.AlphaDropout, layers.ReLU, layers.LeakyReLU, layers.ELU,
    layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum,
)  # fmt: skip
_ALONG_CHANNELS = (layers.LayerNormalization, layers.RMSNormalization, layers.UnitNormalization, layers.Concatenate)
_OPERATIONS = ("Add", "Subtract", "Multiply", "Maximum", "Minimum", "Negative", "Absolute", "Cast")


@dataclass(frozen=True)
class FrameSteps:
    """What a network that takes clips does with a frame.

    Attributes:
        model: a graph from a frame and states to answers and next states. It says what is computed, and is not to be
            called: its delta layers want to be given one frame after the other.
        states: how many there are, the last of its inputs and of its outputs. In a first frame they are zeros.
    """

    model: keras.Model
    states: int


@dataclass(frozen=True)
class _OverTime:
    """Stands for a tensor (batch, time, ...) of the network: the frame's (batch, ...).

    ``padding`` frames of zeros stand before the first one.
    """

    value: keras.KerasTensor
    padding: int = 0


def frame_steps(model: keras.Model) -> FrameSteps:
    """The steps of a network that takes clips, refined or not.

    Raises:
        DeltafineError: a layer works on several frames at once, so the network cannot run frame by frame.
    """
    _require_forward(model)
    inside = [layer for _, layer in graph.all_layers_by_path(model)]
    if any(isinstance(layer, layers.TimeDistributed) for layer in inside):
        model = insert_deltas(model, [])
    return _Steps(model).made()


def _require_forward(model: keras.Model) -> None:
    """Refuse recurrent layers that cannot go from frame to frame, each with its reason.

    Raises:
        DeltafineError: naming the first one.
    """

    def on_call(name: str, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        layer = node.operation
        if isinstance(layer, layers.RNN | layers.Bidirectional) and (why := _why_not_forward(layer, node)):
            raise DeltafineError(
                f"Layer '{name}' ({type(layer).__name__}) of model '{model.name}' {why}, so the model cannot run frame "
                "by frame: run it in Keras, or build that part as a recurrent layer without that."
            )
        return [None] * len(node.outputs)

    graph.walk(model, graph.input_tensors(model), on_call)


def _why_not_forward(layer: keras.layers.Layer, node: Any) -> str:
    if isinstance(layer, layers.Bidirectional) or layer.go_backwards:
        return "reads a clip from its last frame on"
    if _is_masked(node) or any(tensor.dtype == "bool" for tensor in node.input_tensors):
        return "leaves out steps by a mask"
    return "begins with a state that the model computes (initial_state)" if len(node.input_tensors) > 1 else ""


class _Steps:
    """Walks through a network that takes clips."""

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._names = Names(graph.operation_names(model))
        self._nested: dict[int, keras.Model] = {}
        self._before: list[keras.KerasTensor] = []
        self._after: list[keras.KerasTensor] = []

    def made(self) -> FrameSteps:
        tensors = graph.input_tensors(self._model)
        frames = [self._names.input(tensor.name, (None, *tensor.shape[2:]), tensor.dtype) for tensor in tensors]
        outputs = graph.walk(self._model, [_OverTime(frame) for frame in frames], self._call)
        answers = [output.value if isinstance(output, _OverTime) else output for output in outputs]
        # An answer that is a state as well, or an input, is a tensor of its own.
        answers = [keras.ops.copy(answer) if _is_among(answer, self._after) else answer for answer in answers]
        made = self._names.model([*frames, *self._before], [*answers, *self._after], self._model.name)
        return FrameSteps(made, len(self._before))

    def _call(self, name: str, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        operation = node.operation
        given = [leaf for leaf in keras.tree.flatten((args, kwargs)) if isinstance(leaf, _OverTime | keras.KerasTensor)]
        if isinstance(operation, FoldTime):
            return args[0].value, None
        if isinstance(operation, UnfoldTime):
            return _OverTime(args[0])
        if not any(isinstance(leaf, _OverTime) for leaf in given):
            return self._call_on_frames(operation, args, kwargs, self._names)
        if isinstance(operation, layers.RNN) and len(given) == 1 and not _is_masked(node):
            return self._recurrent(name, operation, args[0].value)
        if len(given) == 1 and isinstance(args[0], _OverTime) and not _is_masked(node):
            made = self._along_time(operation, args[0])
            if made is not None:
                return made
        if any(isinstance(leaf, _OverTime) and leaf.padding for leaf in given):
            raise self._several_frames(name, operation)
        if type(operation).__name__ == "GetItem" and _takes_last(args):
            return args[0].value[(slice(None), *args[1][2:])]
        rank = len(node.input_tensors[0].shape)
        if _is_masked(node) or not _works_on_each(operation, rank) or len(given) != len(node.input_tensors):
            raise self._several_frames(name, operation)
        values = keras.tree.map_structure(lambda leaf: leaf.value if isinstance(leaf, _OverTime) else leaf, args)
        return _OverTime(self._names.keep(operation)(*values, **kwargs))

    def _along_time(self, operation: Any, given: _OverTime) -> _OverTime | None:
        """What a layer over time and space gives, if it needs no frames but those up to this one."""
        before = along_time.padding_before(operation)
        if before is not None:
            return _OverTime(along_time.padded(operation, given.value, self._names), given.padding + before)
        reach = along_time.frames_before(operation, given.padding)
        if reach is not None:
            return _OverTime(along_time.convolved(operation, given.value, reach, self._names, self._remember))
        one = None if given.padding else along_time.on_frames(operation, self._names)
        return None if one is None else _OverTime(one(given.value))

    def _remember(self, name: str, value: keras.KerasTensor, frames: int) -> list[keras.KerasTensor]:
        """States that hold a tensor as it was in so many frames before, the last one first."""
        past = [self._names.input(self._names.free(f"{name}_state"), value.shape, value.dtype) for _ in range(frames)]
        self._before += past
        self._after += [keras.ops.copy(one) for one in (value, *past[:-1])]
        return past

    def _call_on_frames(self, operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any], names: Names) -> Any:
        """A call on frames that are folded into the batch, or behind the end of time."""
        if isinstance(operation, DeltaActivation):
            return names.keep(operation)(args[0])
        if not graph.is_graph(operation):
            return names.keep(operation)(*args, **kwargs)
        values = graph.nested_inputs(operation, args, kwargs)
        if id(operation) not in self._nested:
            self._nested[id(operation)] = self._without_clock(operation, values)
        model = self._nested[id(operation)]
        outputs = keras.tree.flatten(names.keep(model)([value for value in values if value is not None]))
        return keras.tree.pack_sequence_as(graph.output_structure(operation), outputs)

    def _without_clock(self, model: keras.Model, values: Sequence[Any]) -> keras.Model:
        inside = Names(graph.operation_names(model))
        tensors = graph.input_tensors(model)
        inputs = [
            None if value is None else inside.input(tensor.name, tensor.shape, tensor.dtype)
            for tensor, value in zip(tensors, values, strict=True)
        ]

        def call(name: str, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return self._call_on_frames(node.operation, args, kwargs, inside)

        outputs = graph.walk(model, inputs, call)
        return inside.model([tensor for tensor in inputs if tensor is not None], outputs, model.name)

    def _recurrent(self, name: str, layer: keras.layers.Layer, inputs: keras.KerasTensor) -> Any:
        """One step of a recurrent layer: a graph inside this one, so that what is in it is called as in reports."""
        if not recurrent.is_covered(layer) or layer.go_backwards:
            raise self._several_frames(name, layer)
        inside = Names()
        into = inside.input("step", (None, *inputs.shape[1:]), inputs.dtype)
        one = RecurrentStep(layer, inputs.shape[1:], inside)
        deltas = layer.state_deltas if isinstance(layer, DeltaStates) else {}

        def send(product: str, value: keras.KerasTensor) -> keras.KerasTensor:
            return inside.keep(deltas[product])(value) if product in deltas else value

        dtype = layer.compute_dtype
        shapes = [(None, *shape) for shape in one.state_shapes]
        before = [inside.input(f"before_{index}", shape, dtype) for index, shape in enumerate(shapes)]
        _, after = one(into, before, send)
        step = self._names.keep(inside.model([into, *before], after, layer.name))
        outer = [self._names.input(self._names.free(f"{layer.name}_state"), shape, dtype) for shape in shapes]
        states = keras.tree.flatten(step([inputs, *outer]))
        self._before += outer
        self._after += states
        output = _OverTime(states[0]) if layer.return_sequences else states[0]
        return [output, *states] if layer.return_state else output

    def _several_frames(self, name: str, operation: Any) -> DeltafineError:
        return DeltafineError(
            f"Layer '{name}' ({type(operation).__name__}) of model '{self._model.name}' works on several frames at "
            "once, so the model cannot run frame by frame: run it in Keras, or build that part as a recurrent layer."
        )


def _works_on_each(operation: Any, rank: int) -> bool:
    """Whether an operation on (batch, time, ...) does the same with each step alone."""
    if isinstance(operation, DeltaActivation):
        return True
    if isinstance(operation, (layers.Softmax, *_ALONG_CHANNELS)):
        axes = operation.axis if isinstance(operation.axis, list | tuple) else [operation.axis]
        return list(axes) == [-1]
    plain = type(operation).__module__.startswith("keras.")
    if isinstance(operation, layers.Layer):
        return plain and isinstance(operation, (*_STEP_BY_STEP, layers.Activation))
    return type(operation).__name__ in _OPERATIONS or (rank > 2 and activation_kind(operation) in _SIMPLE)


_SIMPLE = ("relu", "relu6", "sigmoid", "tanh", "gelu", "silu", "elu", "selu", "softplus", "leaky_relu", "hard_sigmoid")


def _takes_last(args: tuple[Any, ...]) -> bool:
    """Whether an index takes the last step: ``x[:, -1]``."""
    key = args[1] if len(args) > 1 else None
    return isinstance(key, tuple) and len(key) > 1 and key[0] == slice(None) and key[1] == -1 and key[1] is not True


def _is_masked(node: Any) -> bool:
    return any(keras_private.is_masked(tensor) for tensor in node.input_tensors)


def _is_among(tensor: keras.KerasTensor, others: Sequence[keras.KerasTensor]) -> bool:
    return any(tensor is other for other in others)
