"""Training convolutions of a single tap with strides without the kernel that TensorFlow has for them.

On a CPU, TensorFlow 2.21 with oneDNN writes beyond its memory when it computes the gradient of the kernel of a 1x1
convolution with strides and fewer than 16 input channels, and the process dies. Such layers are the shortcuts of small
residual networks. Taking every n-th position first and convolving without strides is the same sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops

from deltafine.model import graph

layers = keras.layers


@contextmanager
def strides_taken_first(model: keras.Model) -> Iterator[None]:
    """Within, calls of the model's convolutions of a single tap take the positions of their strides first."""
    found = [
        layer
        for _, layer in graph.all_layers_by_path(model)
        if isinstance(layer, layers.Conv1D | layers.Conv2D | layers.Conv3D)
        and set(layer.kernel_size) == {1}
        and max(layer.strides) > 1
        and layer.data_format == "channels_last"
    ]
    for layer in found:
        layer.convolution_op = _strides_first(layer)
    try:
        yield
    finally:
        for layer in found:
            del layer.convolution_op


def _strides_first(layer: Any) -> Any:
    places = (slice(None), *(slice(None, None, stride) for stride in layer.strides))

    def convolution(inputs: Any, kernel: Any) -> Any:
        return ops.conv(inputs[places], kernel, strides=1, padding="valid", data_format="channels_last")

    return convolution
