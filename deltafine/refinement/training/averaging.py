"""The mean of a model's weights over the last part of its training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from deltafine.model import delta_layers


class Averages:
    """The exponential mean of a model's weights, thresholds and statistics (Polyak and Juditsky 1992).

    Source: doi 10.1137/0330046.

    Args:
        model: with delta layers.
        horizon: over how many optimiser steps.
    """

    def __init__(self, model: keras.Model, horizon: float) -> None:
        penalties = {id(layer.penalty) for layer in delta_layers(model).values()}
        self._averaged = [v for v in model.variables if v.dtype.startswith("float") and id(v) not in penalties]
        self._momentum = 1 - 1 / horizon
        self.variables = [keras.Variable(v, trainable=False, dtype=v.dtype, name="average") for v in self._averaged]

    def update(self, step: Any) -> None:
        """Take in the weights after optimiser step ``step``; the first ones are soon forgotten."""
        step = tf.cast(tf.convert_to_tensor(step), tf.float32)
        momentum = tf.minimum(self._momentum, step / (step + 9))
        for average, now in zip(self.variables, self._averaged, strict=True):
            share = tf.cast(1 - momentum, average.dtype)
            average.assign_add(share * (tf.convert_to_tensor(now) - tf.convert_to_tensor(average)))

    def restart(self) -> None:
        """Forget what all variables have been before."""
        for average, now in zip(self.variables, self._averaged, strict=True):
            average.assign(now)

    def hold(self, variable: Any) -> None:
        """Forget what a variable has been before."""
        index = next(place for place, one in enumerate(self._averaged) if one is variable)
        self.variables[index].assign(variable)

    @contextmanager
    def put_in(self) -> Iterator[None]:
        """The model has the averages in here, and its own values afterwards."""
        own = [value.numpy() for value in self._averaged]
        for value, average in zip(self._averaged, self.variables, strict=True):
            value.assign(average)
        try:
            yield
        finally:
            for value, before in zip(self._averaged, own, strict=True):
                value.assign(before)
