"""Products with weights that are not a convolution as they stand: transposed convolutions, EinsumDense, attention."""

from __future__ import annotations

import math

import numpy as np

from deltafine.model import keras_private
from deltafine.model.trace import Call, Value
from deltafine.runtime.activation_functions import BY_POSITION
from deltafine.runtime.lowering.draft import Lowering, as_image, finish_of, pair
from deltafine.runtime.lowering.moving import add_gather
from deltafine.runtime.plan import Finish


def transposed(lowering: Lowering, call: Call) -> int | None:
    """A convolution that gives, for each position, all of the outputs around it; these are then laid side by side.

    Output (y, x) lies in block ((y + top) // stride, ...), and is number ((y + top) % stride, ...) of it.
    """
    layer = call.operation
    source, target = as_image(call.inputs[0].sample_shape), as_image(call.outputs[0].sample_shape)
    kernel = np.asarray(layer.kernel, np.float64)
    kernel = kernel[None] if kernel.ndim == 3 else kernel
    size, strides = pair(layer.kernel_size), pair(layer.strides)
    finish = finish_of(lowering, call, function=layer.activation)
    if finish is None or max(layer.dilation_rate) > 1:
        return None
    same = layer.padding == "same"
    cut = [
        max((source[axis] - 1) * strides[axis] + size[axis] - target[axis], 0) // 2 if same else 0 for axis in (0, 1)
    ]
    bias = np.zeros(layer.filters) if layer.bias is None else np.asarray(layer.bias, np.float64)
    shift = lowering.array(f"{call.path}:shift", np.tile(bias, math.prod(strides)))
    inputs, kind, filters = (lowering.known[call.inputs[0]],), type(layer).__name__, layer.filters
    if strides == (1, 1):
        return lowering.add(
            "conv", call.path, inputs, call.outputs[0].sample_shape, kernel=size,
            padding=(size[0] - 1 - cut[0], size[1] - 1 - cut[1]), **lowering.fan(call), layer=kind,
            weights=lowering.array(f"{call.path}:weights", kernel[::-1, ::-1].transpose(0, 1, 3, 2)),
            finish=Finish(shift=shift, activation=finish.activation, parameters=finish.parameters),
        )  # fmt: skip
    taps = [-(-count // step) for count, step in zip(size, strides, strict=True)]
    blocks = [(target[axis] - 1 + cut[axis]) // strides[axis] + 1 for axis in (0, 1)]
    padded = np.zeros((taps[0] * strides[0], taps[1] * strides[1], filters, source[2]))
    padded[: size[0], : size[1]] = kernel
    by_tap = padded.reshape(taps[0], strides[0], taps[1], strides[1], filters, source[2])[::-1, :, ::-1]
    weights = by_tap.transpose(0, 2, 5, 1, 3, 4).reshape(*taps, source[2], -1)
    of_row = finish.activation in BY_POSITION
    early = finish if not of_row else Finish()
    early = Finish(shift=shift, activation=early.activation, parameters=early.parameters)
    made = lowering.add(
        "conv", call.path, inputs, (*blocks, weights.shape[-1]), kernel=(taps[0], taps[1]),
        padding=(taps[0] - 1, taps[1] - 1), **lowering.fan(call), finish=early, layer=kind,
        weights=lowering.array(f"{call.path}:weights", weights),
    )  # fmt: skip
    y, x, f = np.ogrid[: target[0], : target[1], :filters]
    y, x = y + cut[0], x + cut[1]
    number = (y % strides[0]) * strides[1] + x % strides[1]
    places = ((y // strides[0] * blocks[1] + x // strides[1]) * math.prod(strides) + number) * filters + f
    name, late = f"{call.path}/side_by_side", finish if of_row else None
    return add_gather(lowering, name, [made], places.reshape(call.outputs[0].sample_shape), kind, late)


def einsum_dense(lowering: Lowering, call: Call) -> int | None:
    """Where the last axes of the input are summed over, and the new ones stand last: a dense layer of flat axes."""
    layer, shape = call.operation, call.inputs[0].sample_shape
    left, _, result = layer.equation.replace(" ", "").partition("->")
    given, _, of_kernel = left.partition(",")
    summed = [letter for letter in given if letter not in result]
    new = [letter for letter in result if letter not in given]
    kept = given[: len(given) - len(summed)]
    simple = (
        "..." not in layer.equation and given == kept + "".join(summed) and result == kept + "".join(new)
        and bool(kept) and bool(summed) and bool(new) and sorted(of_kernel) == sorted(summed + new)
    )  # fmt: skip
    if not simple or getattr(layer, "quantization_mode", None) is not None:
        return None
    kernel = np.asarray(layer.kernel).transpose([of_kernel.index(letter) for letter in (*summed, *new)])
    sizes = kernel.shape[len(summed) :]
    bias = None if layer.bias is None else np.asarray(layer.bias)
    if bias is not None and bias.ndim > len(sizes):
        if max(bias.shape[: bias.ndim - len(sizes)]) > 1:
            return None
        bias = bias.reshape(bias.shape[bias.ndim - len(sizes) :])
    bias = None if bias is None else np.broadcast_to(bias, sizes).ravel()
    finish = finish_of(lowering, call, bias=bias, function=layer.activation)
    if finish is None or (len(new) > 1 and finish.activation in BY_POSITION):
        return None
    before = shape[: len(shape) - len(summed)]
    inputs, outputs = math.prod(kernel.shape[: len(summed)]), math.prod(sizes)
    if as_image(call.inputs[0].sample_shape)[2] == inputs:  # one axis is summed over: the rows stand as they are
        source, weights = lowering.known[call.inputs[0]], kernel.reshape(1, 1, inputs, outputs)
        made = lowering.add(
            "conv", call.path, (source,), (*before, outputs), finish=finish, layer=type(layer).__name__,
            weights=lowering.array(f"{call.path}:weights", weights), **lowering.fan(call),
        )  # fmt: skip
    else:
        source = lowering.reshaped(call.inputs[0], f"{call.path}/flat", (*before, inputs))
        height, width, _ = lowering.plan.tensors[source].shape
        fan = lowering.array(f"{call.path}:fan", np.full((height, width), outputs))
        made = lowering.add(
            "conv", call.path, (source,), (*before, outputs), finish=finish, layer=type(layer).__name__, fan=fan,
            weights=lowering.array(f"{call.path}:weights", kernel.reshape(1, 1, inputs, outputs)),
            dense_macs=height * width * inputs * outputs,
        )  # fmt: skip
    return _shaped(lowering, made, f"{call.path}/shaped", call.outputs[0].sample_shape, type(layer).__name__)


def attention(lowering: Lowering, call: Call) -> int | None:
    """Queries, keys and values as dense layers of each position, the two products, and a dense layer of the result."""
    layer, path = call.operation, call.path
    parts, given = keras_private.attention_parts(layer), _given(call)
    if parts is None or given is None:
        return None
    kind = type(layer).__name__
    made: list[int] = []
    places = ("query", "key", "value", "output")
    for name, value, dense in zip(places, (*given, None), parts.layers, strict=True):
        kernel = np.asarray(dense.kernel)
        inputs = math.prod(kernel.shape[:-1]) if value is None else kernel.shape[0]
        weights = kernel.reshape(1, 1, inputs, -1)
        if value is None:
            positions, keys = given[0].sample_shape[0], given[1].sample_shape[0]
            sizes = parts.size + inputs // parts.heads
            source = lowering.add(
                "attention", f"{path}/products", tuple(made), (positions, inputs), groups=parts.heads, layer=kind,
                weights=lowering.array(f"{path}:scale", np.asarray(parts.scale)),
                dense_macs=positions * keys * parts.heads * sizes,
            )  # fmt: skip
        else:
            source, positions = lowering.known[value], value.sample_shape[0]
        bias = "" if dense.bias is None else lowering.array(f"{path}/{name}:shift", np.asarray(dense.bias).ravel())
        made.append(
            lowering.add(
                "conv", path if value is None else f"{path}/{name}", (source,), (positions, weights.shape[3]),
                weights=lowering.array(f"{path}/{name}:weights", weights), finish=Finish(shift=bias), layer=kind,
                fan=lowering.array(f"{path}/{name}:fan", np.full((1, positions), weights.shape[3])),
                dense_macs=positions * weights.size,
            )
        )  # fmt: skip
    return made[-1]


def _given(call: Call) -> tuple[Value, Value, Value] | None:
    """Queries, keys and values, if a call has nothing else, and each is positions of channels."""
    named = dict(zip(("query", "value", "key"), call.args, strict=False))
    named |= {name: value for name, value in call.kwargs.items() if name not in ("training",)}
    query, value = named.pop("query", None), named.pop("value", None)
    key = named.pop("key", None)
    key = value if key is None else key
    if len(call.args) > 3 or any(one not in (None, False) for one in named.values()):
        return None
    values = (query, key, value)
    plain = all(isinstance(one, Value) and len(one.shape) == 3 and "float" in one.dtype for one in values)
    return values if plain else None  # type: ignore[return-value]


def _shaped(lowering: Lowering, source: int, name: str, shape: tuple[int, ...], layer: str) -> int:
    tensor = lowering.plan.tensors[source]
    if tensor.sample_shape == tuple(shape):
        return source
    same = tensor.shape == as_image(shape)
    return lowering.add("identity" if same else "reshape", name, (source,), shape, layer=layer)
