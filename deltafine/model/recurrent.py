"""The products inside recurrent layers: of the input, and of the state that they keep from step to step.

Every step multiplies both by weights of their own. Both products are linear, so fan-out rules cover them: an element of
the input of a step, or of the state before it, meets its weights in every gate. A GRU with ``reset_after=False`` has
a third one, of its state times the reset gate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from deltafine.layers.state_deltas import GATED, STATE, may_hold_states, step
from deltafine.model import fan_out_counts
from deltafine.model.trace import Call, Value

layers = keras.layers
_GATES = {layers.LSTM: 4, layers.GRU: 3, layers.SimpleRNN: 1}
_CONVOLUTIONAL = (layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D)
_CELL_GATES = {layers.LSTMCell: 4, layers.GRUCell: 3, layers.SimpleRNNCell: 1}
INPUT = "input"


@dataclass(frozen=True, eq=False)
class StateValue(Value):
    """What a recurrent layer multiplies beside its input, (None, steps, ...): no tensor of the graph.

    Attributes:
        call: of the layer.
        product: name of the product.
    """

    call: Call
    product: str


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
        Name, layer that goes in one direction, ``"input"``, ``"state"`` or ``"gated"``, the fan-out of what is
        multiplied, which broadcasts to (steps, ...) of it, and its shape without steps.
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


def states_of(call: Call) -> list[StateValue]:
    """What a layer multiplies beside its input, where a delta layer can stand before it."""
    layer, shape = call.operation, call.inputs[0].sample_shape
    if not may_hold_states(layer) or not is_covered(layer) or len(call.inputs) != 1 or call.masked:
        return []
    return [
        StateValue((None, shape[0], *size), call.outputs[0].dtype, call, name)
        for name, _, kind, _, size in products(layer, shape)
        if kind != INPUT
    ]


def macs_of_state(state: StateValue) -> int:
    """MACs per sample of the product of a state."""
    shape = state.call.inputs[0].sample_shape
    fans = [fan for name, _, _, fan, _ in products(state.call.operation, shape) if name == state.product]
    return sum(int(np.broadcast_to(fan, state.sample_shape).sum(dtype=np.int64)) for fan in fans)


def states(layer: keras.layers.Layer, sequence: keras.KerasTensor, kind: str) -> keras.KerasTensor:
    """What the state of a layer that goes in one direction is before each step: zeros, then what it gave.

    Args:
        layer: one that ``products`` named.
        sequence: its input, (batch, steps, ...).
        kind: of the product: ``"gated"`` for that state times the reset gate.

    Returns:
        (batch, steps, ...), in the order of its steps: backwards, where it goes so.
    """
    before = layer.return_sequences, layer.return_state
    layer.return_sequences, layer.return_state = True, False
    try:
        given = layer(sequence, training=False)
    finally:
        layer.return_sequences, layer.return_state = before
    before_each = keras.ops.concatenate([keras.ops.zeros_like(given[:, :1]), given[:, :-1]], axis=1)
    return _gated(layer, sequence, before_each) if kind == GATED else before_each


def _gated(layer: keras.layers.Layer, sequence: keras.KerasTensor, states: keras.KerasTensor) -> keras.KerasTensor:
    """Each state times the reset gate; the steps, whose states are known, as one batch."""
    found: dict[str, keras.KerasTensor] = {}

    def send(product: str, value: keras.KerasTensor) -> keras.KerasTensor:
        found[product] = value
        return value

    in_order = keras.ops.flip(sequence, axis=1) if layer.go_backwards else sequence
    step(layer.cell, _folded(in_order), [_folded(states)], send, training=False)
    return keras.ops.reshape(found[GATED], (-1, *states.shape[1:]))


def _folded(sequence: keras.KerasTensor) -> keras.KerasTensor:
    return keras.ops.reshape(sequence, (-1, *sequence.shape[2:]))


def _directions(layer: keras.layers.Layer) -> list[tuple[str, keras.layers.Layer]]:
    if isinstance(layer, layers.Bidirectional):
        return [("forward/", layer.forward_layer), ("backward/", layer.backward_layer)]
    return [("", layer)]


def _is_known(layer: keras.layers.Layer) -> bool:
    for kind in (*_GATES, *_CONVOLUTIONAL):
        if isinstance(layer, kind):
            plain = type(layer).call is kind.call and not layer.stateful
            return plain and getattr(layer, "data_format", "channels_last") == "channels_last"
    return False


def _of_direction(
    layer: keras.layers.Layer, frame: tuple[int, ...]
) -> Iterator[tuple[str, np.ndarray, tuple[int, ...]]]:
    """The kind of a product, fan-out (1, ...) and shape of what is multiplied."""
    if not isinstance(layer, _CONVOLUTIONAL):
        gates = _GATES[_base(layer, _GATES)]
        gated = not getattr(layer, "reset_after", True)
        for kind, count, shape in ((INPUT, gates, frame), (STATE, gates - gated, (layer.units,))):
            yield kind, np.full((1, 1), count * layer.units, np.int64), shape
        if gated:
            yield GATED, np.full((1, 1), layer.units, np.int64), (layer.units,)
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
