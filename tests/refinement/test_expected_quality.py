"""What the validation videos let expect of other recordings."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltafine.document.figures import Estimate, Figures, NamedFigure
from deltafine.measurement.metric import Answered, Shown, Subject
from deltafine.measurement.output import Output
from deltafine.refinement.training.confidence import Confidence
from deltafine.refinement.training.deviation import Deviation
from deltafine.refinement.training.validation import NEAR_CHANGES, RECORDINGS, better_than_held, expected_quality, lost
from tests.report.builders import figures as some_figures

ERRORS = st.floats(0.01, 2.0)


def figures(error: float, deviation: float | None = None, videos: int = 1) -> Figures:
    named = []
    if deviation is not None:
        named.append(NamedFigure(name="deviation", value=deviation, unit="number", meaning="", better="lower"))
    changes = {"label_error": error, "named": named, "videos": videos, "frame_accuracy": None, "window_accuracy": None}
    return some_figures("refined", "streams").model_copy(update=changes)


def expected_error(original: float, error: float, deviation: float, videos: int) -> float:
    return 1 - expected_quality(figures(original), figures(error, deviation, videos))


@settings(max_examples=50, deadline=None)
@given(ERRORS, ERRORS, ERRORS)
def test_of_many_recordings_what_was_measured_counts_and_of_few_how_far_the_answers_are(
    original: float, error: float, deviation: float
) -> None:
    independent = math.hypot(original, deviation)
    between = sorted([error, independent])
    one, many = (expected_error(original, error, deviation, videos) for videos in (1, 10**6))
    assert many == pytest.approx(error, abs=1e-3)
    assert abs(one**2 - independent**2) == pytest.approx(
        abs(error**2 - independent**2) / (1 + RECORDINGS), rel=1e-6, abs=1e-9
    )
    assert between[0] - 1e-9 <= one <= between[1] + 1e-9


def test_luck_on_one_recording_is_not_believed() -> None:
    lucky = expected_error(original=0.54, error=0.55, deviation=0.40, videos=1)
    close = expected_error(original=0.54, error=0.57, deviation=0.10, videos=1)
    assert close < lucky


def test_what_was_measured_counts_where_nothing_is_compared() -> None:
    assert expected_quality(figures(0.5), figures(0.6)) == pytest.approx(0.4)


def test_the_deviation_is_in_units_of_the_labels_spread() -> None:
    random = np.random.default_rng(0)
    values = tuple(random.normal(0, 3, 40).tolist())
    labels = np.arange(40)
    original = np.asarray(values)[:, None] + random.normal(0, 1, (40, 1))
    answers = original + random.normal(0, 0.5, original.shape)
    labels[7] = -1  # without a label, as the error does not look at it
    metric = Deviation()
    metric.begin(Subject(probe=None, output=Output("numbers", values=values)))  # type: ignore[arg-type]
    for piece in (slice(0, 15), slice(15, 40)):
        shown: Any = Answered(answers[None, piece], labels[None, piece], np.array([0]), original=original[None, piece])
        metric.update(Shown(piece=None, answers=shown))  # type: ignore[arg-type]
    known = labels >= 0
    by_hand = np.sqrt(((answers - original)[known] ** 2).mean()) / np.asarray(values)[known].std()
    (figure,) = metric.result(None).named  # type: ignore[arg-type]
    assert figure.value == pytest.approx(by_hand)


def of_classes(change: float, error: float, changed: float, videos: int, before: float = 0.8) -> float:
    """What is expected of a model whose accuracy changed by so much, give or take the standard ``error``."""
    estimate = Estimate(value=change, low=change - 1.96 * error, high=change + 1.96 * error)
    accuracy = {"frame_accuracy": Estimate(value=before, low=before, high=before), "window_accuracy": None}
    original = some_figures("original", "streams").model_copy(update=accuracy)
    update = {"accuracy_change": estimate, "fidelity": 1 - changed, "videos": videos}
    return expected_quality(original, some_figures("refined", "streams").model_copy(update=update), 4)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.001, 0.5), st.floats(-1, 1), st.floats(0, 0.2), st.integers(1, 1000))
def test_a_change_of_accuracy_counts_as_far_as_it_is_known(
    changed: float, for_the_better: float, error: float, videos: int
) -> None:
    change = for_the_better * changed
    by_chance = changed * (0.2 / 3 - 0.8)
    low, high = sorted([0.8 + change, 0.8 + by_chance])
    found = of_classes(change, error, changed, videos)
    assert low - 1e-9 <= found <= high + 1e-9
    assert of_classes(change, 0.0, changed, 10**9) == pytest.approx(0.8 + change, abs=1e-6)
    assert of_classes(change, 1e6, changed, videos) == pytest.approx(0.8 + by_chance, abs=1e-6)


def test_the_same_answers_are_as_good_whatever_is_known() -> None:
    assert of_classes(0.0, 0.1, 0.0, 3) == pytest.approx(0.8)


def test_a_luckier_model_that_answers_otherwise_loses_against_one_that_stays_close() -> None:
    assert of_classes(0.02, 0.04, 0.2, 100) < of_classes(0.0, 0.01, 0.02, 100)


@pytest.mark.parametrize(
    ("original", "refined", "frozen", "follows"),
    [(0.5, 0.6, 1.1, True), (0.5, 0.9, 1.1, False), (0.5, 0.5, 0.65, False), (0.5, 0.5, None, False)],
)
def test_answers_show_that_a_network_follows_where_held_ones_are_far_worse(
    original: float, refined: float, frozen: float | None, follows: bool
) -> None:
    found = figures(refined).model_copy(update={"frozen_error": frozen})
    assert better_than_held(figures(original), found) is follows


@pytest.mark.parametrize(("refined", "follows"), [(0.7, True), (0.5, False)])
def test_so_do_classes(refined: float, follows: bool) -> None:
    def accuracy(value: float) -> Estimate:
        return Estimate(value=value, low=value, high=value)

    made = some_figures("refined", "streams")
    original, found = (
        made.model_copy(update={"frame_accuracy": accuracy(value), "frozen_accuracy": accuracy(0.4)})
        for value in (0.8, refined)
    )
    assert better_than_held(original, found) is follows


def test_a_score_is_compared_with_the_score_of_held_answers_and_not_with_their_accuracy() -> None:
    def estimate(value: float) -> Estimate:
        return Estimate(value=value, low=value, high=value)

    made = some_figures("refined", "streams").model_copy(update={"frozen_accuracy": estimate(0.1)})
    original, found = (made.model_copy(update={"score": estimate(value)}) for value in (0.9, 0.85))
    assert not better_than_held(original, found.model_copy(update={"frozen_score": estimate(0.84)}))
    assert better_than_held(original, found.model_copy(update={"frozen_score": estimate(0.3)}))
    assert not better_than_held(original, found.model_copy(update={"frozen_score": None}))


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize(
    ("classes", "form"), [(4, "probabilities"), (4, "logits"), (1, "probabilities"), (1, "logits")]
)
def test_confidence_is_what_the_original_thinks_of_other_answers(classes: int, form: str, labelled: bool) -> None:
    random = np.random.default_rng(1)
    original, answers = random.normal(0, 2, (2, 30, classes))
    labels = random.integers(0, 2, 30) if labelled else np.full(30, -1)
    labels[[3, 8]] = -1
    counted = np.flatnonzero(labels >= 0) if labelled else np.arange(30)

    def chances(logits: np.ndarray) -> np.ndarray:
        logits = np.concatenate([np.zeros_like(logits), logits], -1) if classes == 1 else logits
        return np.asarray(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))

    total = 0.0
    for frame in counted:
        of_original = chances(original)[frame]
        total += of_original[chances(answers)[frame].argmax()] - of_original.max()
    given = [original, answers]
    if form == "probabilities":
        given = [chances(one) if classes > 1 else chances(one)[:, 1:] for one in given]
    halves = []
    for video, piece in enumerate((slice(0, 11), slice(11, 30))):
        metric = Confidence()
        metric.begin(Subject(probe=None, output=Output("classes", form == "probabilities")))  # type: ignore[arg-type]
        shown: Any = Answered(
            given[1][None, piece], labels[None, piece], np.array([video]), video, original=given[0][None, piece]
        )
        metric.update(Shown(piece=None, answers=shown))  # type: ignore[arg-type]
        halves.append(metric)
    halves[1].add(halves[0].record())
    figure, *_ = halves[1].result(None).named  # type: ignore[arg-type]
    assert figure.value == pytest.approx(total / len(counted))
    assert total < 0


def test_without_training_a_changed_answer_costs_what_the_original_was_surer_of() -> None:
    estimate = Estimate(value=-0.02, low=-0.06, high=0.02)
    accuracy = {"frame_accuracy": Estimate(value=0.8, low=0.8, high=0.8), "window_accuracy": None}
    original = some_figures("original", "streams").model_copy(update=accuracy)
    surer = NamedFigure(name="confidence", value=-0.01, unit="number", meaning="", better="higher")
    update = {"accuracy_change": estimate, "fidelity": 0.95, "videos": 10, "named": [surer]}
    refined = some_figures("refined", "streams").model_copy(update=update)
    calibrated, trained = (expected_quality(original, refined, 4, trained=trained) for trained in (False, True))
    assert 0.8 - 0.02 < calibrated < 0.8 - 0.01
    assert trained < calibrated


def test_of_maps_the_confidence_is_the_mean_over_all_positions() -> None:
    random = np.random.default_rng(2)
    original, answers = random.dirichlet([1, 1, 1], (2, 1, 5, 4, 6))  # (models, rows, frames, height, width, classes)
    metric = Confidence()
    metric.begin(Subject(probe=None, output=Output("classes", True)))  # type: ignore[arg-type]
    shown: Any = Answered(answers, np.full((1, 5), -1), np.array([0]), original=original)
    metric.update(Shown(piece=None, answers=shown))  # type: ignore[arg-type]
    expected = [p[q.argmax()] - p.max() for p, q in zip(original.reshape(-1, 3), answers.reshape(-1, 3), strict=True)]
    figure, *_ = metric.result(None).named  # type: ignore[arg-type]
    assert figure.value == pytest.approx(np.mean(expected))


def test_without_labels_classes_are_judged_by_what_their_changed_answers_are_expected_to_cost() -> None:
    bare = {"frame_accuracy": None, "window_accuracy": None, "accuracy_change": None, "label_error": None}
    original = some_figures("original", "streams").model_copy(update={**bare, "fidelity": 1.0})
    surer = NamedFigure(name="confidence", value=-0.004, unit="number", meaning="", better="higher")
    refined = some_figures("refined", "streams").model_copy(update={**bare, "fidelity": 0.93, "named": [surer]})
    assert expected_quality(original, refined) == pytest.approx(0.996)
    assert lost(original, refined, labelled=False) == pytest.approx(0.004)
    assert lost(original, refined.model_copy(update={"named": []}), labelled=False) == pytest.approx(0.07)


def expected_of_others(original: np.ndarray, answers: np.ndarray) -> tuple[float, float]:
    """The cost and the share of changed answers that logits (frames, classes) let expect of other recordings."""
    metric = Confidence()
    metric.begin(Subject(probe=None, output=Output("classes", False)))  # type: ignore[arg-type]
    shown: Any = Answered(answers[None], np.zeros((1, len(answers)), np.int64), np.array([0]), original=original[None])
    metric.update(Shown(piece=None, answers=shown))  # type: ignore[arg-type]
    _, cost, changes = metric.result(None).named  # type: ignore[arg-type]
    return cost.value, changes.value  # type: ignore[return-value]


def test_answers_that_came_near_to_changing_are_expected_to_change_elsewhere() -> None:
    original = np.array([[4.0, 0.0, -1.0]])
    shares = [0.0, 0.3, 0.6, 0.9, 1.0, 1.2, 2.0]
    found = [expected_of_others(original, np.add(original, [[0, 4 * share, 0]])) for share in shares]
    costs, changes = zip(*found, strict=True)
    assert found[0] == (0.0, 0.0)
    assert list(changes) == sorted(changes)
    before = np.exp(original[0]) / np.exp(original[0]).sum()
    shares_of_costs = np.array(costs) / (before[1] - before[0])
    assert shares_of_costs[1] < 0.01 < 0.05 < shares_of_costs[2] < changes[2] < 0.5  # trained ones may go farther
    assert changes[4] == pytest.approx(0.5)  # half of all recordings move it farther
    assert shares_of_costs[-1] > 0.9
    assert costs[4] == pytest.approx(0.5 * (before[1] - before[0]))


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 3))
def test_what_all_classes_share_and_their_scale_are_no_change(seed: int, scale: float) -> None:
    random = np.random.default_rng(seed)
    original, moved = random.normal(0, 3, (2, 20, 4))
    answers = original + 0.2 * moved
    shift = random.normal(0, 5, (20, 1))
    assert expected_of_others(original, answers + shift) == pytest.approx(expected_of_others(original, answers))
    assert expected_of_others(scale * original, scale * answers)[1] == pytest.approx(
        expected_of_others(original, answers)[1], rel=1e-4
    )


@pytest.mark.parametrize("trained", [True, False])
def test_changes_that_are_to_come_count_against_a_model_of_which_nothing_was_lost(trained: bool) -> None:
    estimate = Estimate(value=0.0, low=0.0, high=0.0)
    accuracy = {"frame_accuracy": Estimate(value=1.0, low=1.0, high=1.0), "window_accuracy": None}
    original = some_figures("original", "streams").model_copy(update=accuracy)
    values = {"confidence": 0.0, "expected_confidence": -0.04, "expected_changes": 0.05}
    figures = [NamedFigure(name=n, value=v, unit="number", meaning="", better="higher") for n, v in values.items()]
    update = {"accuracy_change": estimate, "fidelity": 1.0, "videos": 14, "named": figures}
    refined = some_figures("refined", "streams").model_copy(update=update)
    assert expected_quality(original, refined, 3, trained=trained) == pytest.approx(
        1 - 0.05 * NEAR_CHANGES / (NEAR_CHANGES + 14) if trained else 0.96
    )


@pytest.mark.parametrize("change", [0.05, 0.0, -0.05])
def test_on_few_videos_answers_that_came_near_to_changing_count_and_on_many_those_that_changed(change: float) -> None:
    accuracy = {"frame_accuracy": Estimate(value=0.7, low=0.7, high=0.7), "window_accuracy": None}
    original = some_figures("original", "streams").model_copy(update=accuracy)

    def expected(changes: float, videos: int) -> float:
        values = {"confidence": -0.1, "expected_confidence": -0.1, "expected_changes": changes}
        named = [NamedFigure(name=n, value=v, unit="number", meaning="", better="higher") for n, v in values.items()]
        estimate = Estimate(value=change, low=change, high=change)
        update = {"accuracy_change": estimate, "fidelity": 0.8, "videos": videos, "named": named}
        return expected_quality(original, some_figures("refined", "streams").model_copy(update=update), 3)

    any_other = 0.3 / 2 - 0.7
    for changes in (0.2, 0.4):
        assert expected(changes, 10**9) == pytest.approx(0.7 + change, abs=1e-6)
    for videos in (5, 15, 60):
        extra = expected(0.4, videos) - expected(0.2, videos)
        assert extra == pytest.approx(0.2 * NEAR_CHANGES / (NEAR_CHANGES + videos) * any_other)
        assert expected(0.1, videos) == expected(0.2, videos)
