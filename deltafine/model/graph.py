"""The functional graph of a Keras model, walked call by call.

Keras keeps the graph of a Functional or Sequential model in private attributes, which ``keras_private`` reads.
Everything else in this room goes through ``walk``.

Names. Each call of an operation has a name that is unique in its graph: the operation's name, and for
the second call on ``name#1``, ``name#2``, in the order in which the calls were made. A call inside a
nested model has the path ``outer/inner``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import keras

from deltafine.errors import DeltafineError
from deltafine.layers.state_deltas import DeltaStates, recorded_states
from deltafine.model import keras_private

Graph: TypeAlias = keras.Model | keras.Function
"""Functional or Sequential models, and bare functions of Keras."""
Tensors: TypeAlias = keras.KerasTensor | list[keras.KerasTensor] | dict[str, keras.KerasTensor]
"""The symbolic inputs or outputs of a graph, as the user gave them."""
_CHANNELS = (1, 3)
"""That a frame may have."""
OnCall = Callable[[str, Any, tuple[Any, ...], dict[str, Any]], Any]


def is_graph(operation: keras.Operation) -> bool:
    """Whether the operation is itself a graph of operations: Functional, Sequential or ``keras.Function``.

    A Sequential model is none before it is built, nor where Keras cannot call its layers on shapes alone.
    """
    if isinstance(operation, keras.Sequential):
        return as_function(operation) is not None
    return isinstance(operation, keras.Function)


def as_function(model: Graph) -> keras.Function:
    """The ``keras.Function`` that holds the nodes of a model; a Sequential model keeps one inside."""
    return keras_private.function_of_sequential(model) if isinstance(model, keras.Sequential) else model


def input_tensors(model: Graph) -> list[keras.KerasTensor]:
    """The symbolic inputs of a graph, flat, in order."""
    return list(as_function(model).inputs)


def frames_input(model: Graph) -> keras.KerasTensor:
    """The input that takes frames or clips; the first one where none can be told from the others."""
    tensors = input_tensors(model)
    pictures = [tensor for tensor in tensors if len(tensor.shape) in (4, 5) and tensor.shape[-1] in _CHANNELS]
    return pictures[0] if len(pictures) == 1 else tensors[0]


def output_structure(model: Graph) -> Tensors:
    """The symbolic outputs of a graph as the user gave them: one tensor, a list or a dict."""
    return keras_private.output_structure(as_function(model))


def input_structure(model: Graph) -> Tensors:
    """The symbolic inputs of a graph as the user gave them: one tensor, a list or a dict."""
    return keras_private.input_structure(as_function(model))


def nested_inputs(model: Graph, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The values that a call of a nested graph passes to its inputs, flat, in the order of its inputs."""
    inputs = args[0] if args else kwargs["inputs"]
    if isinstance(inputs, dict) and not isinstance(input_structure(model), dict):
        return [inputs[tensor.name] for tensor in input_tensors(model)]
    return keras.tree.flatten(inputs)


def operation_names(model: Graph) -> list[str]:
    """Names of the operations on the model's own level."""
    return [operation.name for operation in as_function(model).operations]


def maker(tensor: keras.KerasTensor) -> keras.Operation:
    """The layer or operation that gives a symbolic tensor."""
    return keras_private.maker(tensor)


def arguments_of_maker(tensor: keras.KerasTensor) -> list[keras.KerasTensor]:
    """The symbolic tensors that a symbolic tensor is made from, flat."""
    return list(keras_private.call_that_made(tensor).input_tensors)


def rename_maker(outputs: Tensors, name: str) -> None:
    """Give the operation that made these symbolic tensors another name."""
    maker(keras.tree.flatten(outputs)[0]).name = name


def operations_between(inputs: Tensors, outputs: Tensors) -> list[keras.Operation]:
    """The operations that symbolic outputs depend on, the inputs' among them, in an order of computation."""
    ends = {id(tensor) for tensor in keras.tree.flatten(inputs)}
    waiting = [(tensor, False) for tensor in [*keras.tree.flatten(outputs)[::-1], *keras.tree.flatten(inputs)[::-1]]]
    seen: set[int] = set()
    found: dict[int, keras.Operation] = {}
    while waiting:
        tensor, arguments_done = waiting.pop()
        if arguments_done:
            found[id(maker(tensor))] = maker(tensor)
        elif id(tensor) not in seen:
            seen.add(id(tensor))
            waiting.append((tensor, True))
            if id(tensor) not in ends:
                waiting.extend((argument, False) for argument in arguments_of_maker(tensor)[::-1])
    return list(found.values())


def new_model(inputs: Tensors, outputs: Tensors, name: str) -> keras.Model:
    """A Functional model; ``deltafine.model.layer_names`` sees to it that names are free."""
    return keras.Model(inputs, outputs, name=name)


def require_plain_graph(model: Graph) -> None:
    """Refuse a graph whose class computes something else than the graph.

    Raises:
        DeltafineError: naming the class.
    """
    for inner in _graphs(model):
        kind: Any = type(inner)
        plain = next(base for base in kind.__mro__ if base.__module__.startswith("keras."))
        if kind.call is not plain.call:
            raise DeltafineError(
                f"Model '{inner.name}' is of class {kind.__name__}, which overrides call(), so its graph does "
                "not say what it computes: rebuild it as keras.Model(inputs, outputs)."
            )


def _graphs(model: Graph) -> Iterator[Graph]:
    """The graph and those nested in it or wrapped by its layers."""
    yield model
    for operation in as_function(model).operations:
        inner: Any = getattr(operation, "layer", None)
        for candidate in (operation, inner):
            if is_graph(candidate):
                yield from _graphs(candidate)


def all_outputs(model: Graph) -> Iterator[tuple[str, keras.KerasTensor]]:
    """Every symbolic tensor in a graph and those nested in it, with the name of the operation that gives it."""
    for inner in _graphs(model):
        for nodes in keras_private.nodes_by_depth(as_function(inner)).values():
            for node in nodes:
                yield from ((node.operation.name, tensor) for tensor in node.outputs)


def all_layers_by_path(model: Graph, prefix: str = "") -> Iterator[tuple[str, keras.layers.Layer]]:
    """Every layer of a graph with its path; nested models, insides of wrappers and delta layers of states included."""
    for operation in as_function(model).operations:
        if is_graph(operation):
            yield from all_layers_by_path(operation, f"{prefix}{operation.name}/")
        elif isinstance(operation, keras.layers.Layer):
            yield prefix + operation.name, operation
            if isinstance(operation, DeltaStates):
                yield from ((f"{prefix}{operation.name}/{d.name}", d) for d in operation.state_deltas.values())
            inner: Any = getattr(operation, "layer", None)
            if isinstance(operation, keras.layers.Wrapper) and is_graph(inner):
                yield from all_layers_by_path(inner, f"{prefix}{operation.name}/")


def layers_inside(model: Graph) -> list[keras.layers.Layer]:
    """Every layer of which the model consists, also those inside wrappers and other layers."""
    return [layer for layer in keras_private.layers_within(model, include_self=False) if not is_graph(layer)]


def walk(model: Graph, inputs: Sequence[Any], on_call: OnCall) -> list[Any]:
    """Go through the graph in the order of computation and let ``on_call`` compute each call.

    Args:
        model: a Functional or Sequential model, or a ``keras.Function``; only its own level is walked,
            a nested model is one call.
        inputs: one value for each of ``input_tensors(model)``; any objects.
        on_call: called as ``on_call(name, node, args, kwargs)`` with the arguments of the original call,
            every symbolic tensor in them replaced by its value; returns the outputs' values in the
            structure of the operation's outputs. ``node.operation`` is the operation.

    Returns:
        The values of the graph's outputs, flat.
    """
    function = as_function(model)
    values = {id(tensor): value for tensor, value in zip(function.inputs, inputs, strict=True)}
    layers_of_nodes = keras_private.nodes_by_depth(function)
    own = {id(node) for nodes in layers_of_nodes.values() for node in nodes}
    for depth in sorted(layers_of_nodes, reverse=True):
        for node in layers_of_nodes[depth]:
            # An input that the outputs do not depend on leaves nodes that cannot be computed.
            if node.is_input or any(id(tensor) not in values for tensor in node.input_tensors):
                continue
            args, kwargs = node.arguments.fill_in(values)
            outputs = on_call(_call_name(node, own), node, tuple(args), kwargs)
            for tensor, value in zip(node.outputs, keras.tree.flatten(outputs), strict=True):
                values[id(tensor)] = value
    return [values[id(tensor)] for tensor in function.outputs]


def run(
    model: Graph,
    inputs: Sequence[Any],
    observe: Callable[[str, Any, tuple[Any, ...], dict[str, Any], Any], None],
    *,
    training: bool = False,
    prefix: str = "",
) -> list[Any]:
    """Compute the model on real tensors and show every call, nested ones too, to ``observe``.

    Args:
        model: a Functional or Sequential model.
        inputs: one tensor for each input of the model, flat.
        observe: called as ``observe(path, operation, args, kwargs, outputs)`` after each call of a layer or
            operation that is not itself a graph; before that for the delta layers of its states, with all steps.
        training: passed on to the operations that know it.
        prefix: put before every path.

    Returns:
        The outputs, flat. Works eagerly and inside ``tf.function``.
    """

    def on_call(name: str, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        operation = node.operation
        if is_graph(operation):
            return run(
                operation, nested_inputs(operation, args, kwargs), observe, training=training, prefix=f"{prefix}{name}/"
            )
        if keras_private.takes_training(operation):
            kwargs = {**kwargs, "training": training}  # whatever the model was built with, as Keras does
        if isinstance(operation, DeltaStates):
            with recorded_states() as states:
                outputs = operation(*args, **kwargs)
            for state in states:
                observe(f"{prefix}{name}/{state.delta.name}", state.delta, (state.true,), {}, state.sent)
        else:
            outputs = operation(*args, **kwargs)
        observe(prefix + name, operation, args, kwargs, outputs)
        return outputs

    return walk(model, inputs, on_call)


def _call_name(node: Any, own: set[int]) -> str:
    """The operation's name, with ``#k`` for the (k+1)-th call of the operation in this graph.

    No operation is called so itself: TensorFlow refuses to run layers that have a ``#`` or a ``:`` in their names.
    """
    calls = [other for other in keras_private.calls_of(node.operation) if id(other) in own]
    index = next(position for position, other in enumerate(calls) if other is node)
    return f"{node.operation.name}#{index}" if index else node.operation.name
