"""From an ONNX graph to a functional Keras model: node by node, what depends on no frame being computed first."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from deltafine.errors import DeltafineError
from deltafine.model import graph
from deltafine.model.onnx_import import (
    conv_operators,
    norm_operators,
    pointwise_operators,
    pool_operators,
    shape_operators,
)
from deltafine.model.onnx_import.constant_nodes import FOLDED, folded
from deltafine.model.onnx_import.onnx_reading import STANDARD, check, read
from deltafine.model.onnx_import.onnx_step import Step, free_name
from deltafine.model.onnx_import.placed import Placed, channels_last, plain
from deltafine.model.onnx_import.same_answers import check_answers
from deltafine.model.safety import LARGEST_OUTPUT, check_outputs

OPERATORS = {
    **conv_operators.OPERATORS, **pool_operators.OPERATORS, **pointwise_operators.OPERATORS,
    **shape_operators.OPERATORS, **norm_operators.OPERATORS,
}  # fmt: skip
CHANNELS = (1, 3)
_QUANTISED = ("Quantize", "QLinear", "Integer")


@dataclass(frozen=True)
class Imported:
    """A Keras model, and where the axes of ONNX lie in its inputs and outputs.

    Attributes:
        model: with its channels last.
        inputs: order of the axes of each input.
        outputs: order of the axes of each output.
    """

    model: keras.Model
    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]


def load_onnx(path: Path) -> keras.Model:
    """A functional Keras model with the answers of an ONNX file; its frames have their channels last.

    Raises:
        DeltafineError: the file cannot be read; an operator in it, which is named, has no counterpart; or the answers
            differ.
    """
    proto = read(path)
    _refuse_unknown(proto)
    check(proto)
    imported = imported_graph(proto, path.stem)
    check_outputs(imported.model)  # before anything is computed
    check_answers(proto, imported.model, imported.inputs, imported.outputs, path)
    return imported.model


def _refuse_unknown(proto: Any) -> None:
    unknown: dict[str, str] = {}
    for node in proto.graph.node:
        name = node.op_type if node.domain in STANDARD else f"{node.domain}.{node.op_type}"
        if node.domain not in STANDARD or (name not in OPERATORS and name not in FOLDED):
            unknown.setdefault(name, node.name)
    if not unknown:
        return
    several = f"operators {', '.join(sorted(unknown))}" if len(unknown) > 1 else f"operator {next(iter(unknown))}"
    quantised = any(word in name for name in unknown for word in _QUANTISED)
    advice = "give the model as it was before it was quantised" if quantised else "export the network without"
    raise DeltafineError(f"it has the {several}, for which deltafine knows no layer of Keras: {advice}.")


def imported_graph(proto: Any, name: str) -> Imported:
    """The model of a graph of known operators.

    Raises:
        DeltafineError: an operator is used in a way that has no counterpart.
    """
    from onnx.numpy_helper import to_array

    values: dict[str, Placed | np.ndarray] = {}
    for tensor in proto.graph.initializer:
        try:
            values[tensor.name] = to_array(tensor)
        except Exception as error:
            raise DeltafineError(f"its weights '{tensor.name}' are damaged: export it again.") from error
    outputs = [output.name for output in proto.graph.output]
    names = {free_name(one, set()) for one in outputs} if len(outputs) > 1 else set()
    inputs = [_input(info, names) for info in proto.graph.input if info.name not in values]
    if not inputs:
        raise DeltafineError("it has no input: export the network with one.")
    batches = {batch for _, batch, _ in inputs if batch}
    batch = batches.pop() if len(batches) == 1 else 1
    values |= {info: placed for info, _, placed in inputs}
    opset = max(entry.version for entry in proto.opset_import if entry.domain in STANDARD)
    readers: dict[str, list[str]] = defaultdict(list)
    nodes = norm_operators.joined(proto.graph.node, {**values, **_constants(proto.graph.node)})
    for node in nodes:
        for one in node.input:
            readers[one].append(node.op_type)
    for one in outputs:
        readers[one].append("output")
    for node in nodes:
        step = Step(node, values, names, opset, batch, readers[node.output[0]])
        made = list(_results(step))
        if any(isinstance(one, Placed) and _size(one) > LARGEST_OUTPUT for one in made):
            raise step.refused("makes an absurd number of values of a frame.")
        values.update(zip(node.output, made, strict=False))
    placed = [_output(values.get(one), one, names, several=len(outputs) > 1) for one in outputs]
    model = keras.Model(
        [one.value for _, _, one in inputs] if len(inputs) > 1 else inputs[0][2].value,
        [one.value for one in placed] if len(placed) > 1 else placed[0].value,
        name=free_name(name, set()),
    )
    return Imported(model, tuple(one.order for *_, one in inputs), tuple(one.order for one in placed))


def _constants(nodes: Iterable[Any]) -> dict[str, np.ndarray]:
    """Those that nodes hold as a tensor."""
    from onnx.numpy_helper import to_array

    return {
        node.output[0]: to_array(entry.t)
        for node in nodes
        for entry in node.attribute
        if node.op_type == "Constant" and entry.name == "value"
    }


def _results(step: Step) -> Iterator[Placed | np.ndarray]:
    """What a node makes; the size of a batch that is not fixed counts as 1 where shapes are computed."""
    kind = step.node.op_type
    if kind == "Shape" and isinstance(value := step.input(0), Placed):
        yield _shape(step, value)
        return
    constants = [step.constant(place) for place in range(len(step.node.input))] if _is_constant(step) else None
    if constants is not None and kind in FOLDED:
        yield from folded(step, constants)
        return
    if kind not in OPERATORS:
        raise step.refused("works on values that the network computes, and deltafine reads it for shapes only.")
    try:
        made = OPERATORS[kind](step)
    except DeltafineError:
        raise
    except Exception as error:  # Keras raises whatever the layer at fault raises
        text = " ".join(str(error).split())[:200]
        raise step.refused(f"cannot be made a layer of Keras ({type(error).__name__}: {text}).") from error
    yield from made if isinstance(made, list) else [made]


def _size(value: Placed) -> int:
    return math.prod(size or 1 for size in value.value.shape[1:])


def _is_constant(step: Step) -> bool:
    return all(
        not step.given(place) or isinstance(step.input(place), np.ndarray) for place in range(len(step.node.input))
    )


def _shape(step: Step, value: Placed) -> np.ndarray:
    sizes = [step.batch, *value.shape[1:]][slice(step.attribute("start", 0), step.attribute("end"))]
    if None in sizes:
        raise step.refused("asks for the size of frames of any size: export the network for frames of one size.")
    return np.array(sizes, np.int64)


def _input(info: Any, names: set[str]) -> tuple[str, int | None, Placed]:
    """Name, fixed size of the batch, and tensor of an input; channels that come first become last."""
    from onnx import TensorProto

    kind = info.type.tensor_type
    if kind.elem_type not in (TensorProto.FLOAT, TensorProto.UINT8) or not kind.HasField("shape"):
        wanted = TensorProto.DataType.Name(kind.elem_type).lower()
        raise DeltafineError(f"its input '{info.name}' is not float32 of a known rank but {wanted}: export it so.")
    sizes = [size.dim_value if size.HasField("dim_value") and size.dim_value > 0 else None for size in kind.shape.dim]
    if not sizes:
        raise DeltafineError(f"its input '{info.name}' is a single number, and no frame.")
    rank = len(sizes)
    last = rank > 2 and sizes[1] not in CHANNELS and sizes[-1] in CHANNELS
    order = tuple(range(rank)) if last else channels_last(rank)
    tensor = keras.Input([sizes[axis] for axis in order[1:]], name=free_name(info.name, names))
    return info.name, sizes[0], Placed(tensor, order)


def _output(value: Placed | np.ndarray | None, name: str, names: set[str], *, several: bool) -> Placed:
    """An output; of several, each keeps its name."""
    if not isinstance(value, Placed):
        raise DeltafineError(f"its output '{name}' does not depend on its input.")

    def free(word: str) -> str:
        return free_name(f"output_{word}", names)

    if value.flat is not None or value.order != channels_last(len(value.order)):
        value = plain(value, free)
    if several:
        value = Placed(keras.layers.Activation("linear", name=free_name(name, set()))(value.value), value.order)
    elif isinstance(graph.maker(value.value), keras.layers.InputLayer):
        raise DeltafineError(f"its output '{name}' is its input.")
    return value
