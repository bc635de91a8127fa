"""Fan-out: the number of weights that each element of a layer's input meets.

The fan-out of an input element is the number of multiply-accumulates (MACs) that it takes part in. It is
what a copy of the layer with all weights one gives as the gradient of the sum of its outputs with respect
to that element; padding zeros are no elements, so they cost nothing. Along one axis of a convolution the
fan-out does not depend on the other axes, so it is counted axis by axis and multiplied, in integers.

A separable convolution is two operations in a row: ``depthwise`` on its input, and ``pointwise`` on the
intermediate tensor. Ask for each by its stage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import numpy as np

from deltafine.errors import DeltafineError

layers = keras.layers
CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
DENSE = (layers.Dense, layers.EinsumDense)
COVERED = CONVOLUTIONS + TRANSPOSED + DEPTHWISE + SEPARABLE + DENSE

Shape = Sequence[int]


def is_covered(layer: keras.layers.Layer) -> bool:
    """Whether ``fan_out`` knows the layer."""
    return isinstance(layer, COVERED)


def stages(layer: keras.layers.Layer) -> tuple[str | None, ...]:
    """The MAC operations inside a layer, in order: ``(None,)``, or the two stages of a separable one."""
    return ("depthwise", "pointwise") if isinstance(layer, SEPARABLE) else (None,)


def fan_out(layer: keras.layers.Layer, input_shape: Shape, *, stage: str | None = None) -> np.ndarray:
    """Number of weights that each element of the layer's input meets.

    Args:
        layer: a built convolution (plain, grouped, depthwise, separable, transposed), ``Dense`` or
            ``EinsumDense`` layer.
        input_shape: shape of one sample of the layer's input, without the batch axis, all sizes known.
        stage: for a separable convolution ``"depthwise"`` or ``"pointwise"``; the latter counts for the
            elements of the intermediate tensor, whose shape ``intermediate_shape`` gives.

    Returns:
        int64 array that broadcasts to the input shape (or the intermediate shape): size 1 along axes
        that make no difference.

    Raises:
        DeltafineError: the layer has no fan-out rule, or a size is unknown.
        ValueError: a stage is missing, or given for a layer that has none.
    """
    if any(size is None for size in input_shape):
        raise DeltafineError(
            f"The fan-out of layer '{layer.name}' needs a known input size, but its input shape is "
            f"{tuple(input_shape)}: give the frame size."
        )
    if stage not in stages(layer):
        raise ValueError(f"stage={stage!r} does not fit {type(layer).__name__}; choose from {stages(layer)}")
    if isinstance(layer, layers.EinsumDense):
        return np.full((1,) * len(input_shape), _einsum_fan_out(layer), np.int64)
    if isinstance(layer, layers.Dense):
        return np.full((1,) * len(input_shape), layer.units, np.int64)
    if stage == "pointwise":
        return np.full((1,) * len(input_shape), layer.filters, np.int64)
    if isinstance(layer, DEPTHWISE + SEPARABLE):
        return _convolution_fan_out(layer, input_shape, layer.depth_multiplier)
    if isinstance(layer, TRANSPOSED):
        return _convolution_fan_out(layer, input_shape, layer.filters)
    if isinstance(layer, CONVOLUTIONS):
        return _convolution_fan_out(layer, input_shape, layer.filters // layer.groups)
    raise DeltafineError(f"Layer '{layer.name}' of type {type(layer).__name__} has no fan-out rule.")


def dense_macs(layer: keras.layers.Layer, input_shape: Shape) -> int:
    """MACs of one call on one sample when every input element is used; all stages together.

    Equals the sum of the fan-out over all input elements. Padding zeros are not counted.
    """
    total = 0
    for stage in stages(layer):
        shape = intermediate_shape(layer, input_shape) if stage == "pointwise" else tuple(input_shape)
        fan = fan_out(layer, input_shape, stage=stage)
        repeats = math.prod(size for size, own in zip(shape, fan.shape, strict=True) if own == 1)
        total += int(fan.sum()) * repeats
    return total


def intermediate_shape(layer: keras.layers.Layer, input_shape: Shape) -> tuple[int, ...]:
    """Shape, without batch, of the tensor between the two stages of a separable convolution."""
    shape = list(layer.compute_output_shape((None, *input_shape))[1:])
    channel_axis = -1 if layer.data_format == "channels_last" else 0
    shape[channel_axis] = input_shape[channel_axis] * layer.depth_multiplier
    return tuple(shape)


def spatial_axes(layer: keras.layers.Layer, rank: int) -> tuple[int, ...]:
    """Axes of a sample (without batch) that a convolution slides over."""
    return tuple(range(rank - 1)) if layer.data_format == "channels_last" else tuple(range(1, rank))


def _convolution_fan_out(layer: keras.layers.Layer, input_shape: Shape, weights_per_tap: int) -> np.ndarray:
    axes = spatial_axes(layer, len(input_shape))
    transposed = isinstance(layer, TRANSPOSED)
    output_shape = layer.compute_output_shape((None, *input_shape))[1:] if transposed else input_shape
    result = np.full((1,) * len(input_shape), weights_per_tap, np.int64)
    for position, axis in enumerate(axes):
        kernel = layer.kernel_size[position]
        stride, dilation = layer.strides[position], layer.dilation_rate[position]
        if transposed:
            counts = _taps_of_transposed(input_shape[axis], output_shape[axis], kernel, stride, dilation, layer.padding)
        else:
            counts = _taps(input_shape[axis], kernel, stride, dilation, layer.padding)
        result = result * counts.reshape([-1 if other == axis else 1 for other in range(len(input_shape))])
    return result


def _taps(size: int, kernel: int, stride: int, dilation: int, padding: str) -> np.ndarray:
    """How many kernel taps read each of the ``size`` input positions along one axis."""
    reach = (kernel - 1) * dilation + 1
    if padding == "valid":
        left, outputs = 0, max((size - reach) // stride + 1, 0)
    elif padding == "causal":
        left, outputs = reach - 1, (size - 1) // stride + 1
    else:
        outputs = -(-size // stride)
        left = max((outputs - 1) * stride + reach - size, 0) // 2
    read = (np.arange(outputs) * stride)[:, None] + np.arange(kernel) * dilation - left
    inside = read[(read >= 0) & (read < size)]
    return np.bincount(inside, minlength=size).astype(np.int64)


def _taps_of_transposed(size: int, outputs: int, kernel: int, stride: int, dilation: int, padding: str) -> np.ndarray:
    """How many kernel taps write inside the output from each of the ``size`` input positions."""
    reach = (kernel - 1) * dilation + 1
    left = 0 if padding == "valid" else max((size - 1) * stride + reach - outputs, 0) // 2
    written = (np.arange(size) * stride)[:, None] + np.arange(kernel) * dilation - left
    return ((written >= 0) & (written < outputs)).sum(axis=1, dtype=np.int64)


def _einsum_fan_out(layer: keras.layers.Layer) -> int:
    """Weights per input element: the sizes of the kernel's axes that the input does not share."""
    inputs, rest = layer.equation.replace(" ", "").split(",")
    kernel_labels = rest.split("->")[0].replace("...", "")
    sizes = layer.kernel.shape
    return math.prod(size for label, size in zip(kernel_labels, sizes, strict=True) if label not in inputs)
