"""A model as one flat list of calls, nested models opened, with the shapes of one frame.

The trace runs the graph on shapes only. It is what the search for activations, the operation counts and
the fan-out of a site read; the rewriting walks the model itself by the same names.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import keras

from deltafine.errors import DeltafineError
from deltafine.model import graph, keras_private

if TYPE_CHECKING:
    from deltafine.model.composite_layers import Inside


@dataclass(frozen=True, eq=False)
class Value:
    """One tensor of the graph: its shape with the batch axis first, and its dtype."""

    shape: tuple[int | None, ...]
    dtype: str

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape without the batch axis."""
        return tuple(self.shape[1:])  # type: ignore[arg-type]


class FoldFrames:
    """Stands for what ``TimeDistributed`` does before its layer: (batch, time, ...) to (batch * time, ...)."""

    name = "fold"


class UnfoldFrames:
    """Stands for what ``TimeDistributed`` does after its layer: (batch * time, ...) to (batch, time, ...)."""

    name = "unfold"


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer or operation that is not itself a graph.

    Attributes:
        path: unique name, ``outer/inner`` for nested models, ``#1`` behind whatever is called again.
        operation: the layer or operation.
        inputs: the tensors it reads, flat.
        outputs: the tensors it makes, flat.
        args: positional arguments as in the model, with a ``Value`` for every tensor.
        kwargs: keyword arguments, likewise.
        repeats: how often it runs per sample of the model's input; more than 1 inside ``TimeDistributed``.
        site_name: the path at the first call of a nested model, as later calls share its layers.
        masked: whether a mask of Keras comes with its inputs.
    """

    path: str
    operation: Any
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    repeats: int = 1
    site_name: str = ""
    masked: bool = False


class Trace:
    """The calls of a model in order of computation, and who makes and who reads each tensor.

    ``names`` holds the names of all operations on each level by its site name, "" for the outermost; ``homes``, by the
    id of a graph that is called, the site name of what is inside, with a slash behind it; ``insides``, by the id of a
    layer, what is inside those of which the calls inside stand for theirs.
    """

    def __init__(self, inputs: dict[str, Value], open_wrappers: bool = True, opener: Opener | None = None) -> None:
        self.inputs = inputs
        self.open_wrappers = open_wrappers
        self.opener = opener
        self.insides: dict[int, Inside] = {}
        self._given_by: dict[Value, str] = {}
        self.outputs: list[Value] = []
        self.calls: list[Call] = []
        self.maker: dict[Value, Call] = {}
        self.readers: dict[Value, list[Call]] = defaultdict(list)
        self.homes: dict[int, str] = {}
        self.names: dict[str, set[str]] = {}

    def site_name(self, call: Call) -> str:
        """The place behind a call: that of the layer whose output it gives, where it is the last one in a layer."""
        return self._given_by.get(call.outputs[0], call.site_name) if len(call.outputs) == 1 else call.site_name

    def gives(self, site_name: str, value: Value) -> None:
        """A value made inside a layer is what the layer gives."""
        self._given_by[value] = site_name

    def add(self, call: Call) -> None:
        """Append a call whose inputs are already there."""
        self.calls.append(call)
        for value in call.outputs:
            self.maker[value] = call
        for value in dict.fromkeys(call.inputs):
            self.readers[value].append(call)


Opener = Callable[[Call], "Inside | None"]
"""Says what is inside the layer of a call, if the calls in there are to stand for it."""


def trace(
    model: keras.Model,
    frame_shape: Sequence[int | None] | None = None,
    *,
    open_wrappers: bool = True,
    opener: Opener | None = None,
) -> Trace:
    """Trace a built Functional or Sequential model.

    Args:
        model: the model.
        frame_shape: shape of one input sample without the batch axis, for a model that takes frames of any size;
            by default the model's own. Further inputs keep theirs, but for the time that they have in common.
        open_wrappers: show what ``TimeDistributed`` runs on each frame; else it is one call.
        opener: asked of each layer what is inside it; by default all of them stay whole.

    Raises:
        DeltafineError: an input size is unknown, or ``frame_shape`` does not fit the model.
    """
    tensors = graph.input_tensors(model)
    shapes = [tuple(tensor.shape) for tensor in tensors]
    if frame_shape is not None:
        shapes = _fitting(model, tuple(frame_shape))
    for tensor, shape in zip(tensors, shapes, strict=True):
        if any(size is None for size in shape[1:]):
            raise DeltafineError(
                f"Input '{tensor.name}' of model '{model.name}' takes any size {shape[1:]}, and operations "
                "can only be counted for a known one: give the frame size."
            )
    values = [
        Value(shape, keras.backend.standardize_dtype(tensor.dtype))
        for tensor, shape in zip(tensors, shapes, strict=True)
    ]
    names = [tensor.name for tensor in tensors]
    result = Trace(dict(zip(names, values, strict=True)), open_wrappers, opener)
    result.outputs = _trace_graph(model, values, _Level("", "", 1), result)
    return result


def _fitting(model: keras.Model, frame_shape: tuple[int | None, ...]) -> list[tuple[int | None, ...]]:
    """Shapes of all inputs, that of the frames being this one."""
    frames = graph.frames_input(model)
    own = tuple(frames.shape[1:])
    fits = len(own) == len(frame_shape) and all(a in (None, b) for a, b in zip(own, frame_shape, strict=True))
    if not fits:
        raise DeltafineError(f"Frames of shape {frame_shape} do not fit the model's input shape {own}.")
    found = []
    for tensor in graph.input_tensors(model):
        batch, *sizes = tensor.shape
        if tensor is frames:
            sizes = list(frame_shape)
        elif len(own) == 4 and sizes[:1] == [None]:
            sizes = [frame_shape[0], *sizes[1:]]
        found.append((batch, *sizes))
    return found


@dataclass(frozen=True)
class _Level:
    """Where the tracing is: path of the graph, path of its first call, calls per sample of the model's input."""

    path: str
    site: str
    repeats: int


def _trace_graph(model: graph.Graph, inputs: Sequence[Value], level: _Level, result: Trace) -> list[Value]:
    def on_call(name: str, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        operation = node.operation
        if graph.is_graph(operation):
            inner = graph.nested_inputs(operation, args, kwargs)
            return _trace_graph(operation, inner, _inside(operation, name, level, result), result)
        if isinstance(operation, keras.layers.TimeDistributed) and result.open_wrappers:
            return _trace_time_distributed(operation, name, args, kwargs, level, result)
        outputs = _output_values(node, args, kwargs)
        masked = any(keras_private.is_masked(tensor) for tensor in node.input_tensors)
        call = _call(level, name, operation, outputs, args, kwargs, masked)
        inside = None if result.opener is None else result.opener(call)
        if inside is None:
            result.add(call)
            return outputs
        result.insides[id(operation)] = inside
        given = _trace_graph(
            inside.function, inside.inputs(args, kwargs), _inside(operation, name, level, result), result
        )
        if len(given) == 1:
            result.gives(call.site_name, given[0])
        return given

    result.names[level.site.removesuffix("/")] = set(graph.operation_names(model))
    return graph.walk(model, inputs, on_call)


def _trace_time_distributed(
    wrapper: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], level: _Level, result: Trace
) -> list[Value]:
    """A wrapper that runs a layer or model on each frame: fold, the layer, unfold."""
    clips = args[0] if args else kwargs["inputs"]
    inner, length = wrapper.layer, clips.shape[1]
    frames = Value((None, *clips.shape[2:]), clips.dtype)
    result.add(_call(level, f"{name}/fold", FoldFrames(), [frames], (clips,), {}))
    level = _Level(level.path, level.site, level.repeats * length)
    if graph.is_graph(inner):
        outputs = _trace_graph(inner, [frames], _inside(inner, name, level, result), result)
    else:
        spec = inner.compute_output_spec(_symbolic(frames))
        outputs = [Value(tuple(spec.shape), keras.backend.standardize_dtype(spec.dtype))]
        result.add(_call(level, name, inner, outputs, (frames,), {}))
    unfolded = [Value((None, length, *value.shape[1:]), value.dtype) for value in outputs]
    result.add(_call(level, f"{name}/unfold", UnfoldFrames(), unfolded, tuple(outputs), {}))
    return unfolded


def _inside(inner: Any, name: str, level: _Level, result: Trace) -> _Level:
    path = f"{level.path}{name}/"
    return _Level(path, result.homes.setdefault(id(inner), f"{level.site}{name}/"), level.repeats)


def _call(
    level: _Level, name: str, operation: Any, outputs: Sequence[Value],
    args: tuple[Any, ...], kwargs: dict[str, Any], masked: bool = False,
) -> Call:  # fmt: skip
    inputs = tuple(leaf for leaf in keras.tree.flatten((args, kwargs)) if isinstance(leaf, Value))
    path, site = level.path + name, level.site + name
    return Call(path, operation, inputs, tuple(outputs), args, kwargs, level.repeats, site, masked)


def _output_values(node: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Value]:
    """Shapes of the outputs: those recorded in the model where the inputs' shapes are, else computed.

    What a layer says of its outputs may leave sizes open that are known here (EinsumDense), or be wrong: a ``glu``
    inside another layer halves the channels, and RandomCrop crops in training alone. Then the call itself is asked.
    """
    given = [leaf for leaf in keras.tree.flatten((args, kwargs)) if isinstance(leaf, Value)]
    recorded = [tuple(tensor.shape)[1:] for tensor in node.input_tensors]
    operation, outputs = node.operation, node.outputs
    symbolic = keras.tree.map_structure(_symbolic, (args, kwargs))
    if [value.shape[1:] for value in given] != recorded:
        outputs = keras.tree.flatten(operation.compute_output_spec(*symbolic[0], **symbolic[1]))
    sizes_known = all(None not in value.shape[1:] for value in given)
    sizes_open = any(None in tuple(tensor.shape)[1:] for tensor in outputs)
    mistaken = getattr(operation, "activation", None) is keras.activations.glu
    if (sizes_known and sizes_open) or mistaken or isinstance(operation, keras.layers.RandomCrop):
        used = {"training": False} if keras_private.takes_training(operation) else {}
        with contextlib.suppress(ValueError):  # a call that cannot be made fails in Keras, too, with its own words
            spec = keras.Operation.compute_output_spec(operation, *symbolic[0], **{**symbolic[1], **used})
            outputs = keras.tree.flatten(spec)
    return [Value(tuple(tensor.shape), keras.backend.standardize_dtype(tensor.dtype)) for tensor in outputs]


def _symbolic(leaf: Any) -> Any:
    return keras.KerasTensor(leaf.shape, dtype=leaf.dtype) if isinstance(leaf, Value) else leaf
