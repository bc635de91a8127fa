"""What the validation videos let expect of other recordings."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltafine.document.figures import Figures, NamedFigure
from deltafine.measurement.metric import Answered, Shown, Subject
from deltafine.measurement.output import Output
from deltafine.refinement.training.deviation import Deviation
from deltafine.refinement.training.validation import RECORDINGS, expected_quality
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
