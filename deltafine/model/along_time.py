"""Layers over (time, height, width, channels) or (time, channels), as what they do with one frame.

A causal convolution reads the frame and those before it: these are states, and the convolution is one over the
channels of all of them, side by side. Pooling and padding of single frames are those of pictures.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np

from deltafine.model.layer_names import Names

layers = keras.layers
Remember = Callable[[str, keras.KerasTensor, int], list[keras.KerasTensor]]
"""Makes states of what a tensor was in so many frames before this one, the last one first; of this layer."""


def padding_before(layer: keras.layers.Layer) -> int | None:
    """Frames of zeros that a padding puts before a clip; None where it puts some behind it, or is no padding."""
    if isinstance(layer, layers.ZeroPadding3D):
        before, behind = layer.padding[0]
    elif isinstance(layer, layers.ZeroPadding1D):
        before, behind = layer.padding
    else:
        return None
    return None if behind else int(before)


def padded(layer: keras.layers.Layer, frame: keras.KerasTensor, names: Names) -> keras.KerasTensor:
    """The frame with the zeros that a padding puts around each of them."""
    if isinstance(layer, layers.ZeroPadding1D) or not any(map(any, layer.padding[1:])):
        return frame
    pictures = names.keep(layers.ZeroPadding2D(layer.padding[1:], name=layer.name, dtype=layer.dtype_policy))
    return pictures(frame)


def frames_before(layer: keras.layers.Layer, padding: int) -> int | None:
    """How many frames before each one a convolution reads; None where it reads later ones, or leaves some out.

    Args:
        layer: any.
        padding: frames of zeros that stand before its clip.
    """
    if type(layer) not in (layers.Conv3D, layers.Conv1D) or layer.strides[0] != 1:
        return None
    reach = (layer.kernel_size[0] - 1) * layer.dilation_rate[0]
    if layer.groups > 1 and (reach or isinstance(layer, layers.Conv1D)):
        return None
    given = reach if layer.padding == "causal" else padding
    causal = reach == given and (padding == 0 or layer.padding == "valid")
    return reach if causal else None


def convolved(
    layer: keras.layers.Layer, frame: keras.KerasTensor, before: int, names: Names, remember: Remember
) -> keras.KerasTensor:
    """What a causal convolution gives for a frame, with the weights that it has now."""
    step = layer.dilation_rate[0]
    past = remember(layer.name, frame, before)[step - 1 :: step][::-1] if before else []
    x = keras.ops.concatenate([*past, frame], axis=-1) if past else frame
    kernel = np.asarray(layer.kernel)
    how = {"use_bias": layer.use_bias, "activation": layer.activation, "dtype": layer.dtype_policy, "name": layer.name}
    one: keras.layers.Layer
    if isinstance(layer, layers.Conv1D):
        one = layers.Dense(layer.filters, **how)
        kernel = kernel.reshape(-1, layer.filters)
    else:
        one = layers.Conv2D(
            layer.filters, layer.kernel_size[1:], layer.strides[1:], layer.padding,
            dilation_rate=layer.dilation_rate[1:], groups=layer.groups, **how,
        )  # fmt: skip
        kernel = np.moveaxis(kernel, 0, 2)
        kernel = kernel.reshape(*kernel.shape[:2], -1, layer.filters)
    made = names.keep(one)(x)
    one.set_weights([kernel, *([np.asarray(layer.bias)] if layer.use_bias else [])])
    return made


def on_frames(layer: keras.layers.Layer, names: Names) -> keras.layers.Layer | None:
    """The layer that does with a frame what this one does with each frame of a clip; None if there is none."""
    if isinstance(layer, layers.MaxPooling3D | layers.AveragePooling3D):
        if layer.pool_size[0] != 1 or layer.strides[0] != 1:
            return None
        kind = layers.MaxPooling2D if isinstance(layer, layers.MaxPooling3D) else layers.AveragePooling2D
        how = {"name": layer.name, "dtype": layer.dtype_policy}
        return names.keep(kind(layer.pool_size[1:], layer.strides[1:], layer.padding, **how))
    if type(layer) is layers.BatchNormalization and layer.axis in (-1, layer.input_spec.ndim - 1):
        weights = layer.get_weights()
        one = layers.BatchNormalization.from_config({**layer.get_config(), "axis": -1})
        one.build((None, layer.moving_mean.shape[0]))
        one.input_spec = None  # of vectors, and it takes any rank
        one.set_weights(weights)
        return names.keep(one)
    return None
