"""Activations, and sums, products and their like of tensors and constants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from deltafine.model.onnx_import.onnx_step import Step
from deltafine.model.onnx_import.placed import Placed, moved, unflattened

layers = keras.layers
ops = keras.ops
_SIXTH = 1 / 6
_SELU = 1.6732632, 1.050701
"""alpha and gamma."""


def _same(step: Step) -> Placed:
    return step.tensor()


def _activation(name: str, *, positive: bool = False) -> Callable[[Step], Placed]:
    def make(step: Step) -> Placed:
        x = step.tensor()
        return replace(x, value=layers.Activation(name, name=step.name())(x.value), positive=positive)

    return make


def _function(function: Callable[[Any], Any], *, positive: bool = False) -> Callable[[Step], Placed]:
    def make(step: Step) -> Placed:
        x = step.tensor()
        return replace(x, value=step.operation(function, x.value), positive=positive)

    return make


def relu(step: Step) -> Placed:
    x = step.tensor()
    return replace(x, value=layers.ReLU(name=step.name())(x.value), positive=True)


def leaky_relu(step: Step) -> Placed:
    x = step.tensor()
    slope = step.attribute("alpha", 0.01)
    return replace(x, value=layers.LeakyReLU(negative_slope=slope, name=step.name())(x.value), positive=False)


def prelu(step: Step) -> Placed:
    x = unflattened(step.tensor(), step.name)
    slopes = _as_placed(step, x, step.constant(1))
    shared = [axis for axis in range(1, len(x.order)) if slopes.shape[axis] == 1]
    layer = layers.PReLU(shared_axes=shared or None, name=step.name())
    value = layer(x.value)
    layer.set_weights([slopes[0]])
    return replace(x, value=value, positive=False)


def clip(step: Step) -> Placed:
    x = step.tensor()
    least, most = (None if limit is None else float(limit.item()) for limit in (step.constant(1), step.constant(2)))
    least = None if least is not None and least <= np.finfo("float32").min else least
    most = None if most is not None and most >= np.finfo("float32").max else most
    if least is None and most is None:
        return x
    if least == 0 and (most is None or most >= 0):
        return replace(x, value=layers.ReLU(max_value=most, name=step.name())(x.value), positive=True)
    if least is None:
        return replace(x, value=step.operation(ops.minimum, x.value, most), positive=False)
    if most is None:
        return replace(x, value=step.operation(ops.maximum, x.value, least), positive=least >= 0)
    return replace(x, value=step.operation(ops.clip, x.value, least, most), positive=least >= 0)


def hard_sigmoid(step: Step) -> Placed:
    x = step.tensor()
    slope, offset = step.attribute("alpha", 0.2), step.attribute("beta", 0.5)
    if abs(slope - _SIXTH) < 1e-6 and offset == 0.5:
        return replace(x, value=layers.Activation("hard_sigmoid", name=step.name())(x.value), positive=True)
    line = layers.Rescaling(slope, offset, name=step.name("line"))(x.value)
    return replace(x, value=step.operation(ops.clip, line, 0.0, 1.0), positive=True)


def elu(step: Step) -> Placed:
    x = step.tensor()
    return replace(x, value=layers.ELU(alpha=step.attribute("alpha", 1.0), name=step.name())(x.value), positive=False)


def gelu(step: Step) -> Placed:
    x = step.tensor()
    if step.attribute("approximate", "none") == "tanh":
        return replace(x, value=step.operation(ops.gelu, x.value, approximate=True), positive=False)
    return _activation("gelu")(step)


def softmax(step: Step) -> Placed:
    x, place = _with_axis(step)
    return replace(x, value=layers.Softmax(axis=place, name=step.name())(x.value), positive=True)


def log_softmax(step: Step) -> Placed:
    x, place = _with_axis(step)
    return replace(x, value=step.operation(ops.log_softmax, x.value, axis=place), positive=False)


def _with_axis(step: Step) -> tuple[Placed, int]:
    """The tensor and where the axis of the operator lies; -1 for the last, which Keras' own models say."""
    x = unflattened(step.tensor(), step.name)
    place = x.place_of(step.attribute("axis", -1))
    if place == 0:
        raise step.refused("works across the batch, which holds the frames of a clip.")
    return x, -1 if place == len(x.order) - 1 else place


def dropout(step: Step) -> Placed:
    training = step.constant(2)
    if training is not None and bool(training):
        raise step.refused("is in training mode: export the network after model.eval().")
    if len(step.node.output) > 1 and step.node.output[1]:
        raise step.refused("gives its mask, which Keras does not.")
    return step.tensor()


def cast(step: Step) -> Placed:
    if step.attribute("to") != 1:
        raise step.refused("makes another type than float32 of what the network computes.")
    return step.tensor()


def negative(step: Step) -> Placed:
    x = step.tensor()
    return replace(x, value=layers.Rescaling(-1.0, name=step.name())(x.value), positive=False)


def _pair(layer: type | None, function: Callable[..., Any]) -> Callable[[Step], Placed]:
    """Of two tensors by a layer of Keras if there is one; with a constant, by a scale and an offset where that does."""

    def make(step: Step) -> Placed:
        first, second = step.input(0), step.input(1)
        if isinstance(first, Placed) and isinstance(second, Placed):
            return _of_tensors(step, first, second, layer, function)
        x = step.tensor(0 if isinstance(first, Placed) else 1)
        constant = np.asarray(step.constant(1 if isinstance(first, Placed) else 0), "float32")
        if constant.size > 1:
            x = unflattened(x, step.name)
        values = _as_placed(step, x, constant)
        scaled = _scale_and_offset(step.node.op_type, values, x, first=isinstance(first, Placed))
        if scaled is not None:
            scale, offset = scaled
            return replace(x, value=layers.Rescaling(scale, offset, name=step.name())(x.value), positive=False)
        number = float(constant.item()) if constant.size == 1 else values
        operands = (x.value, number) if isinstance(first, Placed) else (number, x.value)
        return replace(x, value=step.operation(function, *operands), positive=False)

    return make


def _of_tensors(step: Step, first: Placed, second: Placed, layer: type | None, function: Callable[..., Any]) -> Placed:
    if len(first.order) != len(second.order):
        raise step.refused("combines tensors of different ranks, so samples of a batch would meet other axes.")
    if first.flat != second.flat:
        first, second = unflattened(first, step.name), unflattened(second, step.name)
    if first.order != second.order:
        second = moved(second, first.order, step.name)
    positive = first.positive and second.positive and step.node.op_type != "Sub"
    if layer is None:
        value = step.operation(function, first.value, second.value)
    else:
        value = layer(name=step.name())([first.value, second.value])
    return replace(first, value=value, positive=positive)


def _scale_and_offset(kind: str, values: np.ndarray, x: Placed, *, first: bool) -> tuple[Any, Any] | None:
    """The two for a number, or for one of every channel where these lie last; None where they are something else."""
    if values.size not in (1, x.value.shape[-1]) or values.shape[-1] != values.size:
        return None
    if kind not in ("Add", "Sub", "Mul", "Div") or (kind == "Div" and not (first and np.all(values))):
        return None
    one = float(values.item()) if values.size == 1 else values.reshape(-1)

    def told(value: Any) -> Any:
        return value.astype("float32").tolist() if isinstance(value, np.ndarray) else float(value)

    if kind == "Mul":
        return told(one), 0.0
    if kind == "Div":
        return told(1 / np.float64(one)) if isinstance(one, float) else told(1 / one.astype("float64")), 0.0
    if kind == "Add":
        return 1.0, told(one)
    return (1.0, told(-one)) if first else (-1.0, told(one))


def _as_placed(step: Step, x: Placed, constant: np.ndarray | None) -> np.ndarray:
    """A constant with an axis for each of a tensor's, in its order; that of the batch has size 1."""
    if constant is None:
        raise step.refused("has no constant where it needs one.")
    rank = len(x.order)
    if constant.ndim > rank or (constant.ndim == rank and constant.shape[0] != 1):
        raise step.refused("has a constant that makes more of a tensor than a batch of frames.")
    return constant.reshape((1,) * (rank - constant.ndim) + constant.shape).transpose(x.order)


def _of_many(layer: type) -> Callable[[Step], Placed]:
    """Of any number of tensors of the same rank."""

    def make(step: Step) -> Placed:
        first, *others = [unflattened(step.tensor(place), step.name) for place in range(len(step.node.input))]
        if any(len(one.order) != len(first.order) for one in others):
            raise step.refused("combines tensors of different ranks, so samples of a batch would meet other axes.")
        values = [first.value, *(moved(one, first.order, step.name).value for one in others)]
        if not others:
            return first
        positive = all(one.positive for one in (first, *others))
        return replace(first, value=layer(name=step.name())(values), positive=positive)

    return make


def selu(step: Step) -> Placed:
    alpha, gamma = step.attribute("alpha", _SELU[0]), step.attribute("gamma", _SELU[1])
    if not np.allclose([alpha, gamma], _SELU, rtol=1e-5, atol=0):
        raise step.refused("has an alpha or gamma that is not that of selu.")
    return _activation("selu")(step)


def celu(step: Step) -> Placed:
    x = step.tensor()
    value = step.operation(ops.celu, x.value, alpha=float(step.attribute("alpha", 1.0)))
    return replace(x, value=value, positive=False)


def swish(step: Step) -> Placed:
    if step.attribute("alpha", 1.0) != 1:
        raise step.refused("has an alpha other than 1.")
    return _activation("silu")(step)


def power(step: Step) -> Placed:
    x, exponent = step.tensor(0), step.constant(1)
    if exponent is None or exponent.size != 1:
        raise step.refused("has an exponent that is no number.")
    return replace(x, value=step.operation(ops.power, x.value, float(exponent.item())), positive=x.positive)


OPERATORS: dict[str, Callable[[Step], Any]] = {
    "Relu": relu, "LeakyRelu": leaky_relu, "PRelu": prelu, "Clip": clip, "HardSigmoid": hard_sigmoid, "Elu": elu,
    "Gelu": gelu, "Softmax": softmax, "LogSoftmax": log_softmax,
    "Sigmoid": _activation("sigmoid", positive=True), "Tanh": _activation("tanh"),
    "HardSwish": _activation("hard_silu"), "Softplus": _activation("softplus", positive=True),
    "Softsign": _activation("softsign"), "Mish": _activation("mish"),
    "Identity": _same, "Dropout": dropout, "Cast": cast, "Neg": negative,
    "Add": _pair(layers.Add, ops.add), "Sub": _pair(layers.Subtract, ops.subtract),
    "Mul": _pair(layers.Multiply, ops.multiply), "Div": _pair(None, ops.divide),
    "Max": _pair(layers.Maximum, ops.maximum), "Min": _pair(layers.Minimum, ops.minimum), "Pow": power,
    "Sum": _of_many(layers.Add), "Mean": _of_many(layers.Average), "Selu": selu, "Celu": celu, "Swish": swish,
    "Reciprocal": _function(ops.reciprocal),
    "Erf": _function(ops.erf), "Sqrt": _function(ops.sqrt, positive=True), "Exp": _function(ops.exp, positive=True),
    "Log": _function(ops.log), "Abs": _function(ops.abs, positive=True),
}  # fmt: skip
