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
    return _convolution(lowering, call, "conv", groups=call.operation.groups)


def depthwise(lowering: Lowering, call: Call) -> int | None:
    return _convolution(lowering, call, "depthwise")


def _convolution(lowering: Lowering, call: Call, kind: str, **more: Any) -> int | None:
    layer = call.operation
    finish = finish_of(lowering, call, bias=layer.bias, function=layer.activation)
    if finish is None:
        return None
    weights = lowering.array(f"{call.path}:weights", _as_2d(layer.kernel))
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
