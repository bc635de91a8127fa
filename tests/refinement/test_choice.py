"""What a run takes in the end: never worse than what it had without training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from deltafine.document.history import FrontPoint
from deltafine.document.report import Report
from deltafine.errors import DeltafineError
from deltafine.jobs.refine import refine
from deltafine.measurement.probe import Probe
from deltafine.model import DeltaSettings, delta_layers, find_activations, insert_deltas
from deltafine.refinement.run.selection import Choice
from deltafine.refinement.thresholds.allocation import Allocation
from deltafine.refinement.thresholds.budget import Budget
from deltafine.refinement.thresholds.calibration import activation_rms
from deltafine.refinement.thresholds.following import play
from deltafine.refinement.training.losses import RegressionLoss
from tests.small_runs import SIZE, small_model, write_small_model, write_small_videos

WRECKS: dict[str, Any] = {"epochs": 1, "penalty": 1000.0, "learning_rate": 0.5, "warmup": 0.0, "recalibrate": 0}
"""A training after which nothing is left of the network."""
HOW: dict[str, Any] = {"task": "regression", "clip_output": "per-frame", "frames": 4, "batch": 4, **WRECKS}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("material")
    return write_small_model(folder / "small.keras"), write_small_videos(folder / "videos")


@pytest.fixture(scope="module")
def wrecked(material: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    out = tmp_path_factory.mktemp("wrecked") / "run"
    return refine(*material, out, **HOW), out


def weights_of(file: Path) -> dict[str, np.ndarray]:
    model = keras.models.load_model(file)
    return {v.path.split("/", 1)[-1]: np.asarray(v) for v in model.variables if "kernel" in v.path}


def test_a_training_that_wrecks_the_network_gives_a_calibrated_one_and_says_so(
    wrecked: tuple[Report, Path], material: tuple[Path, Path]
) -> None:
    report, out = wrecked
    (chosen,) = [point for point in report.front if point.chosen]
    assert chosen.epoch == 0
    assert chosen.divergence is not None
    assert report.history[0].validation_accuracy is not None
    assert report.history[0].validation_accuracy < 0.5 < chosen.accuracy
    refined, original = (weights_of(file) for file in (out / "refined.keras", material[0]))
    assert sorted(value.tobytes() for value in refined.values()) == sorted(
        value.tobytes() for value in original.values()
    )
    said = [
        warning for warning in report.warnings if "Training gave nothing" in warning or "nothing that leaves" in warning
    ]
    assert len(said) == 1


def test_it_is_the_sparsest_of_those_within_the_budget(wrecked: tuple[Report, Path]) -> None:
    report, _ = wrecked
    (chosen,) = [point for point in report.front if point.chosen]
    lossless = max(report.front, key=lambda point: point.accuracy)
    assert lossless.accuracy > 1 - 1e-3
    within = [point for point in report.front if point.accuracy >= 1 - 0.05]
    assert chosen.mac_density == min(point.mac_density for point in within)


def test_a_resumed_run_takes_the_same(wrecked: tuple[Report, Path], material: tuple[Path, Path]) -> None:
    report, out = wrecked
    before = weights_of(out / "refined.keras")
    again = refine(*material, out, **HOW, resume=True)
    assert again.front == report.front
    assert [value.tobytes() for value in weights_of(out / "refined.keras").values()] == [
        value.tobytes() for value in before.values()
    ]


def test_where_nothing_within_the_budget_saves_anything_the_report_says_so_first(
    material: tuple[Path, Path], tmp_path: Path
) -> None:
    from deltafine.report.summary import headline

    report = refine(*material, tmp_path / "run", **{**HOW, "max_accuracy_drop": 1e-9})
    (chosen,) = [point for point in report.front if point.chosen]
    assert chosen.divergence == 0
    assert report.activity is not None
    assert 0 < report.activity.noisy + report.activity.moved <= 1
    assert headline(report).sentence.startswith("Nothing within the budget saves anything: ")


class Drift:
    """A validation by which accuracy falls by 0.1 where the weights of an epoch are reached, and not before 0.8."""

    def __init__(self, student: keras.Model) -> None:
        self.model, self.start = student, [np.array(variable) for variable in student.variables]
        self.end: list[np.ndarray] = []

    def train(self) -> None:
        deltas = {id(layer.log_threshold) for layer in delta_layers(self.model).values()}
        for variable in self.model.variables:
            if variable.dtype == "float32":
                variable.assign(np.asarray(variable) + (np.log(8.0) if id(variable) in deltas else 0.5))
        self.end = [np.array(variable) for variable in self.model.variables]

    def student(self) -> float:
        """How far the weights are from the start."""
        (kernel,) = [n for n, v in enumerate(self.model.variables) if v.path.endswith("kernel")][:1]
        values = [np.asarray(variable) for variable in self.model.variables]
        now, start, end = (float(np.mean(weights[kernel])) for weights in (values, self.start, self.end))
        return (now - start) / (end - start)

    def point(
        self, number: int, penalty: float, moved: float, scale: float = 1.0, *, trained: bool = True
    ) -> FrontPoint:
        accuracy = 0.9 - max(0.0, moved - 0.8)
        return FrontPoint(
            epoch=number, penalty=1, accuracy=accuracy, mac_density=0.1 / scale, pixel_density=0, threshold_scale=scale
        )


class Still(Drift):
    """A network that is told to stand still inside, whatever its answers show."""

    def __init__(self, student: keras.Model, follow: bool) -> None:
        super().__init__(student)
        self.follow = follow

    def answers_follow(self) -> bool:
        return self.follow


@pytest.mark.parametrize(("follow", "scale"), [(True, 1.0), (False, 0.5)])
def test_thresholds_are_halved_only_where_answers_do_not_show_that_it_follows(
    tmp_path: Path, follow: bool, scale: float
) -> None:
    student = insert_deltas(small_model(), find_activations(small_model()))
    still = Still(student, follow)
    budget = Budget(None, None, 0.05, False, True, 0.05, False)
    choice = Choice(student, still, budget, tmp_path, {}, lambda: 0.5)  # type: ignore[arg-type]
    choice.floor = 0.85
    choice.points = [still.point(1, 1, 0.0)]
    choice.keep(1)
    still.end = [value + 1 for value in still.start]
    said = choice.make(1.0)
    (chosen,) = [point for point in choice.points if point.chosen]
    assert (chosen.threshold_scale, bool(said)) == (scale, not follow)


@pytest.mark.parametrize(("density", "trained"), [(0.19, True), (0.21, False), (0.3, False)])
def test_a_model_with_the_weights_of_the_original_is_taken_where_training_saves_little_more(
    tmp_path: Path, density: float, trained: bool
) -> None:
    student = insert_deltas(small_model(), find_activations(small_model()))
    budget = Budget(None, None, 0.05, False, True, 0.05, False)
    logarithms = [np.asarray(layer.log_threshold) for layer in delta_layers(student).values()]
    choice = Choice(student, Still(student, True), budget, tmp_path, {0.5: logarithms}, lambda: 1.0)  # type: ignore[arg-type]
    choice.floor, choice.epochs = 0.85, 1
    choice.points = [
        FrontPoint(epoch=1, penalty=1, accuracy=0.9, mac_density=density, pixel_density=0),
        FrontPoint(epoch=0, penalty=0, accuracy=0.87, mac_density=0.25, pixel_density=0, divergence=0.5),
    ]
    choice.keep(1)
    choice.make(1.0)
    (chosen,) = [point for point in choice.points if point.chosen]
    assert chosen.epoch == trained


@pytest.mark.parametrize(("over", "taken"), [(4, 3), (2, 2), (1, 1)])
def test_epochs_before_the_middle_of_the_training_are_taken_only_where_it_ended_there(
    tmp_path: Path, over: int, taken: int
) -> None:
    student = insert_deltas(small_model(), find_activations(small_model()))
    budget = Budget(None, None, 0.05, False, True, 0.05, False)
    choice = Choice(student, Still(student, True), budget, tmp_path, {}, lambda: 1.0)  # type: ignore[arg-type]
    choice.floor, choice.epochs = 0.85, 4
    densities = [0.1, 0.3, 0.2, 0.25]
    for epoch, density in enumerate(densities[:over], 1):
        choice.points.append(FrontPoint(epoch=epoch, penalty=1, accuracy=0.9, mac_density=density, pixel_density=0))
        choice.keep(epoch)
        choice.tidy()
    choice.make(1.0)
    assert [point.epoch for point in choice.points if point.chosen] == [taken]


class Lost(Still):
    """Smaller thresholds do not help."""

    def student(self) -> float:
        return 2.0


@pytest.mark.parametrize(("after", "density", "taken"), [(0.7, 0.2, 2), (0.7, 0.15, 3), (0.86, 0.2, 3)])
def test_an_epoch_is_not_taken_that_is_within_the_budget_by_luck(
    tmp_path: Path, after: float, density: float, taken: int
) -> None:
    student = insert_deltas(small_model(), find_activations(small_model()))
    budget = Budget(None, None, 0.05, False, True, 0.05, False)
    choice = Choice(student, Lost(student, True), budget, tmp_path, {}, lambda: 1.0)  # type: ignore[arg-type]
    choice.floor, choice.epochs = 0.85, 4
    for epoch, judged, of_macs in ((1, 0.9, 0.4), (2, 0.88, 0.3), (3, 0.86, 0.2), (4, after, density)):
        choice.points.append(FrontPoint(epoch=epoch, penalty=1, accuracy=judged, mac_density=of_macs, pixel_density=0))
        choice.keep(epoch)
        choice.tidy()
    choice.make(1.0)
    assert [point.epoch for point in choice.points if point.chosen] == [taken]


@pytest.mark.parametrize(("early", "taken"), [(0.91, 1), (0.89, 4)])
def test_where_the_later_epochs_are_over_the_budget_an_early_one_is_taken_that_loses_nothing(
    tmp_path: Path, early: float, taken: int
) -> None:
    student = insert_deltas(small_model(), find_activations(small_model()))
    budget = Budget(None, None, 0.05, False, True, 0.05, False)
    choice = Choice(student, Lost(student, True), budget, tmp_path, {}, lambda: 1.0)  # type: ignore[arg-type]
    choice.floor, choice.epochs = 0.85, 4
    for epoch, judged, density in ((1, early, 0.3), (2, 0.8, 0.2), (3, 0.81, 0.2), (4, 0.84, 0.2)):
        choice.points.append(FrontPoint(epoch=epoch, penalty=1, accuracy=judged, mac_density=density, pixel_density=0))
        choice.keep(epoch)
        choice.tidy()
    choice.make(1.0)
    assert [point.epoch for point in choice.points if point.chosen] == [taken]


def test_an_epoch_over_the_budget_is_taken_part_of_the_way_where_that_is_within(tmp_path: Path) -> None:
    student = insert_deltas(small_model(), find_activations(small_model()))
    drift = Drift(student)
    budget = Budget(None, None, 0.05, False, True, 0.05, False)
    choice = Choice(student, drift, budget, tmp_path, {}, lambda: 1.0)  # type: ignore[arg-type]
    choice.floor = 0.85
    drift.train()
    before = FrontPoint(epoch=1, penalty=1, accuracy=0.9, mac_density=0.5, pixel_density=0)
    choice.points = [before, drift.point(2, 1, 1.0)]
    for epoch in (1, 2):
        choice.keep(epoch)
    choice.make(1.0)
    (chosen,) = [point for point in choice.points if point.chosen]
    assert (chosen.epoch, chosen.trained_share, chosen.threshold_scale) == (2, 0.7, 0.8)
    thresholds = {id(layer.log_threshold) for layer in delta_layers(student).values()}
    for variable, start, end in zip(student.variables, drift.start, drift.end, strict=True):
        of_weights = 0.7 if variable.dtype.startswith("float") else 1.0
        share = 1 + np.log(0.8) / np.log(8.0) if id(variable) in thresholds else of_weights
        np.testing.assert_allclose(np.asarray(variable), start + share * (end - start), rtol=1e-5, atol=1e-6)
    with pytest.raises(DeltafineError, match="not kept"):
        choice.make(1.0, 3)
    choice.make(1.0, 2)
    assert all(np.array_equal(variable, end) for variable, end in zip(student.variables, drift.end, strict=True))


class Costly(Drift):
    """A validation by which larger thresholds lose more and save more, whatever the weights are."""

    def student(self) -> float:
        return float(np.mean([np.asarray(layer.threshold) for layer in delta_layers(self.model).values()]))

    def point(
        self, number: int, penalty: float, moved: float, scale: float = 1.0, *, trained: bool = True
    ) -> FrontPoint:
        assert trained == bool(number)
        return FrontPoint(
            epoch=number,
            penalty=1,
            accuracy=0.9 - 0.1 * moved,
            mac_density=0.1 / moved,
            pixel_density=0,
            threshold_scale=scale,
        )


@pytest.mark.parametrize(("floor", "chosen"), [(0.815, 0.8), (0.835, 0.6), (0.845, 0.5), (0.79, 1.0)])
def test_between_two_calibrated_models_smaller_thresholds_of_the_sparser_one_are_tried(
    tmp_path: Path, floor: float, chosen: float
) -> None:
    student = insert_deltas(small_model(), find_activations(small_model()))
    deltas = delta_layers(student).values()
    calibrated = {
        threshold: [np.log(threshold) * np.ones_like(np.asarray(layer.log_threshold)) for layer in deltas]
        for threshold in (0.5, 1.0)
    }
    budget = Budget(None, None, 0.05, False, True, 0.05, False)
    choice = Choice(student, Costly(student), budget, tmp_path, calibrated, lambda: 1.0)  # type: ignore[arg-type]
    choice.floor = floor
    choice.try_calibrated()
    choice.make(1.0)
    assert Costly(student).student() == pytest.approx(chosen)


class Steep(Still):
    """A validation by which an epoch loses the more, the farther its thresholds are from where it was trained."""

    of = ((1, 0.77, 0.148), (2, 0.755, 0.108), (3, 0.60, 0.104))

    def point(
        self, number: int, penalty: float, moved: float, scale: float = 1.0, *, trained: bool = True
    ) -> FrontPoint:
        (accuracy, density) = next(values for epoch, *values in self.of if epoch == number)
        accuracy -= 0.2 * abs(math.log(scale))
        return FrontPoint(
            epoch=number,
            penalty=1,
            accuracy=accuracy,
            mac_density=density / scale,
            pixel_density=0,
            threshold_scale=scale,
        )


def test_the_epoch_that_is_most_accurate_at_a_target_is_taken_and_not_the_best_of_those_farther_away(
    tmp_path: Path,
) -> None:
    student = insert_deltas(small_model(), find_activations(small_model()))
    steep = Steep(student, follow=True)
    budget = Budget("macs", 0.1, 0.01, False, False, 0.01, True)
    choice = Choice(student, steep, budget, tmp_path, {}, lambda: 1.0)  # type: ignore[arg-type]
    steep.train()
    for epoch in (1, 2, 3):
        choice.points.append(steep.point(epoch, 1, 1.0))
        choice.keep(epoch)
    choice.make(1.0)
    (chosen,) = [point for point in choice.points if point.chosen]
    assert chosen.epoch == 2
    assert chosen.mac_density == pytest.approx(0.1, rel=0.05)
    assert max(point.judged for point in choice.points if point.epoch == 1 and budget.reached(point)) < chosen.judged


def moving() -> list[np.ndarray]:
    """A noisy surface that grows lighter, under a square that wanders."""
    random = np.random.default_rng(0)
    frames = 60 + 2.0 * np.arange(40)[:, None, None, None] + random.normal(0, 2, (40, SIZE, SIZE, 3))
    for number, frame in enumerate(frames):
        frame[4:9, number % 11 : number % 11 + 5] += 70
    return [np.clip(frames, 0, 255).astype("float32")]


def test_calibration_spends_what_is_allowed_without_jumps() -> None:
    model, videos = small_model(), moving()
    loss = RegressionLoss(np.asarray(model(videos[0])))
    original = insert_deltas(model, [])
    student = insert_deltas(model, find_activations(model), DeltaSettings(initial_threshold=1e-6))
    rms = activation_rms(student, [videos[0][None]])
    search = Allocation(student, original, rms, videos, loss, dict.fromkeys(rms, 1.0))
    search.explore(0.1, lambda done, total: None)
    target = play(Probe(original), videos)[0].predictions[0]
    probe = Probe(student)
    spent = []
    for allowed in np.geomspace(0.002, 0.1, 12):
        search.allocate(float(allowed))
        found = play(probe, videos)[0].predictions[0]
        spent.append(loss.divergence(target, found) / allowed)
    assert max(spent) <= 1 + 1e-6
    assert float(np.median(spent)) > 0.8
    assert min(spent) > 0.4
    assert math.isfinite(sum(spent))
