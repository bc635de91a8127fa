"""What a training step costs against one of plain Keras, and the scan over time in it. Run with ``-m slow -s``.

They take turns, and the median over all rounds counts.
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
from deltafine.refinement.training.kept_answers import KeptAnswers
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


def labels_of_frames() -> np.ndarray:
    return np.repeat(np.arange(BATCH) % 3, FRAMES)


def frames_of(model: Any) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (BATCH, FRAMES, *model.input_shape[1:]), np.uint8)


def plain_step_of(model: Any) -> Callable[[], object]:
    """As a user of Keras would train it: all frames of the clips in one batch."""
    model.compile(keras.optimizers.Adam(), "sparse_categorical_crossentropy")
    frames, labels = frames_of(model), labels_of_frames()
    return lambda: model.train_on_batch(frames.reshape(-1, *model.input_shape[1:]).astype(np.float32), labels)


def step_of(model: Any, rule: str, granularity: str = "element") -> Callable[[], object]:
    """As a run has it with the default settings, once the original's answers on the clips are known."""
    settings = resolve(model="m", data="d", rule=rule, granularity=granularity)
    sites = select_sites(find_activations(model))
    deltas = DeltaSettings(
        rule=rule,
        granularity=granularity,
        initial_threshold=0.1,
        train_threshold=False,
        random_start=settings.noisy,
    )
    student, original = insert_deltas(model, sites, deltas), insert_deltas(model, [])
    shares = {site.delta_name: site.mac_share for site in sites if site.selected}
    loss, answers = ClassificationLoss(True, 0.5), KeptAnswers(original)
    trainer = Trainer(student, original, loss, shares, settings, steps=1000, answers=answers)
    frames, labels, clips = frames_of(model), np.arange(BATCH) % 3, [(0, number) for number in range(BATCH)]
    return lambda: trainer.train_on_batch(frames, labels, 10.0, clips=clips)


@pytest.mark.parametrize(("make", "most"), [(convolutions, 1.75), (mobilenet, 2.0)])
def test_what_a_step_costs(make: Callable[[], Any], most: float) -> None:
    steps = {
        "plain Keras": plain_step_of(make()),
        "quantize": step_of(make(), "quantize"),
        "send-on-delta": step_of(make(), "send-on-delta"),
        "per pixel": step_of(make(), "send-on-delta", "pixel"),
    }
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            begin = time.process_time()
            step()
            taken[name].append(time.process_time() - begin)
    medians = {name: float(np.median(times[3:])) for name, times in taken.items()}
    ratios = {name: round(median / medians["plain Keras"], 2) for name, median in medians.items()}
    print(f"\n{make.__name__}: {medians['plain Keras']:.3f} seconds of process time for a plain step; {ratios}")
    assert ratios["send-on-delta"] <= most
    assert ratios["send-on-delta"] <= 1.5 * ratios["quantize"]
