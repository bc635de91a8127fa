"""Optimisers and the learning rates that they follow."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from deltafine.settings import RefineSettings


class Scaled(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule times a factor that may be changed while training."""

    def __init__(self, schedule: Any, factor: Any) -> None:
        super().__init__()
        self._schedule, self._factor = schedule, factor

    def __call__(self, step: Any) -> Any:
        return self._schedule(step) * tf.convert_to_tensor(self._factor)

    def get_config(self) -> dict[str, Any]:
        return {"schedule": self._schedule, "factor": self._factor}


class Started(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule whose very first step has a rate of its own."""

    def __init__(self, schedule: Any, first: float) -> None:
        super().__init__()
        self._schedule, self._first = schedule, first

    def __call__(self, step: Any) -> Any:
        rate = self._schedule(step)
        return tf.where(tf.cast(step, tf.float32) < 1.0, tf.cast(self._first, rate.dtype), rate)

    def get_config(self) -> dict[str, Any]:
        return {"schedule": self._schedule, "first": self._first}


def of_weights(settings: RefineSettings, schedule: Any, steps: int) -> Any:
    """The optimiser of the weights, for a training of so many steps; scales, shifts and thresholds do not decay."""
    common = {"weight_decay": settings.weight_decay, "gradient_accumulation_steps": _accumulated(settings, steps)}
    if settings.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True, **common)
    else:
        optimizer = keras.optimizers.AdamW(schedule, **common)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", "log_threshold"])
    return optimizer


def of_thresholds(settings: RefineSettings, schedule: Any, steps: int) -> Any:
    """The optimiser of the thresholds, for a training of so many steps."""
    return keras.optimizers.Adam(schedule, gradient_accumulation_steps=_accumulated(settings, steps))


def _accumulated(settings: RefineSettings, steps: int) -> int | None:
    accumulated = min(settings.accumulate, steps)  # a training that is shorter must change the weights once
    return accumulated if accumulated > 1 else None  # Keras takes no 1


def clip(gradients: list[Any], variables: list[Any], norm: float) -> list[Any]:
    """Gradients, none of them left out, with a global norm of at most ``norm``."""
    filled = [
        tf.zeros_like(tf.convert_to_tensor(v)) if g is None else g for g, v in zip(gradients, variables, strict=True)
    ]
    return tf.clip_by_global_norm(filled, norm)[0]


def warmup_steps(share: float, steps: int) -> int:
    """Steps over which rates rise: a share of the training, and never all of it."""
    return min(math.ceil(share * steps), max(0, steps - 1))


def cosine(rate: float, steps: int, warmup: int) -> Any:
    """Linear warm-up to ``rate``, then a cosine to a hundredth of it.

    A warm-up begins at half the rate of its second step: at 0, a first step would change nothing.
    """
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else rate,
        decay_steps=max(1, steps - warmup),
        alpha=0.01,
        warmup_target=rate if warmup else None,
        warmup_steps=warmup,
    )
    return Started(schedule, rate / (2 * warmup)) if warmup else schedule
