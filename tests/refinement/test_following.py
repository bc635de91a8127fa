"""Networks and videos with which a network that sends nothing gives the right answers: it must not be the result."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from deltafine import refine
from deltafine.measurement.probe import Probe
from deltafine.model import DeltaSettings, delta_layers, find_activations, insert_deltas
from deltafine.refinement.thresholds import allocation
from deltafine.refinement.thresholds.allocation import Allocation
from deltafine.refinement.thresholds.calibration import activation_rms
from deltafine.refinement.thresholds.following import (
    MOST_APART,
    Seen,
    error,
    own_error,
    play,
    scale_that_follows,
    some,
    wake,
)
from deltafine.refinement.training.losses import ClassificationLoss, Loss, RegressionLoss
from deltafine.report import Report
from deltafine.report.summary import headline
from tests.small_runs import SIZE, small_model, write_small_video

LOSS = ClassificationLoss(True, 1.0)


def moving(seed: int = 0, videos: int = 3, frames: int = 8) -> list[np.ndarray]:
    """A bright square wanders over a noisy surface, another one in each video."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(videos):
        clip = random.uniform(60, 160) + random.normal(0, 3, (frames, SIZE, SIZE, 3))
        for frame in range(frames):
            clip[frame, 2 + frame : 7 + frame, 3:9] += 70
        found.append(np.clip(clip, 0, 255).astype(np.uint8))
    return found


def certain_model() -> Any:
    """Its first class is sure, whatever it sees, so that its probabilities never change."""
    return preferring(small_model(), 60.0)


def preferring(model: Any, logit: float) -> Any:
    """The model with a bias for its first class."""
    kernel, _ = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel, np.array([logit, -logit], "float32")])
    return model


def untrained_network() -> Any:
    """As Keras makes it; its answers hardly depend on what it sees."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(4, 3, strides=2, activation="relu")(layers.Rescaling(1 / 2550)(inputs))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(x))
    return preferring(keras.Model(inputs, layers.Dense(2, activation="softmax")(x)), 0.5)


def untrained_network_of_clips() -> Any:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, SIZE, SIZE, 3))
    x = layers.Conv3D(4, (1, 3, 3), strides=(1, 2, 2), activation="relu")(layers.Rescaling(1 / 2550)(inputs))
    x = layers.GlobalAveragePooling3D()(layers.Conv3D(4, (1, 3, 3), activation="relu")(x))
    return preferring(keras.Model(inputs, layers.Dense(2, activation="softmax")(x)), 0.5)


def students(model: Any, **settings: Any) -> tuple[Any, Any]:
    original = insert_deltas(model, [])
    return original, insert_deltas(model, find_activations(model), DeltaSettings(initial_threshold=1e-6, **settings))


def calibrated(model: Any, loss: Loss, divergence: float, **settings: Any) -> tuple[Probe, Probe]:
    """Of the original and of the network with steps that were searched for."""
    original, student = (Probe(one) for one in students(model, **settings))
    rms = activation_rms(student.clip_model, [video[None] for video in moving()])
    search = Allocation(student, original, rms, moving(), loss, dict.fromkeys(rms, 1.0))
    search.explore(divergence, lambda done, total: None)
    search.allocate(divergence)
    return original, student


def apart(original: Probe, student: Probe, loss: Loss = LOSS) -> float:
    videos = moving(seed=1)
    seen = [Seen.of(play(probe, videos), loss) for probe in (original, student)]
    return seen[0].apart(seen[1])


def events(probe: Probe) -> list[int]:
    pieces = [probe.run(video[None]) for video in moving(seed=1)]
    return [sum(int(p.counts[len(probe.layers) + n].changed.sum()) for p in pieces) for n in range(len(probe.deltas))]


def test_the_error_is_0_for_what_is_followed_1_for_the_mean_and_has_no_units() -> None:
    draw = np.random.default_rng(0)
    targets = draw.normal(5, 2, (50, 6))
    assert error(targets, targets) == 0
    assert error(targets, np.broadcast_to(targets.mean(0), targets.shape)) == pytest.approx(1)
    other = targets + draw.normal(0, 1, targets.shape)
    assert error(1e6 * targets, 1e6 * other) == pytest.approx(error(targets, other))
    still = 100 + draw.normal(0, 1e-3, (50, 6))
    assert error(still, np.broadcast_to(still[0], still.shape)) < 0.01, "rounding is no change"


def test_of_a_map_some_positions_are_looked_at_with_all_their_outputs() -> None:
    maps = np.arange(2 * 100 * 100 * 3).reshape(2, 100, 100, 3)
    found = some(maps)
    assert found.shape == (2, 1365, 3)
    np.testing.assert_array_equal(found[1, [0, -1]], maps[1, [0, -1], [0, -1]])
    np.testing.assert_array_equal(some(maps[:, 0, 0]), maps[:, 0, :1])


@pytest.mark.parametrize("outputs", [1, 3])
def test_logits_are_those_that_the_probabilities_were_made_of(outputs: int) -> None:
    logits = np.random.default_rng(0).normal(0, 5, (20, outputs)).astype("float32")
    probabilities = np.asarray(keras.ops.softmax(logits) if outputs > 1 else keras.ops.sigmoid(logits))
    found = ClassificationLoss(True, 1.0).logits(probabilities)
    plain = ClassificationLoss(False, 1.0).logits(logits)
    if outputs == 1:
        np.testing.assert_allclose(found[:, 1] - found[:, 0], logits[:, 0], rtol=1e-2, atol=1e-2)
        np.testing.assert_array_equal(plain, logits)
    else:
        np.testing.assert_allclose(found, plain, rtol=1e-3, atol=1e-3)
    assert RegressionLoss(logits).logits(logits).std(0) == pytest.approx(np.ones(outputs), rel=1e-3)


@pytest.mark.parametrize("granularity", ["element", "pixel"])
@pytest.mark.parametrize("make", [certain_model, untrained_network])
def test_calibration_follows_what_is_inside_where_the_answers_say_nothing(
    make: Callable[[], Any], granularity: str
) -> None:
    original, student = calibrated(make(), LOSS, 0.05, granularity=granularity)
    assert apart(original, student) < 1.7 * MOST_APART
    assert min(events(student)) > 0


def test_where_the_answers_say_enough_what_is_inside_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model()
    loss = RegressionLoss(np.asarray(model(np.concatenate(moving()).astype("float32"))))
    original, student = calibrated(model, loss, 0.02)
    assert apart(original, student, loss) < MOST_APART
    monkeypatch.setattr(allocation, "MOST_APART", math.inf)
    without_limit = calibrated(model, loss, 0.02)[1]
    for layer, other in zip(student.delta_layers, without_limit.delta_layers, strict=True):
        assert float(layer.threshold) == float(other.threshold)


@pytest.mark.parametrize(
    ("granularity", "threshold_per", "rule"),
    [
        *itertools.product(["element", "pixel"], ["layer", "channel", "neuron"], ["send-on-delta"]),
        ("element", "layer", "quantize"),
    ],
)
def test_layers_that_would_never_send_get_steps_that_what_was_seen_reaches(
    granularity: str, threshold_per: str, rule: str
) -> None:
    _, student = students(small_model(), granularity=granularity, threshold_per=threshold_per, rule=rule)
    found = delta_layers(student)
    for layer in found.values():
        layer.set_threshold(1e4)
    assert wake(student, moving()) == list(found)
    steps = [np.asarray(layer.threshold) for layer in found.values()]
    assert wake(student, moving()) == [], "each of them sends something now"
    for layer, step in zip(found.values(), steps, strict=True):
        np.testing.assert_array_equal(layer.threshold, step)


def test_a_layer_that_sends_something_keeps_its_steps_although_channels_are_silent() -> None:
    _, student = students(small_model(), threshold_per="channel")
    layer = list(delta_layers(student).values())[1]
    steps = np.array([1e-3, 1e3, 1e3, 1e3])
    layer.set_threshold(steps)
    assert wake(student, moving()) == []
    np.testing.assert_allclose(layer.threshold, steps, rtol=1e-6)


def test_videos_in_which_nothing_moves_wake_nothing() -> None:
    _, student = students(small_model())
    assert wake(student, [np.full((5, SIZE, SIZE, 3), 90, np.uint8)]) == []


def test_a_network_that_stands_still_is_told_from_itself_and_the_scale_that_wakes_it_is_found() -> None:
    _, student = students(small_model())
    probe = Probe(student)
    assert own_error(probe, moving(), LOSS) < 1e-3
    assert scale_that_follows(probe, moving(), LOSS) == 1
    for layer in delta_layers(student).values():
        layer.set_threshold(300.0 if layer.name.startswith("input") else 5.0)
    assert own_error(probe, moving(), LOSS) > MOST_APART
    scale = scale_that_follows(probe, moving(), LOSS)
    assert 2**-12 <= scale < 1
    steps = [float(layer.threshold) for layer in delta_layers(student).values()]
    assert steps == pytest.approx([300.0, 5.0, 5.0]), "the steps are as they were"
    for layer in delta_layers(student).values():
        layer.set_threshold(float(layer.threshold) * scale)
    assert own_error(probe, moving(), LOSS) <= MOST_APART


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(5):
        write_small_video(folder / f"{number}.avi", number % 2 == 0, seed=number)
    return folder


def dead(report: Report, model: str) -> list[str]:
    return [delta.name for delta in report.models[model].streams.deltas if delta.silent_channels == 1]


FIXED = {"epochs": 1, "relative_threshold": 0.5}
"""Without the search for steps."""


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (certain_model, {**FIXED, "epochs": 2, "penalty": 1000.0, "learning_rate": 0.01}),
        pytest.param(certain_model, {**FIXED, "max_accuracy_drop": 0.01}, marks=pytest.mark.slow),
        pytest.param(
            certain_model,
            {**FIXED, "granularity": "pixel", "start": "carried", "recalibrate": 1},
            marks=pytest.mark.slow,
        ),
        (untrained_network, {"epochs": 0, "task": "distill"}),
        pytest.param(untrained_network_of_clips, {"epochs": 1}, marks=pytest.mark.slow),
    ],
    ids=["penalty", "budget", "recalibrated", "distilled", "clips"],
)
def test_no_run_ends_with_a_silent_network_or_a_proud_headline(
    make: Callable[[], Any], settings: dict[str, Any], videos: Path, tmp_path: Path
) -> None:
    make().save(tmp_path / "model.keras")
    report = refine(tmp_path / "model.keras", videos, tmp_path / "run", frames=4, batch=4, **settings)
    for name in list(report.models)[1:]:
        assert dead(report, name) == [], name
    assert not headline(report).told
    assert not re.search(r"\dx fewer MACs", (tmp_path / "run" / "report.md").read_text("utf-8"))
