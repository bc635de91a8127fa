"""The products inside recurrent layers: of the input, and of the state that they keep from step to step.

Every step multiplies both by weights of their own. Both products are linear, so fan-out rules cover them: an element of
the input of a step, or of the state before it, meets its weights in every gate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import keras
import numpy as np

from deltafine.model import fan_out_counts

layers = keras.layers
_GATES = {layers.LSTM: 4, layers.GRU: 3, layers.SimpleRNN: 1}
_CONVOLUTIONAL = (layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D)
_CELL_GATES = {layers.LSTMCell: 4, layers.GRUCell: 3, layers.SimpleRNNCell: 1}
INPUT, STATE = "input", "state"


def is_recurrent(layer: keras.layers.Layer) -> bool:
    """Whether the layer is one of Keras' own that goes from step to step."""
    return isinstance(layer, layers.RNN | layers.Bidirectional)


def is_covered(layer: keras.layers.Layer) -> bool:
    """Whether ``products`` knows all products of the layer, as it is called on nothing but its input."""
    return all(_is_known(one_way) for _, one_way in _directions(layer))


def products(
    layer: keras.layers.Layer, input_shape: Sequence[int]
) -> Iterator[tuple[str, keras.layers.Layer, str, np.ndarray, tuple[int, ...]]]:
    """The products of a covered layer on samples (steps, ...).

    Yields:
        Name, layer that goes in one direction, ``"input"`` or ``"state"``, the fan-out of what is multiplied,
        which broadcasts to (steps, ...) of it, and its shape without steps.
    """
    for direction, one_way in _directions(layer):
        for kind, fan, shape in _of_direction(one_way, tuple(input_shape[1:])):
            yield f"{direction}{kind}", one_way, kind, fan, shape


def dense_macs(layer: keras.layers.Layer, input_shape: Sequence[int]) -> int | None:
    """MACs of all steps on one sample (steps, ...); None where a cell is not one of Keras' own."""
    if isinstance(layer, layers.Bidirectional):
        both = [dense_macs(one_way, input_shape) for one_way in (layer.forward_layer, layer.backward_layer)]
        known = [macs for macs in both if macs is not None]
        return sum(known) if len(known) == len(both) else None
    steps, *frame = input_shape
    if is_covered(layer):
        found = products(layer, input_shape)
        return sum(steps * int(np.broadcast_to(fan[0], shape).sum(dtype=np.int64)) for *_, fan, shape in found)
    macs, features = 0, frame[-1]
    for cell in getattr(layer.cell, "cells", [layer.cell]):
        gates = next((gates for kind, gates in _CELL_GATES.items() if isinstance(cell, kind)), None)
        if gates is None or type(cell).call is not _base(cell, _CELL_GATES).call:
            return None
        macs += gates * cell.units * (features + cell.units)
        features = cell.units
    return int(steps * macs)


def states(layer: keras.layers.Layer, sequence: keras.KerasTensor) -> keras.KerasTensor:
    """What the state of a layer that goes in one direction is before each step: zeros, then what it gave.

    Args:
        layer: one that ``products`` named.
        sequence: its input, (batch, steps, ...).

    Returns:
        (batch, steps, ...), in the order of its steps: backwards, where it goes so.
    """
    before = layer.return_sequences, layer.return_state
    layer.return_sequences, layer.return_state = True, False
    try:
        given = layer(sequence, training=False)
    finally:
        layer.return_sequences, layer.return_state = before
    return keras.ops.concatenate([keras.ops.zeros_like(given[:, :1]), given[:, :-1]], axis=1)


def _directions(layer: keras.layers.Layer) -> list[tuple[str, keras.layers.Layer]]:
    if isinstance(layer, layers.Bidirectional):
        return [("forward/", layer.forward_layer), ("backward/", layer.backward_layer)]
    return [("", layer)]


def _is_known(layer: keras.layers.Layer) -> bool:
    for kind in (*_GATES, *_CONVOLUTIONAL):
        if isinstance(layer, kind):
            # A GRU of Keras 1 multiplies the gated state, which is no state that it keeps.
            plain = type(layer).call is kind.call and not layer.stateful and getattr(layer, "reset_after", True)
            return bool(plain) and getattr(layer, "data_format", "channels_last") == "channels_last"
    return False


def _of_direction(
    layer: keras.layers.Layer, frame: tuple[int, ...]
) -> Iterator[tuple[str, np.ndarray, tuple[int, ...]]]:
    """The kind of a product, fan-out (1, ...) and shape of what is multiplied."""
    if not isinstance(layer, _CONVOLUTIONAL):
        weights = np.full((1, 1), _GATES[_base(layer, _GATES)] * layer.units, np.int64)
        yield INPUT, weights, frame
        yield STATE, weights, (layer.units,)
        return
    cell, convolution = layer.cell, fan_out_counts.CONVOLUTIONS[len(frame) - 2]
    of_input = convolution(
        4 * cell.filters, cell.kernel_size, strides=cell.strides, padding=cell.padding,
        dilation_rate=cell.dilation_rate, data_format="channels_last",
    )  # fmt: skip
    # The state is of the output's size; its convolution keeps that.
    of_state = convolution(4 * cell.filters, cell.kernel_size, padding="same", data_format="channels_last")
    state = (*of_input.compute_output_shape((None, *frame))[1:-1], cell.filters)
    yield INPUT, fan_out_counts.fan_out(of_input, frame)[None], frame
    yield STATE, fan_out_counts.fan_out(of_state, state)[None], state


def _base(layer: keras.layers.Layer, kinds: Iterable[type[keras.layers.Layer]]) -> type[keras.layers.Layer]:
    return next(kind for kind in kinds if isinstance(layer, kind))
