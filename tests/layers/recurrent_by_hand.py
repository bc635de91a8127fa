"""Recurrent layers with their states held before the product, step by step in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

layers = keras.layers


class Held:
    """Send-on-delta on one vector after the other; remembers what went in and what was sent."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.sent: list[np.ndarray] = []

    def __call__(self, x: np.ndarray) -> np.ndarray:
        before = self.sent[-1] if self.sent else x
        self.sent.append(np.where(np.abs(x - before) < self.threshold, before, x))
        return self.sent[-1]

    def all(self) -> np.ndarray:
        """(batch, steps, ...)"""
        return np.stack(self.sent, axis=1)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def weights_of(layer: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    cell = layer.cell
    return tuple(np.asarray(weight, np.float64) for weight in (cell.kernel, cell.recurrent_kernel, cell.bias))


def lstm(layer: Any, x: np.ndarray, state: Held, gated: Held) -> np.ndarray:
    kernel, recurrent, bias = weights_of(layer)
    convolutional = not isinstance(layer, layers.LSTM)

    def multiply(values: np.ndarray, weights: np.ndarray, **how: Any) -> np.ndarray:
        if not convolutional:
            return values @ weights
        return np.asarray(keras.ops.conv(keras.ops.convert_to_tensor(values), weights, **how))

    how = {"strides": layer.strides, "padding": layer.padding} if convolutional else {}
    h = c = np.zeros((len(x), *layer.cell.get_initial_state(batch_size=1)[0].shape[1:]))
    outputs = []
    for step in range(x.shape[1]):
        z = multiply(x[:, step], kernel, **how) + bias + multiply(state(h), recurrent, padding="same")
        i, f, g, o = np.split(z, 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs, axis=1)


def gru(layer: Any, x: np.ndarray, state: Held, gated: Held) -> np.ndarray:
    kernel, recurrent, bias = weights_of(layer)
    into, onto = bias if layer.reset_after else (bias, np.zeros_like(bias))
    h, outputs = np.zeros((len(x), layer.units)), []
    for step in range(x.shape[1]):
        xz, xr, xn = np.split(x[:, step] @ kernel + into, 3, axis=-1)
        hz, hr, hn = np.split(state(h) @ recurrent + onto, 3, axis=-1)
        z, r = sigmoid(xz + hz), sigmoid(xr + hr)
        new = r * hn if layer.reset_after else gated(r * h) @ recurrent[:, 2 * layer.units :]
        h = z * h + (1 - z) * np.tanh(xn + new)
        outputs.append(h)
    return np.stack(outputs, axis=1)


def simple(layer: Any, x: np.ndarray, state: Held, gated: Held) -> np.ndarray:
    kernel, recurrent, bias = weights_of(layer)
    h, outputs = np.zeros((len(x), layer.units)), []
    for step in range(x.shape[1]):
        h = np.tanh(x[:, step] @ kernel + bias + state(h) @ recurrent)
        outputs.append(h)
    return np.stack(outputs, axis=1)


def by_hand(layer: Any) -> Callable[[Any, np.ndarray, Held, Held], np.ndarray]:
    if isinstance(layer, layers.GRU):
        return gru
    return simple if isinstance(layer, layers.SimpleRNN) else lstm
