"""Accuracy, its interval, fidelity and the frozen control."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltafine.measurement.accuracy import Accuracy, ClipAccuracy, classes_of
from deltafine.measurement.fidelity import Fidelity
from deltafine.measurement.interval import share_with_interval

VIDEOS = st.lists(
    st.lists(st.tuples(st.integers(0, 2), st.integers(-1, 2)), min_size=1, max_size=6), min_size=1, max_size=5
)


@settings(max_examples=60, deadline=None)
@given(VIDEOS)
def test_accuracy_is_right_answers_over_labelled_frames(videos):
    accuracy = Accuracy()
    for number, frames in enumerate(videos):
        for answer, label in frames:  # in as many parts as there are frames
            accuracy.update(number, np.array(answer), np.array(label))
    labelled = [(answer, label) for frames in videos for answer, label in frames if label >= 0]
    if not labelled:
        assert accuracy.result() is None
        return
    found = accuracy.result()
    assert found.value == sum(answer == label for answer, label in labelled) / len(labelled)
    assert 0 <= found.low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.high <= 1


@settings(max_examples=40, deadline=None)
@given(VIDEOS, st.randoms(use_true_random=False))
def test_a_change_is_the_difference_of_two_accuracies(videos, random):
    one, other = Accuracy(), Accuracy()
    for number, frames in enumerate(videos):
        labels = np.array([label for _, label in frames])
        one.update(number, np.array([answer for answer, _ in frames]), labels)
        other.update(number, np.array([random.randint(0, 2) for _ in frames]), labels)
    if one.result() is None:
        assert one.change_from(other) is None
        return
    change = one.change_from(other)
    assert change.value == pytest.approx(one.result().value - other.result().value)
    unchanged = one.change_from(one)
    assert (unchanged.low, unchanged.value, unchanged.high) == (0, 0, 0)


def test_a_change_is_paired_so_that_what_both_get_wrong_does_not_widen_it():
    labels = np.zeros(10, int)
    one, other = Accuracy(), Accuracy()
    for video in range(12):
        right = 10 if video % 2 else 2
        answers = (np.arange(10) >= right).astype(int)
        other.update(video, answers, labels)
        one.update(video, np.where(np.arange(10) == right - 1, 1, answers), labels)
    change = one.change_from(other)
    assert (change.low, change.value, change.high) == pytest.approx((-0.1, -0.1, -0.1))
    assert one.result().high - one.result().low > 0.3


def test_a_change_needs_the_same_videos():
    one, other = Accuracy(), Accuracy()
    one.update(0, np.array([1]), np.array([1]))
    other.update(1, np.array([1]), np.array([1]))
    with pytest.raises(ValueError, match="same videos"):
        one.change_from(other)


@pytest.mark.parametrize(
    ("right", "of"),
    [([1, 0], [1, 1]), ([3, 1, 2], [4, 4, 4]), ([9, 0, 1], [10, 2, 5]), ([-2, 1, 0], [4, 4, 8])],
)
def test_the_interval_is_that_of_all_ways_to_draw_the_videos(right, of):
    """With few videos all draws can be listed; 2000 random ones find the same quantiles or a neighbouring one."""
    draws = sorted(
        sum(right[video] for video in draw) / sum(of[video] for video in draw)
        for draw in product(range(len(of)), repeat=len(of))
    )
    found = share_with_interval(right, of)
    assert found.value == sum(right) / sum(of)
    for share, value in ((0.025, found.low), (0.975, found.high)):
        least = np.quantile(draws, max(0, share - 0.02), method="lower")
        most = np.quantile(draws, min(1, share + 0.02), method="higher")
        assert least - 1e-9 <= value <= most + 1e-9


def test_the_interval_narrows_as_that_of_a_binomial_share():
    right = np.random.default_rng(0).random(400) < 0.7
    found = share_with_interval(right.astype(int), np.ones(400, int))
    half = 1.96 * np.sqrt(found.value * (1 - found.value) / 400)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.1)
    assert found.low + found.high == pytest.approx(2 * found.value, abs=0.01)


def test_the_interval_of_one_video_is_its_value_and_draws_are_seeded():
    found = share_with_interval([3], [4])
    assert (found.low, found.value, found.high) == (0.75, 0.75, 0.75)
    assert share_with_interval([3, 1, 2], [4, 4, 4]) == share_with_interval([3, 1, 2], [4, 4, 4])


def test_videos_without_answers_have_no_say():
    assert share_with_interval([3, 0, 1], [4, 0, 4]) == share_with_interval([3, 1], [4, 4])
    with pytest.raises(ValueError, match="share of nothing"):
        share_with_interval([0], [0])


def test_a_whole_video_is_judged_by_the_mean_of_its_predictions():
    accuracy = ClipAccuracy()
    predictions = np.array([[0.9, 0.1], [0.4, 0.6], [0.45, 0.55]])  # mean: class 0, majority: class 1
    accuracy.update(0, predictions[:2], np.array([0, 0]))
    accuracy.update(0, predictions[2:], np.array([0]))
    accuracy.update(1, predictions, np.array([1, 1, 1]))
    accuracy.update(2, predictions, np.array([-1, -1, -1]))
    assert accuracy.result().value == 1 / 2


def test_one_output_is_the_probability_of_class_one():
    np.testing.assert_array_equal(classes_of(np.array([[0.2], [0.5], [0.7]])), [0, 0, 1])
    np.testing.assert_array_equal(classes_of(np.array([[0.2, 0.8], [3.0, -1.0]])), [1, 0])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=20), st.integers(1, 5))
def test_fidelity_is_the_share_of_equal_answers_in_whatever_parts(pairs, part):
    fidelity = Fidelity()
    one, other = (np.eye(3)[[pair[side] for pair in pairs]] for side in range(2))
    for begin in range(0, len(pairs), part):
        fidelity.compare(one[begin : begin + part], other[begin : begin + part])
    assert fidelity.value == sum(a == b for a, b in pairs) / len(pairs)


def test_fidelity_of_nothing_has_no_value():
    assert Fidelity().value is None
