"""Thresholds of many layers, found together by gradients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from deltafine.jobs.refine import refine
from deltafine.layers import EventRule
from deltafine.measurement.probe import Probe
from deltafine.model import DeltaSettings, delta_layers, find_activations, insert_deltas
from deltafine.refinement.thresholds import allocation
from deltafine.refinement.thresholds.allocation import RELATIVE_STEPS, Allocation
from deltafine.refinement.thresholds.calibration import activation_rms
from deltafine.refinement.thresholds.descent import MOST_POINTS
from deltafine.refinement.thresholds.trials import PathPoint, Trials
from deltafine.refinement.training.losses import ClassificationLoss, Loss, RegressionLoss
from tests.small_runs import FAST, write_small_model, write_small_videos

BRANCH = 3


def two_branches() -> keras.Model:
    """What the second branch sees hardly matters to the answer."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((10, 10, 3))
    ends = []
    for name in ("main", "idle"):
        x = keras.layers.Rescaling(1 / 255)(inputs)
        for number in range(BRANCH):
            x = keras.layers.Conv2D(6, 3, padding="same", activation="relu", name=f"{name}{number}")(x)
        ends.append(keras.layers.GlobalAveragePooling2D()(x))
    x = keras.layers.Add()([ends[0], keras.layers.Rescaling(1e-3)(ends[1])])
    return keras.Model(inputs, keras.layers.Dense(3)(x))


def moving(seed: int) -> np.ndarray:
    """A bright square that moves over noise: (time, height, width, channels)."""
    random = np.random.default_rng(seed)
    frames = np.broadcast_to(random.uniform(0, 120, (10, 10, 3)), (20, 10, 10, 3)).copy()
    for number, frame in enumerate(frames):
        frame[number // 2 % 7 : number // 2 % 7 + 4, seed : seed + 4] += 120
    return np.asarray(frames + random.normal(0, 2, frames.shape), "float32")


VIDEOS = [moving(seed) for seed in range(3)]


class Calibrated:
    """A network of two branches and the search for its thresholds."""

    def __init__(self, trials: Trials | None = None, loss: Loss | None = None, **settings: Any) -> None:
        model = two_branches()
        self.original = Probe(insert_deltas(model, []))
        deltas = DeltaSettings(initial_threshold=1e-6, **settings)
        sites = find_activations(model)
        self.student = Probe(insert_deltas(model, sites, deltas))
        answers = np.concatenate([self.original.run(video[None]).predictions[0] for video in VIDEOS])
        self.before = [np.array(variable) for variable in self.student.clip_model.variables]
        rms = activation_rms(self.student.clip_model, [video[None] for video in VIDEOS])
        shares = {site.delta_name: site.mac_share for site in sites if site.selected}
        self.search = Allocation(
            self.student, self.original, rms, VIDEOS, loss or RegressionLoss(answers), shares, trials
        )
        self.rms = rms

    def explore(self, most: float = 0.1, until: int = MOST_POINTS) -> list[int]:
        """Find the path, and give the numbers of the points that were found; stopped after some of them."""
        found = []

        def progress(done: int, total: int) -> None:
            assert done <= total
            found.append(done)
            if done == until:
                raise KeyboardInterrupt

        self.search.explore(most, progress)
        return found

    def measured(self) -> tuple[float, float]:
        """Divergence and effective MACs with the thresholds that the network has."""
        trial = self.search._try()
        return trial.divergence, trial.effective_macs

    def with_one_relative_threshold(self, allowed: float) -> float:
        """Effective MACs with the largest relative threshold for all layers that keeps within a divergence."""
        best = np.inf
        for relative in np.geomspace(0.01, 1.0, 40):
            for path, layer in delta_layers(self.student.clip_model).items():
                layer.set_threshold(relative * np.sqrt(np.mean(np.square(self.rms[path]))))
            divergence, macs = self.measured()
            if divergence <= allowed:
                best = min(best, macs)
        return best


@pytest.fixture(scope="module", autouse=True)
def of_few_layers() -> Iterator[None]:
    """The path is for many layers, and compiling these takes long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(allocation, "MANY_LAYERS", BRANCH)
        yield


@pytest.fixture(scope="module")
def deep() -> Calibrated:
    found = Calibrated()
    found.explore()
    return found


@pytest.mark.parametrize("allowed", [0.01, 0.04])
def test_what_is_allowed_is_spent_and_buys_more_than_one_threshold_for_all(deep: Calibrated, allowed: float) -> None:
    deep.search.allocate(allowed)
    divergence, macs = deep.measured()
    assert 0.7 * allowed <= divergence <= allowed
    assert macs < 0.9 * deep.with_one_relative_threshold(allowed)


def test_layers_that_hardly_matter_get_large_thresholds(deep: Calibrated) -> None:
    deep.search.allocate(0.01)
    of_layers = delta_layers(deep.student.clip_model)
    relative = {path: float(of_layers[path].threshold) / np.sqrt(np.mean(deep.rms[path] ** 2)) for path in deep.rms}
    idle = [value for path, value in relative.items() if "idle" in path]
    rest = [value for path, value in relative.items() if "main" in path]
    assert len(idle) == BRANCH
    assert len(rest) == BRANCH
    assert min(idle) > 2 * max(rest)


def test_a_path_that_was_stopped_goes_on_to_the_same(tmp_path: Path, deep: Calibrated) -> None:
    stopped = Calibrated(Trials(tmp_path / "t.json"))
    with pytest.raises(KeyboardInterrupt):
        stopped.explore(until=3)
    stopped.search._known.keep()

    kept = Trials(tmp_path / "t.json")
    assert len(kept.path) == 3
    later = Calibrated(kept)
    whole = deep.search._known.path
    assert later.explore() == list(range(4, len(whole) + 1))
    assert kept.path == whole
    assert later.explore() == []
    kept.keep()
    assert Trials(tmp_path / "t.json").path == whole


def test_the_path_ends_beyond_what_is_asked_for_and_goes_on_where_more_is() -> None:
    calibrated = Calibrated()
    short = len(calibrated.explore(most=0.002))
    assert calibrated.search._known.path[-1].divergence > 0.002
    assert len(calibrated.explore(most=0.05)) > 0
    assert calibrated.search._known.path[-1].divergence > 0.05
    assert len(calibrated.search._known.path) > short


def test_nothing_of_the_model_but_thresholds_is_changed(deep: Calibrated) -> None:
    model = deep.student.clip_model
    thresholds = {id(layer.log_threshold) for layer in delta_layers(model).values()}
    changed = [
        id(variable) in thresholds
        for variable, before in zip(model.variables, deep.before, strict=True)
        if not np.array_equal(variable, before)
    ]
    assert len(changed) == len(thresholds)
    assert all(changed)


class WithoutSlope(EventRule):
    name = "without a slope"

    def advance(self, sent: Any, x: Any, threshold: Any, granularity: str, xp: Any) -> Any:
        return xp.where(xp.absolute(x - sent) < threshold, sent, x)

    def output(self, x: Any, sent: Any, threshold: Any) -> Any:
        return tf.stop_gradient(sent)

    def expected_events(self, x: Any, sent: Any, threshold: Any, granularity: str) -> Any:
        return tf.stop_gradient(super().expected_events(x, sent, threshold, granularity))


def test_where_a_rule_has_no_gradients_every_layer_is_tried_alone() -> None:
    calibrated = Calibrated(rule=WithoutSlope())
    found = calibrated.explore(until=10**6)
    assert found[-1] == len(calibrated.rms) * len(RELATIVE_STEPS)
    calibrated.search.allocate(0.02)
    divergence, macs = calibrated.measured()
    assert 0.8 * 0.02 <= divergence <= 0.02
    assert macs < 0.9 * calibrated.with_one_relative_threshold(1e-6)


def test_trials_of_an_earlier_version_had_no_path(tmp_path: Path) -> None:
    trials = Trials(tmp_path / "t.json")
    assert trials.path == []
    trials.go_on(PathPoint((0.1, 1 / 3), 0.25, (-1e-9, 0.5), (1e-30, 0.0)))
    trials.keep()
    again = Trials(tmp_path / "t.json")
    assert again.path == trials.path
    assert again.known == 0


class AlwaysSure(ClassificationLoss):
    def log_probabilities(self, predictions: Any) -> Any:
        return tf.nn.log_softmax(tf.cast(predictions, tf.float32) * 1e-3 + [50.0, 0.0, 0.0])


def test_answers_that_never_change_do_not_let_a_network_stand_still() -> None:
    """The classes are sure of themselves whatever is shown: features and logits have to be followed."""
    calibrated = Calibrated(loss=AlwaysSure(probabilities=False, distill=1.0))
    calibrated.explore(until=10**6)
    calibrated.search.allocate(0.02)
    assert calibrated.search._try().apart <= 0.5


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("carried", 0, 0.0, 0.2, True, 0.5)),
        ({"start": "noise"}, ("noise", None, 0.0, 0.02, False, None)),
        ({"threshold_learning_rate": 0.01}, ("carried", 0, 0.01, 0.05, True, 0.5)),
        ({"training_divergence": 0.1}, ("carried", 0, 0.0, 0.1, True, 0.5)),
        ({"freeze_batchnorm": False}, ("carried", 0, 0.0, 0.2, False, 0.5)),
        ({"mix": 0.0}, ("carried", 0, 0.0, 0.2, True, 0.0)),
        ({"granularity": "pixel"}, ("noise", None, 0.0, 0.05, False, None)),
    ],
    ids=["default", "start", "trained", "divergence", "batchnorm", "unmixed", "pixel"],
)
def test_classes_of_many_layers_begin_with_large_thresholds_and_keep_them(
    given: dict[str, Any],
    expected: tuple[str, int | None, float, float, bool, float | None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("deltafine.refinement.run.preparation.MANY_LAYERS", 0)
    model, videos = write_small_model(tmp_path / "m.keras"), write_small_videos(tmp_path / "videos")
    refine(model, videos, tmp_path / "run", **FAST, epochs=1, **given)
    report = refine(model, videos, tmp_path / "run", resume=True, pick=1)
    found = report.settings
    names = ("start", "recalibrate", "threshold_learning_rate", "training_divergence", "freeze_batchnorm", "mix")
    assert tuple(found.get(name) for name in names) == expected
    refined = delta_layers(keras.models.load_model(tmp_path / "run" / "refined.keras"))
    moved = [not np.allclose(refined[path].threshold, start) for path, start in report.start_thresholds.items()]
    assert all(moved) if expected[2] else not any(moved)
