"""What of a model is trained, and how precisely it is computed meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras

from deltafine.layers import DeltaActivation
from deltafine.model import delta_layers, graph, keras_private

LARGEST_MOMENTUM = 0.9
HALF = "mixed_bfloat16"
"""Weights in 32 bits, computed with in 16; with the exponents of float32, so that no loss has to be scaled."""


@contextmanager
def half_precision(model: keras.Model) -> Iterator[None]:
    """Layers that are called here compute in bfloat16; their weights, and what is saved of them, stay as they are.

    From the last layer with weights on, 32 bits are kept: probabilities need them. Layers that the user has given
    another precision than float32 keep it.
    """
    layers = [layer for _, layer in graph.all_layers_by_path(model)]
    weighty = [index for index, layer in enumerate(layers) if layer.weights and not isinstance(layer, DeltaActivation)]
    halved = [layer for layer in layers[: weighty[-1] if weighty else 0] if layer.dtype_policy.name == "float32"]
    policies = [layer.dtype_policy for layer in halved]
    try:
        for layer in halved:
            layer.dtype_policy = HALF
        yield
    finally:
        for layer, policy in zip(halved, policies, strict=True):
            layer.dtype_policy = policy


def can_be_trained(model: keras.Model) -> bool:
    """Whether a training would change any weight, or the thresholds of any delta layer."""
    thresholds = [layer.log_threshold for layer in delta_layers(model).values()]
    return bool(model.trainable_variables) or any(threshold.trainable for threshold in thresholds)


def prepare_batchnorm(model: keras.Model, *, freeze: bool) -> None:
    """Freeze every BatchNormalization, or let its statistics follow a short training; nested ones too.

    The usual momentum of 0.99 forgets over hundreds of steps: after a few epochs on little data the statistics
    would still be those of before, and the refined model would be judged with them.
    """
    for layer in keras_private.layers_within(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            if freeze:
                layer.trainable = False
            layer.momentum = min(layer.momentum, LARGEST_MOMENTUM)
