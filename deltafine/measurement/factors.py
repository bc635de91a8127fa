"""What a layer with MACs multiplies by its weights, as it runs: its input, and what it has inside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import keras
import numpy as np

from deltafine.model import recurrent
from deltafine.model.fan_out_counts import fan_out, stages
from deltafine.model.macs import MacLayer

if TYPE_CHECKING:
    import tensorflow as tf


NOTHING, OUTPUTS, ITSELF = "nothing", "outputs", "itself"


@dataclass(frozen=True)
class Factor:
    """One tensor that is multiplied.

    Attributes:
        name: path of the layer, with the product in it.
        value: the tensor, batch first.
        fan: how many weights each element meets; broadcasts to the value without the batch axis.
        writes: what the product is written to: ``NOTHING`` of its own, the layer's ``OUTPUTS``, or a state of the
            size of the value ``ITSELF``.
        restarts: it is zeros at the first step of every window, whatever the window before has left.
    """

    name: str
    value: tf.Tensor
    fan: np.ndarray
    writes: str
    restarts: bool = False


def factors(entry: MacLayer, x: tf.Tensor, sent: Mapping[str, tf.Tensor]) -> Iterator[Factor]:
    """The factors of a covered call of a layer or operation on ``x`` that is no product of two tensors.

    Args:
        entry: of the call.
        x: its input.
        sent: by path, what the delta layers inside it send.
    """
    layer, shape = entry.counted_as, x.shape[1:]
    if layer is None:
        yield from _of_recurrent(entry, x, sent)
    elif len(stages(layer)) == 1:
        yield Factor(entry.path, x, fan_out(layer, shape), OUTPUTS)
    else:
        between = keras.ops.depthwise_conv(
            x,
            layer.depthwise_kernel,
            strides=layer.strides,
            padding=layer.padding,
            dilation_rate=layer.dilation_rate,
            data_format=layer.data_format,
        )
        yield Factor(f"{entry.path}/depthwise", x, fan_out(layer, shape, stage="depthwise"), NOTHING)
        yield Factor(f"{entry.path}/pointwise", between, fan_out(layer, shape, stage="pointwise"), OUTPUTS)


def _of_recurrent(entry: MacLayer, x: tf.Tensor, sent: Mapping[str, tf.Tensor]) -> Iterator[Factor]:
    for name, one_way, kind, fan, _ in recurrent.products(entry.layer, x.shape[1:]):
        if kind != recurrent.INPUT:
            held = sent.get(f"{entry.path}/{name}_delta")
            state = recurrent.states(one_way, x, kind) if held is None else held
            yield Factor(f"{entry.path}/{name}", state, fan, ITSELF, restarts=True)
        else:
            in_order = keras.ops.flip(x, axis=1) if one_way.go_backwards else x
            yield Factor(f"{entry.path}/{name}", in_order, fan, NOTHING)
