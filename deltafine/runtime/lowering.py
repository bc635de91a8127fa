"""What each Keras layer or operation is in plain operations. Whatever is not here runs through Keras."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from deltafine.layers import DeltaActivation, FoldTime, UnfoldTime
from deltafine.model.augmentation import is_augmentation
from deltafine.model.fan_out import fan_out
from deltafine.model.trace import Call, Value
from deltafine.runtime.activations import of_function, of_layer
from deltafine.runtime.plan import Delta, Finish, Operation, Plan, Tensor

layers = keras.layers


class Lowering:
    """A plan in the making: which tensor each value of the Keras graph is, and the arrays gathered so far."""

    def __init__(self, name: str, frame: Value) -> None:
        self.plan = Plan(name, [], [], ())
        self.known: dict[Value, int] = {}
        self.calls: dict[str, Call] = {}
        self.known[frame] = self.add("input", "input", (), frame.sample_shape)

    def alias(self, value: Value, of: Value) -> None:
        """Two values of the graph that are one tensor in a plan."""
        self.known[value] = self.known[of]

    def add(
        self, kind: str, name: str, inputs: tuple[int, ...], sample_shape: tuple[int, ...], **fields: Any
    ) -> int:  # fmt: skip
        """Append an operation and its output tensor; returns the tensor's index."""
        index = len(self.plan.tensors)
        self.plan.tensors.append(Tensor(name, as_image(sample_shape), tuple(sample_shape)))
        self.plan.operations.append(Operation(kind, name, inputs, index, **fields))
        return index

    def array(self, name: str, values: Any) -> str:
        """Keep an array; returns its name."""
        values = np.asarray(values)
        self.plan.arrays[name] = values.astype(np.float64) if values.dtype.kind == "f" else values
        return name

    def fan(self, call: Call, stage: str | None = None, name: str = "") -> str:
        """Keep the fan-out of a call's input, (height, width)."""
        shape = call.inputs[0].sample_shape
        fan = fan_out(call.operation, shape, stage=stage)
        height, width, _ = as_image(shape) if stage != "pointwise" else as_image(call.outputs[0].sample_shape)
        flat = fan.reshape(as_image(fan.shape))[:, :, 0]
        return self.array(f"{name or call.path}:fan", np.broadcast_to(flat, (height, width)))


def as_image(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The shape of a sample as (height, width, channels)."""
    padded = (1, 1, 1, *shape)
    return (padded[-3], padded[-2], padded[-1]) if len(shape) <= 3 else (1, math.prod(shape[:-1]), shape[-1])


def lower(lowering: Lowering, call: Call) -> None:
    """Append what computes a call to the plan."""
    operation = call.operation
    if isinstance(operation, FoldTime | UnfoldTime):
        lowering.alias(call.outputs[0], call.inputs[0])
        return
    if isinstance(operation, _NOTHING) or is_augmentation(operation):
        lowering.alias(call.outputs[0], call.inputs[0])
        return
    rule = _RULES.get(type(operation))
    if rule is None and type(operation).__module__.startswith("keras.src.ops."):
        rule = _OPERATIONS.get(type(operation).__name__)
    if rule is None and of_layer(operation) is not None:
        rule = _activation
    if len(call.outputs) == 1 and rule is not None:
        index = rule(lowering, call)
        if index is not None:
            lowering.known[call.outputs[0]] = index
            return
    _leave_to_keras(lowering, call)


def _leave_to_keras(lowering: Lowering, call: Call) -> None:
    inputs = tuple(lowering.known[value] for value in call.inputs)
    for place, value in enumerate(call.outputs):
        name = f"{call.path}:{place}" if place else call.path
        lowering.calls[name] = call
        kind = type(call.operation).__name__
        lowering.known[value] = lowering.add("keras", name, inputs, value.sample_shape, layer=kind)


def _add(lowering: Lowering, call: Call, kind: str, *, name: str = "", **fields: Any) -> int:
    inputs = tuple(lowering.known[value] for value in call.inputs)
    layer = type(call.operation).__name__
    return lowering.add(kind, name or call.path, inputs, call.outputs[0].sample_shape, layer=layer, **fields)


def _finish(lowering: Lowering, call: Call, *, bias: Any = None, function: Any = None) -> Finish | None:
    """Bias and activation of a layer; None for an activation that only Keras knows."""
    known = of_function(function)
    if known is None:
        return None
    shift = "" if bias is None else lowering.array(f"{call.path}:shift", bias)
    return Finish(shift=shift, activation=known[0], parameters=known[1])


def _pair(value: Any) -> tuple[int, int]:
    """(height, width) of a setting; one of a 1-D layer lies along the width."""
    values = tuple(value)
    return (1, int(values[0])) if len(values) == 1 else (int(values[0]), int(values[1]))


def _window(call: Call, kernel: Any, strides: Any, dilation: Any, padding: str) -> dict[str, Any]:
    sides = as_image(call.inputs[0].sample_shape)[:2]
    kernel, strides, dilation = _pair(kernel), _pair(strides), _pair(dilation)
    if padding == "causal":
        before = (0, (kernel[1] - 1) * dilation[1])
    elif padding == "same":
        total = [
            max((-(-side // s) - 1) * s + (k - 1) * d + 1 - side, 0)
            for side, k, s, d in zip(sides, kernel, strides, dilation, strict=True)
        ]
        before = (total[0] // 2, total[1] // 2)
    else:
        before = (0, 0)
    return {"kernel": kernel, "strides": strides, "dilation": dilation, "padding": before}


def _of_layer_window(call: Call) -> dict[str, Any]:
    layer = call.operation
    return _window(call, layer.kernel_size, layer.strides, layer.dilation_rate, layer.padding)


def _as_2d(kernel: Any) -> np.ndarray:
    values = np.asarray(kernel)
    return values[None] if values.ndim == 3 else values


def _conv(lowering: Lowering, call: Call) -> int | None:
    layer = call.operation
    finish = _finish(lowering, call, bias=layer.bias, function=layer.activation)
    if finish is None:
        return None
    weights = lowering.array(f"{call.path}:weights", _as_2d(layer.kernel))
    return _add(
        lowering, call, "conv", **_of_layer_window(call), groups=layer.groups, weights=weights,
        fan=lowering.fan(call), finish=finish,
    )  # fmt: skip


def _depthwise(lowering: Lowering, call: Call) -> int | None:
    layer = call.operation
    finish = _finish(lowering, call, bias=layer.bias, function=layer.activation)
    if finish is None:
        return None
    weights = lowering.array(f"{call.path}:weights", _as_2d(layer.kernel))
    return _add(
        lowering, call, "depthwise", **_of_layer_window(call), weights=weights, fan=lowering.fan(call), finish=finish
    )


def _separable(lowering: Lowering, call: Call) -> int | None:
    layer = call.operation
    finish = _finish(lowering, call, bias=layer.bias, function=layer.activation)
    if finish is None:
        return None
    first, second = f"{call.path}/depthwise", f"{call.path}/pointwise"
    kernel = _as_2d(layer.depthwise_kernel)
    between = (*call.outputs[0].sample_shape[:-1], kernel.shape[2] * kernel.shape[3])
    middle = lowering.add(
        "depthwise", first, (lowering.known[call.inputs[0]],), between, **_of_layer_window(call),
        weights=lowering.array(f"{first}:weights", kernel), fan=lowering.fan(call, "depthwise", first),
        layer=type(layer).__name__,
    )  # fmt: skip
    return lowering.add(
        "conv", second, (middle,), call.outputs[0].sample_shape,
        weights=lowering.array(f"{second}:weights", _as_2d(layer.pointwise_kernel)),
        fan=lowering.fan(call, "pointwise", second), finish=finish, layer=type(layer).__name__,
    )  # fmt: skip


def _dense(lowering: Lowering, call: Call) -> int | None:
    layer = call.operation
    finish = _finish(lowering, call, bias=layer.bias, function=layer.activation)
    if finish is None or getattr(layer, "quantization_mode", None) is not None:
        return None
    weights = lowering.array(f"{call.path}:weights", np.asarray(layer.kernel)[None, None])
    return _add(lowering, call, "conv", weights=weights, fan=lowering.fan(call), finish=finish)


def _affine(lowering: Lowering, call: Call, scale: Any, shift: Any) -> int | None:
    """``scale * x + shift``, each a number or one per channel."""
    channels = as_image(call.outputs[0].sample_shape)[2]
    pieces = []
    for part, values in (("scale", scale), ("shift", shift)):
        values = np.asarray(values, np.float64)
        if values.size not in (1, channels) or (values.size > 1 and values.shape[-1] != channels):
            return None
        pieces.append(lowering.array(f"{call.path}:{part}", np.broadcast_to(values.ravel(), (channels,))))
    return _add(lowering, call, "identity", finish=Finish(scale=pieces[0], shift=pieces[1]))


def _batch_norm(lowering: Lowering, call: Call) -> int | None:
    layer = call.operation
    if layer.axis not in (-1, len(call.inputs[0].shape) - 1):
        return None
    scale = 1.0 / np.sqrt(np.asarray(layer.moving_variance, np.float64) + layer.epsilon)
    if layer.gamma is not None:
        scale = scale * np.asarray(layer.gamma, np.float64)
    shift = -np.asarray(layer.moving_mean, np.float64) * scale
    return _affine(lowering, call, scale, shift if layer.beta is None else shift + np.asarray(layer.beta, np.float64))


def _normalization(lowering: Lowering, call: Call) -> int | None:
    layer = call.operation
    if layer.invert:
        return None
    scale = 1.0 / np.maximum(np.sqrt(np.asarray(layer.variance, np.float64)), keras.backend.epsilon())
    return _affine(lowering, call, scale, -np.asarray(layer.mean, np.float64) * scale)


def _rescaling(lowering: Lowering, call: Call) -> int | None:
    return _affine(lowering, call, call.operation.scale, call.operation.offset)


def _activation(lowering: Lowering, call: Call) -> int | None:
    known = of_layer(call.operation)
    if known is None:
        return None
    return _add(lowering, call, "identity", finish=Finish(activation=known[0], parameters=known[1]))


def _delta(lowering: Lowering, call: Call) -> int:
    layer = call.operation
    step = np.asarray(layer.step, np.float32)
    shape = call.inputs[0].sample_shape
    step = step.reshape(as_image(shape)) if step.ndim and step.shape == tuple(shape) and step.ndim > 1 else step
    delta = Delta(call.path, layer.rule, layer.unit, lowering.array(f"{call.path}:step", step))
    inputs = (lowering.known[call.inputs[0]],)
    return lowering.add("identity", call.path, inputs, shape, finish=Finish(delta=delta), layer="DeltaActivation")


def _pool(kind: str) -> Callable[[Lowering, Call], int | None]:
    def rule(lowering: Lowering, call: Call) -> int | None:
        layer = call.operation
        ones = (1,) * len(tuple(layer.pool_size))
        return _add(lowering, call, kind, **_window(call, layer.pool_size, layer.strides, ones, layer.padding))

    return rule


def _global_pool(kind: str) -> Callable[[Lowering, Call], int | None]:
    return lambda lowering, call: _add(lowering, call, kind)


def _mean(lowering: Lowering, call: Call) -> int | None:
    axes = call.operation.axis
    axes = (axes,) if isinstance(axes, int) else tuple(axes or ())
    rank = len(call.inputs[0].shape)
    if rank not in (3, 4) or sorted(axis % rank for axis in axes) != list(range(1, rank - 1)):
        return None
    return _add(lowering, call, "global_average")


def _place(lowering: Lowering, call: Call) -> int | None:
    """Padding and cropping: the output starts ``padding`` before the input."""
    layer = call.operation
    cropping = isinstance(layer, layers.Cropping1D | layers.Cropping2D)
    amounts = layer.cropping if cropping else layer.padding
    top, left = (0, amounts[0]) if isinstance(amounts[0], int) else (amounts[0][0], amounts[1][0])
    sign = -1 if cropping else 1
    return _add(lowering, call, "place", padding=(sign * top, sign * left))


def _upsampling(lowering: Lowering, call: Call) -> int | None:
    layer = call.operation
    if getattr(layer, "interpolation", "nearest") != "nearest":
        return None
    size = (layer.size,) if isinstance(layer.size, int) else layer.size
    return _add(lowering, call, "place", strides=_pair(size))


def _reshape(lowering: Lowering, call: Call) -> int | None:
    if as_image(call.inputs[0].sample_shape) == as_image(call.outputs[0].sample_shape):
        return lowering.known[call.inputs[0]]
    return _add(lowering, call, "reshape")


def _concatenate(lowering: Lowering, call: Call) -> int | None:
    rank = len(call.inputs[0].shape)
    return _add(lowering, call, "concatenate") if call.operation.axis in (-1, rank - 1) and rank <= 4 else None


def _elementwise(kind: str) -> Callable[[Lowering, Call], int | None]:
    def rule(lowering: Lowering, call: Call) -> int | None:
        leaves = keras.tree.flatten((call.args, call.kwargs))
        if len(call.inputs) == 1 and len(leaves) == 2 and kind in ("add", "subtract", "multiply"):
            return _with_constant(lowering, call, kind, leaves)
        output = as_image(call.outputs[0].sample_shape)
        shapes = [as_image(value.sample_shape) for value in call.inputs]
        same_rank = len({len(value.shape) for value in call.inputs}) == 1
        fits = all(shape[2] in (1, output[2]) and shape[:2] in ((1, 1), output[:2]) for shape in shapes)
        return _add(lowering, call, kind) if len(shapes) == len(leaves) > 1 and same_rank and fits else None

    return rule


def _with_constant(lowering: Lowering, call: Call, kind: str, leaves: list[Any]) -> int | None:
    first = isinstance(leaves[0], Value)
    constant = leaves[1] if first else leaves[0]
    if not isinstance(constant, int | float | np.ndarray):
        return None
    if kind == "multiply":
        return _affine(lowering, call, constant, 0.0)
    if kind == "add":
        return _affine(lowering, call, 1.0, constant)
    return _affine(lowering, call, 1.0, -np.asarray(constant)) if first else _affine(lowering, call, -1.0, constant)


_NOTHING = (
    layers.Identity, layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D, layers.GaussianNoise,
    layers.GaussianDropout, layers.AlphaDropout, layers.ActivityRegularization,
)  # fmt: skip
_RULES: dict[type, Callable[[Lowering, Call], int | None]] = {
    layers.Conv1D: _conv, layers.Conv2D: _conv, layers.DepthwiseConv1D: _depthwise, layers.DepthwiseConv2D: _depthwise,
    layers.SeparableConv1D: _separable, layers.SeparableConv2D: _separable, layers.Dense: _dense,
    layers.BatchNormalization: _batch_norm, layers.Normalization: _normalization, layers.Rescaling: _rescaling,
    DeltaActivation: _delta,
    layers.MaxPooling1D: _pool("max_pool"), layers.MaxPooling2D: _pool("max_pool"),
    layers.AveragePooling1D: _pool("average_pool"), layers.AveragePooling2D: _pool("average_pool"),
    layers.GlobalAveragePooling1D: _global_pool("global_average"),
    layers.GlobalAveragePooling2D: _global_pool("global_average"),
    layers.GlobalMaxPooling1D: _global_pool("global_max"), layers.GlobalMaxPooling2D: _global_pool("global_max"),
    layers.ZeroPadding1D: _place, layers.ZeroPadding2D: _place, layers.Cropping1D: _place, layers.Cropping2D: _place,
    layers.UpSampling1D: _upsampling, layers.UpSampling2D: _upsampling,
    layers.Flatten: _reshape, layers.Reshape: _reshape, layers.Concatenate: _concatenate,
    layers.Add: _elementwise("add"), layers.Subtract: _elementwise("subtract"),
    layers.Multiply: _elementwise("multiply"), layers.Average: _elementwise("average"),
    layers.Maximum: _elementwise("maximum"), layers.Minimum: _elementwise("minimum"),
}  # fmt: skip
_OPERATIONS: dict[str, Callable[[Lowering, Call], int | None]] = {
    "Add": _elementwise("add"), "Subtract": _elementwise("subtract"), "Multiply": _elementwise("multiply"),
    "Maximum": _elementwise("maximum"), "Minimum": _elementwise("minimum"),
    "Mean": _mean, "Concatenate": _concatenate,
}  # fmt: skip
