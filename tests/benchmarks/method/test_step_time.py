"""What the scan over time costs in training: steps of send-on-delta against steps of quantize. Run with ``-m slow -s``.

The two take turns, and the median over all rounds counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from deltafine.model import DeltaSettings, find_activations, insert_deltas, select_sites
from deltafine.refinement.training.losses import ClassificationLoss
from deltafine.refinement.training.step import Trainer
from deltafine.settings import resolve

pytestmark = pytest.mark.slow

ROUNDS, FRAMES, BATCH = 25, 8, 8


def convolutions() -> Any:
    """Five plain convolutions on 48x64 frames."""
    inputs = keras.Input((48, 64, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    for index, (filters, stride) in enumerate(((16, 2), (32, 1), (32, 2), (64, 1), (64, 2))):
        x = layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        x = layers.Activation("relu", name=f"relu_{index}")(x)
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D()(x)))


def mobilenet() -> Any:
    """MobileNet 0.25 on 96x96 frames."""
    return keras.applications.MobileNet((96, 96, 3), alpha=0.25, weights=None, classes=3, dropout=0)


def step_of(model: Any, rule: str) -> Callable[[], object]:
    settings = resolve(model="m", data="d", rule=rule)
    sites = select_sites(find_activations(model))
    student = insert_deltas(model, sites, DeltaSettings(rule=rule, initial_threshold=0.1, train_threshold=False))
    shares = {site.delta_name: site.mac_share for site in sites if site.selected}
    trainer = Trainer(student, insert_deltas(model, []), ClassificationLoss(True, 0.5), shares, settings, steps=1000)
    frames = np.random.default_rng(0).integers(0, 255, (BATCH, FRAMES, *model.input_shape[1:]), np.uint8)
    labels = np.arange(BATCH) % 3
    return lambda: trainer.train_on_batch(frames, labels, 10.0)


@pytest.mark.parametrize("make", [convolutions, mobilenet])
def test_the_scan_costs_at_most_a_quarter_of_a_step(make: Callable[[], Any]) -> None:
    model = make()
    steps = {rule: step_of(model, rule) for rule in ("quantize", "send-on-delta")}
    taken: dict[str, list[float]] = {rule: [] for rule in steps}
    for _ in range(ROUNDS):
        for rule, step in steps.items():
            begin = time.process_time()
            step()
            taken[rule].append(time.process_time() - begin)
    medians = {rule: float(np.median(times[3:])) for rule, times in taken.items()}
    ratio = medians["send-on-delta"] / medians["quantize"]
    print(f"\n{make.__name__}: {medians} seconds of process time a step, ratio {ratio:.2f}")
    assert ratio <= 1.25
