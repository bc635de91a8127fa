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
from deltafine.model.onnx_import.resampling import COORDINATES, MODES, resampled

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


def _of_squares(step: Step) -> Placed:
    """The sum of the squares over some axes."""
    x = step.tensor()
    squares = replace(x, value=step.operation(keras.ops.square, x.value), positive=True)
    return _reduced(keras.ops.sum)(replace(step, values={**step.values, step.node.input[0]: squares}))


def _length(step: Step) -> Placed:
    x = _of_squares(step)
    return replace(x, value=step.operation(keras.ops.sqrt, x.value), positive=True)


def resize(step: Step) -> Placed:
    """Layers of Keras where these make the same, of whole factors and bilinear; else sums of rows and of columns."""
    x = step.picture()
    rank = len(x.order) - 2
    sizes, factors = step.whole_numbers(3), step.constant(2)
    old = [_known(step, size) for size in x.shape[1:]]
    axes = [axis % len(x.order) for axis in step.attribute("axes") or range(len(x.order))]
    scales = dict.fromkeys(range(len(x.order)), 1.0)
    new = dict(enumerate([1, *old]))
    if sizes:
        new |= {axis: size for axis, size in zip(axes, sizes, strict=True) if axis}
        scales |= {axis: new[axis] / old[axis - 1] for axis in axes if axis}
    elif factors is not None and factors.size == len(axes):
        scales |= {axis: float(by) for axis, by in zip(axes, factors, strict=True)}
        new |= {axis: int(old[axis - 1] * scales[axis]) for axis in axes if axis}
    else:
        raise step.refused("does not say which size it makes.")
    mode = step.attribute("mode", "nearest")
    coordinates = step.attribute("coordinate_transformation_mode", "half_pixel")
    known = mode in MODES and coordinates in COORDINATES and not step.attribute("exclude_outside", 0)
    plain = not step.attribute("antialias", 0) and step.attribute("keep_aspect_ratio_policy", "stretch") == "stretch"
    if not known or not plain or scales[0] != 1 or new[1] != old[0] or min(new.values()) < 1:
        raise step.refused(f"in mode {mode} {coordinates} is not one that deltafine makes: export the network without.")
    target = [new[axis] for axis in range(2, rank + 2)]
    by = [size / before for size, before in zip(target, old[1:], strict=True)]
    along = [scales[axis] for axis in range(2, rank + 2)]
    half, rounding = coordinates in COORDINATES[:2], step.attribute("nearest_mode", "round_prefer_floor")
    usual = rounding == ("round_prefer_floor" if half else "floor") and coordinates != "align_corners"
    if mode == "nearest" and usual and by == along and all(one.is_integer() for one in by) and rank in _UPSAMPLING:
        size = [int(one) for one in by]
        return replace(x, value=_UPSAMPLING[rank](size[0] if rank == 1 else size, name=step.name())(x.value))
    exact = by == along and rank == 2 and half and (coordinates == "half_pixel" or min(target) > 1)
    if mode == "linear" and exact:
        return replace(x, value=layers.Resizing(*target, interpolation="bilinear", name=step.name())(x.value))
    return resampled(step, x, target, along, mode, coordinates)


def depth_to_space(step: Step) -> Placed:
    """Channels that become the pixels of a block, as ``PixelShuffle`` does."""
    x, block = step.picture(), step.attribute("blocksize")
    rows, columns, channels = _blocks(step, x, block)
    if channels % (block * block):
        raise step.refused("has channels that do not fill its blocks.")
    channels //= block * block
    crd = step.attribute("mode", "DCR") == "CRD"
    shape = (rows, columns, channels, block, block) if crd else (rows, columns, block, block, channels)
    split = layers.Reshape(shape, name=step.name("blocks"))(x.value)
    turned = layers.Permute((1, 4, 2, 5, 3) if crd else (1, 3, 2, 4, 5), name=step.name("order"))(split)
    return replace(x, value=layers.Reshape((rows * block, columns * block, channels), name=step.name())(turned))


def space_to_depth(step: Step) -> Placed:
    """The pixels of a block become channels."""
    x, block = step.picture(), step.attribute("blocksize")
    rows, columns, channels = _blocks(step, x, block)
    if rows % block or columns % block:
        raise step.refused("has blocks that do not fill its picture.")
    shape = (rows // block, block, columns // block, block, channels)
    split = layers.Reshape(shape, name=step.name("blocks"))(x.value)
    turned = layers.Permute((1, 3, 2, 4, 5), name=step.name("order"))(split)
    made = (rows // block, columns // block, channels * block * block)
    return replace(x, value=layers.Reshape(made, name=step.name())(turned))


def _blocks(step: Step, x: Placed, block: int) -> list[int]:
    """Rows, columns and channels."""
    if len(x.order) != 4 or block < 1:
        raise step.refused("is of something else than pictures.")
    return [_known(step, size) for size in x.value.shape[1:]]


OPERATORS: dict[str, Callable[[Step], Any]] = {
    "MaxPool": max_pool, "AveragePool": average_pool, "Resize": resize,
    "GlobalAveragePool": _over_all(_GLOBAL_AVERAGE), "GlobalMaxPool": _over_all(_GLOBAL_MAX),
    "ReduceMean": _reduced(keras.ops.mean, _GLOBAL_AVERAGE), "ReduceMax": _reduced(keras.ops.max, _GLOBAL_MAX),
    "ReduceSum": _reduced(keras.ops.sum), "ReduceMin": _reduced(keras.ops.min),
    "ReduceSumSquare": _of_squares, "ReduceL2": _length,
    "DepthToSpace": depth_to_space, "SpaceToDepth": space_to_depth,
}  # fmt: skip
