"""A plan in the making, and what the rules of lowering have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from deltafine.errors import DeltafineError
from deltafine.model.fan_out_counts import fan_out, intermediate_shape
from deltafine.model.trace import Call, Value
from deltafine.runtime.activation_functions import of_function
from deltafine.runtime.plan import Finish, Operation, Plan, Tensor


class Lowering:
    """A plan in the making: which tensor each value of the Keras graph is, and the arrays gathered so far.

    ``calls``: those left to Keras, by the operation's name, and which of their outputs the operation is; ``maker``:
    the call that gives each value so far.
    """

    def __init__(self, name: str, frame: Value) -> None:
        self.plan = Plan(name, [], [], ())
        self.known: dict[Value, int] = {}
        self.calls: dict[str, tuple[Call, int]] = {}
        self.maker: dict[Value, Call] = {}
        self.known[frame] = self.add("input", "input", (), frame.sample_shape)

    def alias(self, value: Value, of: Value) -> None:
        """Two values of the graph that are one tensor in a plan."""
        self.known[value] = self.known[of]

    def add(
        self, kind: str, name: str, inputs: tuple[int, ...], sample_shape: tuple[int, ...], **fields: Any
    ) -> int:  # fmt: skip
        """Append an operation and its output tensor; returns the tensor's index."""
        if any(size is None for size in sample_shape):
            raise DeltafineError(
                f"Layer '{name}' of model '{self.plan.name}' gives {sample_shape} per frame, a size that depends on "
                "the values, and the runtime needs one that is the same for every frame."
            )
        index = len(self.plan.tensors)
        self.plan.tensors.append(Tensor(name, as_image(sample_shape), tuple(sample_shape)))
        self.plan.operations.append(Operation(kind, name, inputs, index, **fields))
        return index

    def reshaped(self, value: Value, name: str, sample_shape: tuple[int, ...]) -> int:
        """The tensor of a value, or the same values as a tensor of another shape."""
        source = self.known[value]
        if self.plan.tensors[source].sample_shape == tuple(sample_shape):
            return source
        same = self.plan.tensors[source].shape == as_image(sample_shape)
        return self.add("identity" if same else "reshape", name, (source,), sample_shape, layer="Reshape")

    def array(self, name: str, values: Any) -> str:
        """Keep an array; returns its name."""
        values = np.asarray(values)
        self.plan.arrays[name] = values if values.dtype.kind in "iub" else values.astype(np.float64)
        return name

    def fan(self, call: Call, stage: str | None = None, name: str = "") -> dict[str, Any]:
        """Fields of an operation: the fan-out of its input, (height, width), and the dense MACs of a frame."""
        shape = call.inputs[0].sample_shape
        fan = fan_out(call.operation, shape, stage=stage)
        inside = intermediate_shape(call.operation, shape) if stage == "pointwise" else shape
        height, width, channels = as_image(inside)
        whole = np.broadcast_to(fan.reshape(as_image(fan.shape))[:, :, 0], (height, width))
        return {
            "fan": self.array(f"{name or call.path}:fan", whole),
            "dense_macs": int(whole.sum(dtype=np.int64)) * channels,
        }


def as_image(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The shape of a sample as (height, width, channels)."""
    padded = (1, 1, 1, *shape)
    return (padded[-3], padded[-2], padded[-1]) if len(shape) <= 3 else (1, math.prod(shape[:-1]), shape[-1])


def add_call(lowering: Lowering, call: Call, kind: str, *, name: str = "", **fields: Any) -> int:
    inputs = tuple(lowering.known[value] for value in call.inputs)
    layer = type(call.operation).__name__
    return lowering.add(kind, name or call.path, inputs, call.outputs[0].sample_shape, layer=layer, **fields)


def finish_of(
    lowering: Lowering,
    call: Call,
    *,
    bias: keras.Variable | np.ndarray | None = None,
    function: Callable[..., Any] | None = None,
) -> Finish | None:
    """Bias and activation of a layer; None for an activation that only Keras knows."""
    known = of_function(function)
    if known is None:
        return None
    shift = "" if bias is None else lowering.array(f"{call.path}:shift", bias)
    return Finish(shift=shift, activation=known[0], parameters=known[1])


def pair(value: Sequence[int]) -> tuple[int, int]:
    """(height, width) of a setting; one of a 1-D layer lies along the width."""
    values = tuple(value)
    return (1, int(values[0])) if len(values) == 1 else (int(values[0]), int(values[1]))


def geometry(
    call: Call, kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int], padding: str
) -> dict[str, Any]:
    """Kernel, strides, dilation and the zeros before the input, (height, width) each, as an operation has them."""
    sides = as_image(call.inputs[0].sample_shape)[:2]
    kernel, strides, dilation = pair(kernel), pair(strides), pair(dilation)
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


def geometry_of_layer(call: Call) -> dict[str, Any]:
    """The same of a layer with a kernel."""
    layer = call.operation
    return geometry(call, layer.kernel_size, layer.strides, layer.dilation_rate, layer.padding)
