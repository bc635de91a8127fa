"""One step of a recurrent layer, in plain layers and operations of Keras.

What a layer does over time is a graph then: unrolled to the steps of a clip, or one step for each frame of a stream.
The products of input and state are layers of their own, which other graphs can be counted and computed by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from deltafine.layers.state_deltas import GATED, STATE
from deltafine.model.layer_names import Names
from deltafine.model.recurrent import INPUT

layers = keras.layers
Send = Callable[[str, keras.KerasTensor], keras.KerasTensor]


class RecurrentStep:
    """Computes one step after the other, with the weights that a layer has now.

    Args:
        layer: one that ``deltafine.model.recurrent.products`` knows, built.
        frame_shape: of its input in one step, without the batch axis.
        names: on the level of the graph in which steps are called.
        prefix: put before the names of the products.
    """

    def __init__(self, layer: keras.layers.Layer, frame_shape: Sequence[int], names: Names, prefix: str = "") -> None:
        cell = layer.cell
        self._gru = isinstance(layer, layers.GRU)
        self._simple = isinstance(layer, layers.SimpleRNN)
        self._reset_after = getattr(layer, "reset_after", True)
        self._units = cell.filters if self._convolves(cell) else cell.units
        self.state_shapes = [tuple(state.shape[1:]) for state in cell.get_initial_state(batch_size=1)]
        policy = {"dtype": layer.dtype_policy}

        def product(name: str, kernel: Any, bias: Any, shape: Sequence[int]) -> keras.layers.Layer:
            made = names.keep(self._product(cell, name == INPUT, kernel, bias is not None, policy))
            made.name = names.free(f"{prefix}{name}")
            made.build((None, *shape))
            made.set_weights([kernel, *([] if bias is None else [bias])])
            return made

        kernel, recurrent, bias = cell.kernel, cell.recurrent_kernel, cell.bias
        onto = None
        if self._gru and self._reset_after and bias is not None:
            bias, onto = bias[0], bias[1]
        state = self.state_shapes[0]
        self._of_input = product(INPUT, kernel, bias, frame_shape)
        if self._gru and not self._reset_after:
            self._of_gated = product(GATED, recurrent[:, 2 * self._units :], None, state)
            recurrent = recurrent[:, : 2 * self._units]
        self._of_state = product(STATE, recurrent, onto, state)
        self._squash = layers.Activation(cell.activation, **policy)
        self._gate = layers.Activation(getattr(cell, "recurrent_activation", None), **policy)

    @staticmethod
    def _convolves(cell: keras.layers.Layer) -> bool:
        return not isinstance(cell, layers.LSTMCell | layers.GRUCell | layers.SimpleRNNCell)

    def _product(
        self, cell: Any, of_input: bool, kernel: Any, use_bias: bool, policy: dict[str, Any]
    ) -> keras.layers.Layer:
        outputs = kernel.shape[-1]
        if not self._convolves(cell):
            return layers.Dense(outputs, use_bias=use_bias, **policy)
        convolution = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}[cell.rank]
        how = {"strides": cell.strides, "padding": cell.padding, "dilation_rate": cell.dilation_rate}
        return convolution(
            outputs, cell.kernel_size, use_bias=use_bias, **(how if of_input else {"padding": "same"}), **policy
        )

    def start(self, inputs: keras.KerasTensor) -> list[keras.KerasTensor]:
        """The states before the first step, of its input (batch, ...)."""
        zeros = ops.zeros_like(self._of_input(inputs)[..., : self._units])
        return [zeros] * len(self.state_shapes)

    def __call__(
        self, inputs: keras.KerasTensor, states: Sequence[keras.KerasTensor], send: Send
    ) -> tuple[keras.KerasTensor, list[keras.KerasTensor]]:
        """The output of a step and its next states.

        Args:
            inputs: (batch, ...).
            states: before the step.
            send: what is multiplied in place of a state, by the product's name.
        """
        of_input, of_state = self._of_input(inputs), self._of_state(send(STATE, states[0]))
        if self._gru:
            new = self._gru_state(of_input, of_state, states[0], send)
            return new, [new]
        gates = ops.add(of_input, of_state)
        if self._simple:
            new = self._squash(gates)
            return new, [new]
        into, keep, new, out = ops.split(gates, 4, axis=-1)
        carry = ops.add(ops.multiply(self._gate(keep), states[1]), ops.multiply(self._gate(into), self._squash(new)))
        state = ops.multiply(self._gate(out), self._squash(carry))
        return state, [state, carry]

    def _gru_state(
        self, of_input: keras.KerasTensor, of_state: keras.KerasTensor, state: keras.KerasTensor, send: Send
    ) -> keras.KerasTensor:
        x_update, x_reset, x_new = ops.split(of_input, 3, axis=-1)
        h_update, h_reset, *h_new = ops.split(of_state, 3 if self._reset_after else 2, axis=-1)
        update, reset = self._gate(ops.add(x_update, h_update)), self._gate(ops.add(x_reset, h_reset))
        if self._reset_after:
            of_new = ops.multiply(reset, h_new[0])
        else:
            of_new = self._of_gated(send(GATED, ops.multiply(reset, state)))
        new = self._squash(ops.add(x_new, of_new))
        return ops.add(ops.multiply(update, state), ops.multiply(ops.subtract(1.0, update), new))
