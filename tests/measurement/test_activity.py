"""Why little can be left out: what changes from frame to frame, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from deltafine.document.report import Activity
from deltafine.measurement.activity import activity_of
from deltafine.measurement.output import Output


def test_pixels_and_answers_that_change_are_counted() -> None:
    video = np.full((3, 2, 2, 3), 100, np.uint8)
    video[1:, 0, 0, 2] = 120  # one of four pixels, by more than 2% of 255, at one of two steps
    video[2, 1, :, 0] = 98  # two of four, by less, at the other
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]], "float32")
    found = activity_of([video], [scores], Output())
    assert found == Activity(moved=1 / 8, noisy=1 / 4, answers=1 / 2, numbers=False)


def test_numbers_change_in_units_of_their_spread() -> None:
    videos = [np.zeros((3, 1, 1, 1), "float32"), np.zeros((2, 1, 1, 1), "float32")]
    answers = [np.array([[0.0], [1.0], [3.0]]), np.array([[1.0], [0.0]])]
    spread = np.std([0, 1, 3, 1, 0])
    found = activity_of(videos, answers, Output("numbers"))
    assert found.answers == pytest.approx((1 + 2 + 1) / 3 / spread)
    assert (found.moved, found.noisy) == (0, 0)


def test_one_answer_for_a_clip_cannot_change_within_it() -> None:
    assert activity_of([np.zeros((4, 1, 1, 3))], [np.array([[0.5, 0.5]])], Output()).answers is None


@pytest.mark.parametrize(
    ("measured", "why"),
    [
        (Activity(moved=0.7, noisy=0.2, answers=0.4, numbers=False), "most of the picture moves"),
        (Activity(moved=0.1, noisy=0.8, answers=0.4, numbers=False), "the answers hardly ever stay"),
        (Activity(moved=0.1, noisy=0.8, answers=0.01, numbers=False), "noise changes most of the picture"),
        (Activity(moved=0.1, noisy=0.1, answers=None, numbers=True), "neither motion"),
    ],
)
def test_the_reason_is_what_changes_most(measured: Activity, why: str) -> None:
    assert measured.reason.startswith(why)
    assert f"{measured.moved:.0%} of the pixels change by more than 2% of their range" in measured.reason
