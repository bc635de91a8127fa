"""Recurrent layers as delta networks (Neil et al., arXiv 1612.05571): the state is held before it is multiplied.

In every step, a recurrent layer multiplies its input and its own state with weights. The input is held by the delta
layer before it. Here the state is held by a delta layer inside: the product with the state then needs the elements
only that were sent. Everything else in a step (the carry of an LSTM, what a GRU keeps of its state) is computed from
the state itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops

from deltafine.layers.delta_activation import DeltaActivation
from deltafine.layers.rules.changes import UNROLL_LIMIT

_PACKAGE = "deltafine"
STATE, GATED = "state", "gated"
"""What is multiplied: the state, and in a GRU with ``reset_after=False`` the state times the reset gate."""
Send = Callable[[str, Any], Any]
"""What goes into a product in place of a value, by the product's name."""
OneStep = Callable[[list[Any], Any], tuple[list[Any], list[Any]]]
_active = threading.local()


@keras.saving.register_keras_serializable(package=_PACKAGE)
class StateDelta(DeltaActivation):
    """The delta layer of a state: it sees one step after the other, and begins anew in every clip."""

    restarts = True

    def start(self, x: tf.Tensor) -> tf.Tensor:
        """What is held before the first step, of a state (batch, ...) that the layer begins with."""
        x = tf.cast(x, self._working(x))
        return self.rule.first(x, tf.cast(self.threshold, x.dtype), self.granularity, ops)

    def advance(self, held: tf.Tensor, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """One step: what is held afterwards, and the same with gradients, in the type of ``x`` (batch, ...)."""
        true = tf.cast(x, held.dtype)
        threshold = tf.cast(self.threshold, held.dtype)
        sent = self.rule.advance(held, tf.stop_gradient(true), tf.stop_gradient(threshold), self.granularity, ops)
        output = self.rule.output(true[:, None], sent[:, None], threshold)[:, 0]
        return sent, tf.cast(output, x.dtype)

    def settle(self, true: tf.Tensor, sent: tf.Tensor, *, training: bool | None) -> None:
        """Count the events of all steps (batch, steps, ...), and in training charge for them."""
        true = tf.cast(true, sent.dtype)
        self._settle(true, sent, tf.cast(self.threshold, sent.dtype), None, training=training)


@dataclass(frozen=True)
class SentState:
    """What a state was in every step of a call, and what was sent of it, (batch, steps, ...) in the order of steps."""

    delta: StateDelta
    true: tf.Tensor
    sent: tf.Tensor


@contextmanager
def recorded_states() -> Iterator[list[SentState]]:
    """Within the block, layers put down what their states were."""
    before = getattr(_active, "found", None)
    found: list[SentState] = []
    _active.found = found
    try:
        yield found
    finally:
        _active.found = before


class DeltaStates(layers.RNN):
    """A recurrent layer of Keras' own with delta layers before the products of its state.

    Everything but what is multiplied is the layer's own, so is its configuration. With a threshold that everything
    reaches, it computes the same, to the last bit where Keras goes step by step as well: not with cuDNN.

    Args:
        state_deltas: by the name of the product, a ``StateDelta`` or its configuration.
    """

    def __init__(self, *args: Any, state_deltas: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        made = {
            name: keras.saving.deserialize_keras_object(delta) if isinstance(delta, Mapping) else delta
            for name, delta in state_deltas.items()
        }
        self.state_delta = made.get(STATE)
        self.gated_delta = made.get(GATED)

    @property
    def state_deltas(self) -> dict[str, StateDelta]:
        """The delta layers by the name of the product."""
        both = {STATE: self.state_delta, GATED: self.gated_delta}
        return {name: delta for name, delta in both.items() if delta is not None}

    def build(self, sequences_shape: Any, initial_state_shape: Any = None) -> None:
        super().build(sequences_shape, initial_state_shape)
        shape = self.cell.get_initial_state(batch_size=1)[0].shape[1:]
        for delta in self.state_deltas.values():
            if not delta.built:  # one of a saved model is
                delta.build((None, sequences_shape[1], *shape))

    def inner_loop(self, sequences: Any, initial_state: Any, mask: Any, training: bool | None = False) -> Any:
        """As Keras has it: the last output, all of them, and the last states."""
        if mask is not None:
            raise ValueError(f"{self.name}: a state behind a delta layer knows no masked steps")
        deltas = self.state_deltas
        if self.go_backwards:
            sequences = ops.flip(sequences, axis=1)
        own = list(initial_state) if isinstance(initial_state, list | tuple) else [initial_state]
        held = [delta.start(own[0]) for delta in deltas.values()]

        def one_step(carried: list[Any], inputs: Any) -> tuple[list[Any], list[Any]]:
            states, before = carried[: len(own)], dict(zip(deltas, carried[len(own) :], strict=True))
            true, after = {}, {}

            def send(product: str, value: Any) -> Any:
                if product not in deltas:
                    return value
                true[product] = value
                after[product], output = deltas[product].advance(before[product], value)
                return output

            output, states = step(self.cell, inputs, states, send, training=training)
            sent = [after[product] for product in deltas]
            return [*states, *sent], [output, *(true[product] for product in deltas), *sent]

        like = [own[0], *(own[0] for _ in deltas), *held]
        carried, given = _over_time(one_step, [*own, *held], sequences, like)
        outputs, true, sent = given[0], given[1 : 1 + len(deltas)], given[1 + len(deltas) :]
        for delta, values, held_values in zip(deltas.values(), true, sent, strict=True):
            delta.settle(values, held_values, training=training)
            if (found := getattr(_active, "found", None)) is not None:
                found.append(SentState(delta, values, held_values))
        return outputs[:, -1], outputs, carried[: len(own)]

    def get_config(self) -> dict[str, Any]:
        deltas = self.state_deltas.items()
        return {
            **super().get_config(),
            "state_deltas": {name: keras.saving.serialize_keras_object(delta) for name, delta in deltas},
        }


@keras.saving.register_keras_serializable(package=_PACKAGE)
class DeltaSimpleRNN(DeltaStates, layers.SimpleRNN):
    """``SimpleRNN`` with its state behind a delta layer."""


@keras.saving.register_keras_serializable(package=_PACKAGE)
class DeltaLSTM(DeltaStates, layers.LSTM):
    """``LSTM`` with its state behind a delta layer."""


@keras.saving.register_keras_serializable(package=_PACKAGE)
class DeltaGRU(DeltaStates, layers.GRU):
    """``GRU`` with its state behind a delta layer, and where the reset gate comes first also what it lets through."""


@keras.saving.register_keras_serializable(package=_PACKAGE)
class DeltaConvLSTM1D(DeltaStates, layers.ConvLSTM1D):
    """``ConvLSTM1D`` with its state behind a delta layer."""


@keras.saving.register_keras_serializable(package=_PACKAGE)
class DeltaConvLSTM2D(DeltaStates, layers.ConvLSTM2D):
    """``ConvLSTM2D`` with its state behind a delta layer."""


@keras.saving.register_keras_serializable(package=_PACKAGE)
class DeltaConvLSTM3D(DeltaStates, layers.ConvLSTM3D):
    """``ConvLSTM3D`` with its state behind a delta layer."""


_FORMS: dict[type[layers.RNN], type[DeltaStates]] = {
    layers.SimpleRNN: DeltaSimpleRNN,
    layers.LSTM: DeltaLSTM,
    layers.GRU: DeltaGRU,
    layers.ConvLSTM1D: DeltaConvLSTM1D,
    layers.ConvLSTM2D: DeltaConvLSTM2D,
    layers.ConvLSTM3D: DeltaConvLSTM3D,
}


def may_hold_states(layer: keras.Operation) -> bool:
    """Whether there is a form of the layer with its state behind a delta layer: one of Keras' own classes."""
    return type(layer) in _FORMS


def with_state_deltas(layer: layers.RNN, deltas: Mapping[str, StateDelta]) -> DeltaStates:
    """A layer like this one with these delta layers, by the names of their products; without its weights."""
    return _FORMS[type(layer)].from_config({**layer.get_config(), "state_deltas": dict(deltas)})


def without_state_deltas(layer: DeltaStates) -> layers.RNN:
    """The plain layer of Keras; without its weights."""
    plain = next(kind for kind, form in _FORMS.items() if type(layer) is form)
    config = layer.get_config()
    del config["state_deltas"]
    return plain.from_config(config)


def step(
    cell: keras.layers.Layer, inputs: Any, states: Sequence[Any], send: Send, *, training: bool | None
) -> tuple[Any, list[Any]]:
    """One step of a cell of Keras' own: its output and its next states.

    Args:
        cell: of an ``LSTM``, ``GRU``, ``SimpleRNN`` or ``ConvLSTM``.
        inputs: (batch, ...).
        states: before the step.
        send: what is multiplied in place of a state.
        training: whether to drop out.
    """
    if isinstance(cell, layers.GRUCell):
        new = _gru_step(cell, inputs, states[0], send, training=training)
        return new, [new]
    output, states = cell(inputs, [send(STATE, states[0]), *states[1:]], training=training)
    return output, list(states)


def _gru_step(cell: layers.GRUCell, inputs: Any, state: Any, send: Send, *, training: bool | None) -> Any:
    """As ``GRUCell`` has it; but what it keeps of its state is of the state itself, not of what was sent of it."""
    into, onto = 0.0, 0.0
    if cell.use_bias:
        into, onto = (cell.bias[0], cell.bias[1]) if cell.reset_after else (cell.bias, 0.0)
    sent = send(STATE, state)
    of_input = _gates(inputs, cell.kernel, cell.get_dropout_mask(inputs) if training else None)
    x_update, x_reset, x_new = (of_gate for of_gate in ops.split(of_input + into, 3, axis=-1))
    drop = cell.get_recurrent_dropout_mask(state) if training else None
    if cell.reset_after:
        h_update, h_reset, h_new = ops.split(_gates(sent, cell.recurrent_kernel, drop) + onto, 3, axis=-1)
        reset = cell.recurrent_activation(x_reset + h_reset)
        new = reset * h_new
    else:
        both = cell.recurrent_kernel[:, : 2 * cell.units]
        h_update, h_reset = ops.split(_gates(sent, both, drop and drop[:2]), 2, axis=-1)
        reset = cell.recurrent_activation(x_reset + h_reset)
        gated = send(GATED, reset * state)
        new = _gates(gated, cell.recurrent_kernel[:, 2 * cell.units :], drop and drop[2:])
    update = cell.recurrent_activation(x_update + h_update)
    return update * state + (1 - update) * cell.activation(x_new + new)


def _gates(values: Any, kernel: Any, dropped: Any) -> Any:
    """The products for all gates, dropout of the values included: one mask for all of them, or one for each."""
    if dropped is None:
        return ops.matmul(values, kernel)
    if not isinstance(dropped, list | tuple):
        return ops.matmul(values * dropped, kernel)
    pieces = ops.split(kernel, len(dropped), axis=-1)
    return ops.concatenate(
        [ops.matmul(values * mask, piece) for mask, piece in zip(dropped, pieces, strict=True)], axis=-1
    )


def _over_time(one_step: OneStep, start: list[Any], x: Any, given_like: list[Any]) -> tuple[list[Any], list[Any]]:
    """The last states, and what each step gives, (batch, steps, ...).

    Args:
        one_step: from states and inputs (batch, ...) to the next states and what the step gives.
        start: states before the first step.
        x: (batch, steps, ...).
        given_like: tensors of the shapes and types of what a step gives.
    """
    by_time = ops.moveaxis(x, 1, 0)
    if x.shape[1] is not None and x.shape[1] <= UNROLL_LIMIT:
        carried, by_step = start, []
        for inputs in ops.unstack(by_time):
            carried, given = one_step(carried, inputs)
            by_step.append(given)
        return carried, [ops.stack(values, axis=1) for values in zip(*by_step, strict=True)]
    steps = tf.shape(by_time)[0]
    arrays = [tf.TensorArray(like.dtype, size=steps, element_shape=like.shape) for like in given_like]

    def in_a_loop(number: Any, carried: list[Any], arrays: list[Any]) -> tuple[Any, list[Any], list[Any]]:
        after, given = one_step(carried, by_time[number])
        written = [array.write(number, values) for array, values in zip(arrays, given, strict=True)]
        return number + 1, after, written

    _, carried, arrays = tf.while_loop(
        lambda number, carried, arrays: number < steps, in_a_loop, (tf.constant(0), start, arrays)
    )
    return carried, [ops.moveaxis(array.stack(), 0, 1) for array in arrays]
