"""What each Keras layer or operation is in plain operations. Whatever is not here runs through Keras."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from deltafine.layers import DeltaActivation, FoldTime, UnfoldTime
from deltafine.model.augmentation import is_augmentation
from deltafine.model.trace import Call, Value
from deltafine.runtime.activations import of_layer
from deltafine.runtime.lowering import Lowering, add_call, as_image, pair, window
from deltafine.runtime.lowering_macs import conv, dense, depthwise, separable
from deltafine.runtime.plan import Delta, Finish

layers = keras.layers


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


def _affine(lowering: Lowering, call: Call, scale: Any, shift: Any) -> int | None:
    """``scale * x + shift``, each a number or one per channel."""
    channels = as_image(call.outputs[0].sample_shape)[2]
    pieces = []
    for part, values in (("scale", scale), ("shift", shift)):
        values = np.asarray(values, np.float64)
        if values.size not in (1, channels) or (values.size > 1 and values.shape[-1] != channels):
            return None
        pieces.append(lowering.array(f"{call.path}:{part}", np.broadcast_to(values.ravel(), (channels,))))
    return add_call(lowering, call, "identity", finish=Finish(scale=pieces[0], shift=pieces[1]))


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
    return add_call(lowering, call, "identity", finish=Finish(activation=known[0], parameters=known[1]))


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
        return add_call(lowering, call, kind, **window(call, layer.pool_size, layer.strides, ones, layer.padding))

    return rule


def _global_pool(kind: str) -> Callable[[Lowering, Call], int | None]:
    return lambda lowering, call: add_call(lowering, call, kind)


def _mean(lowering: Lowering, call: Call) -> int | None:
    axes = call.operation.axis
    axes = (axes,) if isinstance(axes, int) else tuple(axes or ())
    rank = len(call.inputs[0].shape)
    if rank not in (3, 4) or sorted(axis % rank for axis in axes) != list(range(1, rank - 1)):
        return None
    return add_call(lowering, call, "global_average")


def _place(lowering: Lowering, call: Call) -> int | None:
    """Padding and cropping: the output starts ``padding`` before the input."""
    layer = call.operation
    cropping = isinstance(layer, layers.Cropping1D | layers.Cropping2D)
    amounts = layer.cropping if cropping else layer.padding
    top, left = (0, amounts[0]) if isinstance(amounts[0], int) else (amounts[0][0], amounts[1][0])
    sign = -1 if cropping else 1
    return add_call(lowering, call, "place", padding=(sign * top, sign * left))


def _upsampling(lowering: Lowering, call: Call) -> int | None:
    layer = call.operation
    if getattr(layer, "interpolation", "nearest") != "nearest":
        return None
    size = (layer.size,) if isinstance(layer.size, int) else layer.size
    return add_call(lowering, call, "place", strides=pair(size))


def _reshape(lowering: Lowering, call: Call) -> int | None:
    if as_image(call.inputs[0].sample_shape) == as_image(call.outputs[0].sample_shape):
        return lowering.known[call.inputs[0]]
    return add_call(lowering, call, "reshape")


def _concatenate(lowering: Lowering, call: Call) -> int | None:
    rank = len(call.inputs[0].shape)
    return add_call(lowering, call, "concatenate") if call.operation.axis in (-1, rank - 1) and rank <= 4 else None


def _elementwise(kind: str) -> Callable[[Lowering, Call], int | None]:
    def rule(lowering: Lowering, call: Call) -> int | None:
        leaves = keras.tree.flatten((call.args, call.kwargs))
        if len(call.inputs) == 1 and len(leaves) == 2 and kind in ("add", "subtract", "multiply"):
            return _with_constant(lowering, call, kind, leaves)
        output = as_image(call.outputs[0].sample_shape)
        shapes = [as_image(value.sample_shape) for value in call.inputs]
        same_rank = len({len(value.shape) for value in call.inputs}) == 1
        fits = all(shape[2] in (1, output[2]) and shape[:2] in ((1, 1), output[:2]) for shape in shapes)
        return add_call(lowering, call, kind) if len(shapes) == len(leaves) > 1 and same_rank and fits else None

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
    layers.Conv1D: conv, layers.Conv2D: conv, layers.DepthwiseConv1D: depthwise, layers.DepthwiseConv2D: depthwise,
    layers.SeparableConv1D: separable, layers.SeparableConv2D: separable, layers.Dense: dense,
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
