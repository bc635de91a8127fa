"""Convolutions and dense layers. Kernels of ONNX are (out, in / groups, ...); those of Keras (..., in, out)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from deltafine.model.onnx_import.onnx_step import Step
from deltafine.model.onnx_import.placed import Placed, moved, unflattened

layers = keras.layers
_CONVOLUTIONS = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}
_DEPTHWISE = {1: layers.DepthwiseConv1D, 2: layers.DepthwiseConv2D}
_TRANSPOSED = {1: layers.Conv1DTranspose, 2: layers.Conv2DTranspose, 3: layers.Conv3DTranspose}
_PADDINGS = {1: layers.ZeroPadding1D, 2: layers.ZeroPadding2D, 3: layers.ZeroPadding3D}
_CROPPINGS = {1: layers.Cropping1D, 2: layers.Cropping2D, 3: layers.Cropping3D}
Pairs = list[tuple[int, int]]


def by_axis(step: Step, name: str, rank: int) -> tuple[int, ...]:
    """A stride or dilation of every axis of a picture."""
    values = tuple(int(value) for value in step.attribute(name) or (1,) * rank)
    if len(values) != rank:
        raise step.refused(f"has {len(values)} {name} for {rank} axes: export the file again.")
    return values


def paddings(
    step: Step, sizes: Sequence[int | None], spans: Sequence[int], strides: Sequence[int]
) -> tuple[Pairs | None, bool]:
    """How many rows a convolution or pooling adds before and behind each axis, and whether that is Keras' ``same``.

    Args:
        step: the operator.
        sizes: of the axes of the picture; None where they are not known.
        spans: how far a window reaches.
        strides: of the windows.

    Returns:
        None for the numbers where only ``same`` is known, as the sizes are not.
    """
    kind, rank = step.attribute("auto_pad", "NOTSET"), len(spans)
    same: list[int | None] = []
    for size, span, stride in zip(sizes, spans, strides, strict=True):
        if stride == 1:
            same.append(span - 1)
        else:
            same.append(None if size is None else max((-(-size // stride) - 1) * stride + span - size, 0))
    known = [total for total in same if total is not None]
    as_keras = [(total // 2, total - total // 2) for total in known]
    if kind in ("SAME_UPPER", "SAME_LOWER"):
        if len(known) < rank:
            if kind == "SAME_LOWER":
                raise step.refused("pads frames of any size as SAME_LOWER: export the network for one size.")
            return None, True
        pairs = as_keras if kind == "SAME_UPPER" else [(behind, before) for before, behind in as_keras]
    else:
        pads = step.attribute("pads") or [0] * (2 * rank)
        pads = [0] * (2 * rank) if kind == "VALID" else [int(pad) for pad in pads]
        if len(pads) != 2 * rank or min(pads) < 0 or max(pads) > 2 * max(spans):
            raise step.refused("has pads that cut rows off, do not fit its axes, or are larger than its windows.")
        pairs = list(zip(pads[:rank], pads[rank:], strict=True))
    return pairs, len(known) == rank and pairs == as_keras


def padded(value: keras.KerasTensor, pairs: Pairs, step: Step) -> keras.KerasTensor:
    """The picture with zeros around it."""
    if not any(map(any, pairs)):
        return value
    return _PADDINGS[len(pairs)](pairs[0] if len(pairs) == 1 else pairs, name=step.name("pad"))(value)


def made(layer: keras.layers.Layer, value: keras.KerasTensor, *weights: np.ndarray | None) -> keras.KerasTensor:
    """What a layer with these weights makes of a value."""
    result = layer(value)
    layer.set_weights([weight for weight in weights if weight is not None])
    return result


def conv(step: Step) -> Placed:
    x, weight, bias = step.picture(), step.constant(1), step.constant(2)
    rank = len(x.order) - 2
    if weight is None or rank not in _CONVOLUTIONS or weight.ndim != rank + 2:
        raise step.refused(f"is a convolution of {rank} axes, and Keras has those of 1 to 3.")
    kernel, strides, dilations = weight.shape[2:], by_axis(step, "strides", rank), by_axis(step, "dilations", rank)
    if max(strides) > 1 and max(dilations) > 1:
        raise step.refused("has strides and dilations together, which no convolution of Keras has.")
    spans = [(size - 1) * apart + 1 for size, apart in zip(kernel, dilations, strict=True)]
    pairs, same = paddings(step, x.value.shape[1:-1], spans, strides)
    value = x.value if same or pairs is None else padded(x.value, pairs, step)
    groups, channels = step.attribute("group", 1), x.value.shape[-1]
    common: dict[str, Any] = {
        "kernel_size": kernel, "strides": strides, "dilation_rate": dilations, "padding": "same" if same else "valid",
        "use_bias": bias is not None, "name": step.name(),
    }  # fmt: skip
    even = len(set(strides)) == len(set(dilations)) == 1  # TensorFlow has no depthwise one with others
    if groups == channels > 1 and rank in _DEPTHWISE and even:
        own = weight.reshape(channels, -1, *kernel).transpose(*range(2, rank + 2), 0, 1)
        layer = _DEPTHWISE[rank](depth_multiplier=len(weight) // channels, **common)
        return Placed(made(layer, value, own, bias), x.order)
    layer = _CONVOLUTIONS[rank](len(weight), groups=groups, **common)
    return Placed(made(layer, value, weight.transpose(*range(2, rank + 2), 1, 0), bias), x.order)


def conv_transpose(step: Step) -> Placed:
    """All that the kernel reaches, of which the pads are cut off."""
    x, weight, bias = step.picture(), step.constant(1), step.constant(2)
    rank = len(x.order) - 2
    if weight is None or rank not in _TRANSPOSED or weight.ndim != rank + 2:
        raise step.refused(f"is a transposed convolution of {rank} axes, and Keras has those of 1 to 3.")
    kernel, strides = weight.shape[2:], by_axis(step, "strides", rank)
    simple = step.attribute("group", 1) == 1 and max(by_axis(step, "dilations", rank)) == 1
    notset = step.attribute("auto_pad", "NOTSET") == "NOTSET" and step.attribute("output_shape") is None
    if not simple or not notset or any(size < stride for size, stride in zip(kernel, strides, strict=True)):
        raise step.refused("has groups, dilations, an output_shape, an auto_pad or strides beyond its kernel.")
    pads = [int(pad) for pad in step.attribute("pads") or [0] * (2 * rank)]
    more = [int(size) for size in step.attribute("output_padding") or [0] * rank]
    cut = [(pads[axis], pads[axis + rank] - more[axis]) for axis in range(rank)]
    if min(map(min, cut)) < 0:
        raise step.refused("has more output_padding than pads, which Keras has not.")
    layer = _TRANSPOSED[rank](
        weight.shape[1], kernel, strides=strides, padding="valid", use_bias=bias is not None, name=step.name()
    )
    value = made(layer, x.value, weight.transpose(*range(2, rank + 2), 1, 0), bias)
    if any(map(any, cut)):
        value = _CROPPINGS[rank](cut[0] if rank == 1 else cut, name=step.name("crop"))(value)
    return Placed(value, x.order)


def gemm(step: Step) -> Placed:
    x, weight, bias = step.tensor(), step.constant(1), step.constant(2)
    if weight is None or len(x.order) != 2 or step.attribute("transA", 0):
        raise step.refused("is no dense layer: it turns round or mixes what the network computes.")
    weight = step.attribute("alpha", 1.0) * (weight.T if step.attribute("transB", 0) else weight)
    if bias is not None:
        bias = np.broadcast_to(step.attribute("beta", 1.0) * bias.reshape(-1), weight.shape[1:])
    return _dense(step, x, weight, bias)


def matmul(step: Step) -> Placed:
    if isinstance(step.input(1), Placed):
        first, second = step.plain(0), step.plain(1)
        if len(first.order) != len(second.order) or len(first.order) < 3:
            raise step.refused("multiplies tensors of different ranks, or samples of a batch with each other.")
        return Placed(step.operation(keras.ops.matmul, first.value, second.value), first.order)
    x, weight = step.tensor(), step.constant(1)
    if weight is None or weight.ndim != 2:
        raise step.refused("multiplies with a constant that is no matrix.")
    return _dense(step, x if len(x.order) == 2 else _last_axis_last(step, x), weight, None)


def _last_axis_last(step: Step, x: Placed) -> Placed:
    """The tensor with the last axis of ONNX last in Keras, too; the others may lie as they do."""
    x, last = unflattened(x, step.name), len(x.order) - 1
    return moved(x, [*(axis for axis in x.order if axis != last), last], step.name)


def _dense(step: Step, x: Placed, weight: np.ndarray, bias: np.ndarray | None) -> Placed:
    """A dense layer; of flat values, its rows are in the order in which these lie."""
    if x.flat is not None:
        weight, x = weight[x.flat_places()], replace(x, flat=None)
    layer = layers.Dense(weight.shape[1], use_bias=bias is not None, name=step.name())
    return Placed(made(layer, x.value, weight, bias), x.order)


def batch_normalization(step: Step) -> Placed:
    if step.attribute("training_mode", 0):
        raise step.refused("is in training mode: export the network after model.eval().")
    x = step.picture()
    layer = layers.BatchNormalization(
        momentum=step.attribute("momentum", 0.9), epsilon=step.attribute("epsilon", 1e-5), name=step.name()
    )
    return Placed(made(layer, x.value, *(step.constant(place) for place in range(1, 5))), x.order)


def layer_normalization(step: Step) -> Placed:
    """Over the last axis of ONNX, which becomes the last in Keras."""
    x = step.tensor()
    rank = len(x.order)
    if step.attribute("axis", -1) not in (-1, rank - 1) or any(step.node.output[1:]):
        raise step.refused("normalises several axes or gives more than the values, for which Keras has no layer.")
    x = _last_axis_last(step, x)
    layer = layers.LayerNormalization(epsilon=step.attribute("epsilon", 1e-5), center=step.given(2), name=step.name())
    return Placed(made(layer, x.value, step.constant(1), step.constant(2)), x.order)


OPERATORS: dict[str, Callable[[Step], Any]] = {
    "Conv": conv, "ConvTranspose": conv_transpose, "Gemm": gemm, "MatMul": matmul,
    "BatchNormalization": batch_normalization, "LayerNormalization": layer_normalization,
}  # fmt: skip
