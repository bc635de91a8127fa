"""Pooling, means over axes, and pictures of another size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from deltafine.model.onnx_import.conv_operators import Pairs, by_axis, padded, paddings
from deltafine.model.onnx_import.onnx_step import Step
from deltafine.model.onnx_import.placed import Placed, unflattened

layers = keras.layers
_MAX = {1: layers.MaxPooling1D, 2: layers.MaxPooling2D, 3: layers.MaxPooling3D}
_AVERAGE = {1: layers.AveragePooling1D, 2: layers.AveragePooling2D, 3: layers.AveragePooling3D}
_GLOBAL_MAX = {1: layers.GlobalMaxPooling1D, 2: layers.GlobalMaxPooling2D, 3: layers.GlobalMaxPooling3D}
_GLOBAL_AVERAGE = {
    1: layers.GlobalAveragePooling1D, 2: layers.GlobalAveragePooling2D, 3: layers.GlobalAveragePooling3D,
}  # fmt: skip
_UPSAMPLING = {1: layers.UpSampling1D, 2: layers.UpSampling2D, 3: layers.UpSampling3D}
_LOWEST = float(np.finfo("float32").min)


def max_pool(step: Step) -> Placed:
    if len(step.node.output) > 1 and step.node.output[1]:
        raise step.refused("gives the places of the largest values, which Keras does not.")
    x, kernel, strides, pairs, same = _windows(step)
    if not same and pairs is not None and any(map(any, pairs)):
        if x.positive:  # no zero is larger than what is there
            x = replace(x, value=padded(x.value, pairs, step))
        else:
            around = ((0, 0), *pairs, (0, 0))
            x = replace(x, value=step.operation(keras.ops.pad, x.value, around, constant_values=_LOWEST))
    return replace(x, value=_pool(_MAX, step, kernel, strides, same)(x.value))


def average_pool(step: Step) -> Placed:
    x, kernel, strides, pairs, same = _windows(step)
    if pairs is None or not any(map(any, pairs)):
        return replace(x, value=_pool(_AVERAGE, step, kernel, strides, same)(x.value))
    counted = bool(step.attribute("count_include_pad", 0))
    if same and not counted:
        return replace(x, value=_pool(_AVERAGE, step, kernel, strides, True)(x.value))
    value = _pool(_AVERAGE, step, kernel, strides, False)(padded(x.value, pairs, step))
    if not counted:
        sizes = [_known(step, size) for size in x.value.shape[1:-1]]
        shares = [_share(*one) for one in zip(sizes, pairs, kernel, strides, strict=True)]
        factor = 1 / _outer(shares)
        value = step.operation(keras.ops.multiply, value, factor[None, ..., None].astype("float32"))
    return replace(x, value=value)


def _outer(shares: Sequence[np.ndarray]) -> np.ndarray:
    product = np.ones(())
    for share in shares:
        product = np.multiply.outer(product, share)
    return product


def _share(size: int, pair: tuple[int, int], kernel: int, stride: int) -> np.ndarray:
    """What share of each window of an axis lies on the picture."""
    begins = np.arange((size + sum(pair) - kernel) // stride + 1) * stride - pair[0]
    return (np.minimum(begins + kernel, size) - np.maximum(begins, 0)) / kernel


def _pool(kinds: dict[int, Any], step: Step, kernel: Sequence[int], strides: Sequence[int], same: bool) -> Any:
    padding = "same" if same else "valid"
    return kinds[len(kernel)](tuple(kernel), strides=tuple(strides), padding=padding, name=step.name())


def _windows(step: Step) -> tuple[Placed, list[int], tuple[int, ...], Pairs | None, bool]:
    """The picture, sizes and strides of the windows, the rows around, and whether these are Keras' ``same``."""
    x = step.picture()
    kernel = [int(size) for size in step.attribute("kernel_shape")]
    rank = len(kernel)
    if rank != len(x.order) - 2 or rank not in _MAX:
        raise step.refused(f"pools over {rank} axes, and Keras does over 1 to 3.")
    if max(by_axis(step, "dilations", rank)) > 1:
        raise step.refused("has dilations, which no pooling of Keras has.")
    strides = by_axis(step, "strides", rank)
    pairs, same = paddings(step, x.value.shape[1:-1], kernel, strides)
    if step.attribute("ceil_mode", 0) and pairs is not None:
        sizes = [_known(step, size) for size in x.value.shape[1:-1]]
        more = [_last_row(*one) for one in zip(sizes, pairs, kernel, strides, strict=True)]
        if any(more):
            if step.node.op_type == "AveragePool":
                raise step.refused("has a ceil_mode that averages over windows cut off, which Keras does not.")
            pairs = [(before, behind + extra) for (before, behind), extra in zip(pairs, more, strict=True)]
            same = False
    return x, kernel, strides, pairs, same


def _last_row(size: int, pair: tuple[int, int], kernel: int, stride: int) -> int:
    """How many rows ceil_mode adds: for the last window that begins on the picture or before it."""
    windows = -(-(size + sum(pair) - kernel) // stride) + 1
    if (windows - 1) * stride >= size + pair[0]:
        windows -= 1
    return max((windows - 1) * stride + kernel - size - sum(pair), 0)


def _known(step: Step, size: int | None) -> int:
    if size is None:
        raise step.refused("depends on the size of the frames, which is not fixed: export the network for one size.")
    return size


def _over_all(kinds: dict[int, Any]) -> Callable[[Step], Placed]:
    def pool(step: Step) -> Placed:
        x = step.picture()
        return replace(x, value=kinds[len(x.order) - 2](keepdims=True, name=step.name())(x.value))

    return pool


def _reduced(function: Callable[..., Any], layer: dict[int, Any] | None = None) -> Callable[[Step], Placed]:
    """Over some axes of ONNX, which since opset 18 are an input."""

    def reduce(step: Step) -> Placed:
        x, keep = unflattened(step.tensor(), step.name), bool(step.attribute("keepdims", 1))
        rank = len(x.order)
        given = step.whole_numbers(1, "axes")
        every = () if step.attribute("noop_with_empty_axes", 0) else range(rank)
        axes = sorted({axis % rank for axis in given or every})
        if not axes:
            return x
        if 0 in axes:
            raise step.refused("reduces the batch, which holds the frames of a clip.")
        if layer is not None and axes == list(range(2, rank)) and rank - 2 in layer:
            x = step.picture()
            value = layer[rank - 2](keepdims=keep, name=step.name())(x.value)
        else:
            places = tuple(x.place_of(axis) for axis in axes)
            value = step.operation(function, x.value, axis=places, keepdims=keep)
        kept = [axis for axis in x.order if axis not in axes]
        order = x.order if keep else tuple(sorted(kept).index(axis) for axis in kept)
        return Placed(value, order, positive=x.positive)

    return reduce


def resize(step: Step) -> Placed:
    """Whole factors of both forms, and bilinear pictures of any size, as TensorFlow makes them."""
    x = step.picture()
    rank = len(x.order) - 2
    sizes, factors = step.whole_numbers(3), step.constant(2)
    old = [_known(step, size) for size in x.shape[1:]]
    axes = [axis % len(x.order) for axis in step.attribute("axes") or range(len(x.order))]
    new: dict[int, float] = {}
    if sizes:
        new = {axis: float(size) for axis, size in zip(axes, sizes, strict=True)}
    elif factors is not None and factors.size == len(axes):
        new = {axis: (1 if axis == 0 else old[axis - 1]) * float(by) for axis, by in zip(axes, factors, strict=True)}
    else:
        raise step.refused("does not say which size it makes.")
    new = {0: 1, **{axis: old[axis - 1] for axis in range(1, len(x.order))}, **new}
    modes = step.attribute("mode", "nearest"), step.attribute("coordinate_transformation_mode", "half_pixel")
    half, rounding = ("half_pixel", "pytorch_half_pixel"), step.attribute("nearest_mode", "round_prefer_floor")
    exact = (
        *(("nearest", mode, "round_prefer_floor") for mode in half), ("nearest", "asymmetric", "floor"),
        *(("linear", mode, rounding) for mode in half),
    )  # fmt: skip
    plain = not step.attribute("antialias", 0) and step.attribute("keep_aspect_ratio_policy", "stretch") == "stretch"
    whole = all(float(size).is_integer() for size in new.values()) and new[1] == old[0]
    if not plain or not whole or (*modes, rounding) not in exact:
        raise step.refused(f"in mode {' '.join(modes)} has no layer of Keras that makes the same of this size.")
    target = [int(new[axis]) for axis in range(2, rank + 2)]
    by = [size / before for size, before in zip(target, old[1:], strict=True)]
    if modes[0] == "nearest" and all(one.is_integer() for one in by) and rank in _UPSAMPLING:
        size = [int(one) for one in by]
        return replace(x, value=_UPSAMPLING[rank](size[0] if rank == 1 else size, name=step.name())(x.value))
    if modes[0] == "linear" and rank == 2 and (modes[1] == "half_pixel" or min(target) > 1):
        return replace(x, value=layers.Resizing(*target, interpolation="bilinear", name=step.name())(x.value))
    raise step.refused(f"in mode {modes[0]} makes a size that Keras makes otherwise: it must be a whole multiple.")


OPERATORS: dict[str, Callable[[Step], Any]] = {
    "MaxPool": max_pool, "AveragePool": average_pool, "Resize": resize,
    "GlobalAveragePool": _over_all(_GLOBAL_AVERAGE), "GlobalMaxPool": _over_all(_GLOBAL_MAX),
    "ReduceMean": _reduced(keras.ops.mean, _GLOBAL_AVERAGE), "ReduceMax": _reduced(keras.ops.max, _GLOBAL_MAX),
    "ReduceSum": _reduced(keras.ops.sum),
}  # fmt: skip
