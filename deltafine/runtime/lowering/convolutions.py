"""Convolutions and dense layers in plain operations."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from deltafine.model.trace import Call
from deltafine.runtime.lowering.draft import Lowering, add_call, finish_of, geometry_of_layer


def _as_2d(kernel: keras.Variable) -> np.ndarray:
    values = np.asarray(kernel)
    return values[None] if values.ndim == 3 else values


def conv(lowering: Lowering, call: Call) -> int | None:
    layer = call.operation
    kernel = _as_2d(layer.kernel)
    if layer.groups > 1 and kernel.shape[2] == 1 and kernel.shape[3] == layer.groups:  # each channel by itself
        return _convolution(lowering, call, "depthwise", kernel.transpose(0, 1, 3, 2))
    return _convolution(lowering, call, "conv", kernel, groups=layer.groups)


def depthwise(lowering: Lowering, call: Call) -> int | None:
    return _convolution(lowering, call, "depthwise", _as_2d(call.operation.kernel))


def _convolution(lowering: Lowering, call: Call, kind: str, kernel: np.ndarray, **more: Any) -> int | None:
    layer = call.operation
    finish = finish_of(lowering, call, bias=layer.bias, function=layer.activation)
    if finish is None:
        return None
    weights = lowering.array(f"{call.path}:weights", kernel)
    return add_call(
        lowering, call, kind, **geometry_of_layer(call), **more, weights=weights, **lowering.fan(call), finish=finish
    )


def separable(lowering: Lowering, call: Call) -> int | None:
    layer = call.operation
    finish = finish_of(lowering, call, bias=layer.bias, function=layer.activation)
    if finish is None:
        return None
    first, second = f"{call.path}/depthwise", f"{call.path}/pointwise"
    kernel = _as_2d(layer.depthwise_kernel)
    between = (*call.outputs[0].sample_shape[:-1], kernel.shape[2] * kernel.shape[3])
    middle = lowering.add(
        "depthwise", first, (lowering.known[call.inputs[0]],), between, **geometry_of_layer(call),
        weights=lowering.array(f"{first}:weights", kernel), **lowering.fan(call, "depthwise", first),
        layer=type(layer).__name__,
    )  # fmt: skip
    return lowering.add(
        "conv", second, (middle,), call.outputs[0].sample_shape,
        weights=lowering.array(f"{second}:weights", _as_2d(layer.pointwise_kernel)),
        **lowering.fan(call, "pointwise", second), finish=finish, layer=type(layer).__name__,
    )  # fmt: skip


def dense(lowering: Lowering, call: Call) -> int | None:
    layer = call.operation
    finish = finish_of(lowering, call, bias=layer.bias, function=layer.activation)
    if finish is None or getattr(layer, "quantization_mode", None) is not None:
        return None
    weights = lowering.array(f"{call.path}:weights", np.asarray(layer.kernel)[None, None])
    return add_call(lowering, call, "conv", weights=weights, **lowering.fan(call), finish=finish)
