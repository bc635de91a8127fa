"""Outputs that are numbers: their error, and how the report speaks of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltafine.errors import DeltafineError
from deltafine.measurement.label_error import LabelError
from deltafine.measurement.metric import Answered, Shown, Subject
from deltafine.measurement.output import Output
from deltafine.measurement.relative_error import SMALLEST_SPREAD, RelativeError
from deltafine.measurement.window_accuracy import WindowAccuracy

NUMBERS = st.floats(-100, 100, width=32)
PAIRS = st.lists(st.tuples(st.tuples(NUMBERS, NUMBERS), st.tuples(NUMBERS, NUMBERS)), min_size=2, max_size=12)


def after(metric, output, answers):
    """A metric of answers alone, having seen some."""
    metric.begin(Subject(probe=None, output=output))
    metric.update(Shown(piece=None, answers=answers))
    return metric


@settings(max_examples=60, deadline=None)
@given(PAIRS, st.integers(1, 5))
def test_the_error_is_that_of_each_output_over_its_spread_in_whatever_parts(pairs, part):
    predictions, targets = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])
    error = RelativeError()
    for begin in range(0, len(pairs), part):
        error.update(predictions[begin : begin + part], targets[begin : begin + part])
    spread = targets.std(0)
    if spread.max() < 1e-3:
        return
    spread = np.maximum(spread, SMALLEST_SPREAD * spread.max())
    of_outputs = np.sqrt(((predictions - targets) ** 2).mean(0)) / spread
    assert error.result() == pytest.approx(np.sqrt((of_outputs**2).mean()), rel=1e-6)


def test_positions_of_a_map_count_as_frames_do():
    generator = np.random.default_rng(0)
    predictions, targets = generator.normal(size=(2, 5, 4, 3, 2))
    whole, flat = RelativeError(), RelativeError()
    whole.update(predictions, targets)
    flat.update(predictions.reshape(-1, 2), targets.reshape(-1, 2))
    assert whole.result() == flat.result()


def test_a_large_offset_does_not_hide_a_small_change():
    targets = np.array([[1e8], [1e8 + 1]])
    error = RelativeError()
    error.update(targets + 0.5, targets)
    assert error.result() == pytest.approx(1.0)


def test_an_output_that_never_varies_counts_if_it_is_wrong():
    targets = np.array([[0.0, 5.0], [2.0, 5.0]])
    error = RelativeError()
    error.update(targets + np.array([0.0, 0.001]), targets)
    assert error.result() == pytest.approx(np.sqrt((0 + 1) / 2))


def test_without_anything_there_is_no_error_and_without_spread_none_is_large_or_small():
    assert RelativeError().result() is None
    error = RelativeError()
    error.update(np.ones((3, 1)), np.zeros((3, 1)))
    with pytest.raises(DeltafineError, match="the same on every frame"):
        error.result()


def test_a_single_logit_becomes_a_probability_and_nothing_else_is_changed():
    logits = np.array([[-1.0], [0.0], [2.0]])
    np.testing.assert_allclose(Output(probabilities=False).scores(logits), 1 / (1 + np.exp(-logits)))
    for output in (Output(), Output("numbers", probabilities=False)):
        np.testing.assert_array_equal(output.scores(logits), logits)
    several = np.array([[-1.0, 3.0]])
    np.testing.assert_array_equal(Output(probabilities=False).scores(several), several)


@pytest.mark.parametrize(("head", "right"), [("mean", 0.0), ("last", 1.0), ("per-frame", None)])
def test_what_stands_for_a_clip_is_what_the_head_says(head, right):
    predictions = np.array([[[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]]])
    answers = Answered(predictions, np.ones((1, 3), int), np.array([0]), clip_labels=np.array([1]))
    found = after(WindowAccuracy(), Output(clip_output=head), answers).value
    assert (None if found is None else found.value) == right


def test_labels_that_are_numbers_are_compared_where_there_are_some():
    answers = Answered(np.array([[[1.0], [99.0], [10.0]]]), np.array([[0, -1, 1]]), np.array([0]))
    # Off by 1 and by 0; the labels 0 and 10 deviate by 5.
    error = after(LabelError(), Output("numbers", values=(0.0, 10.0)), answers).value
    assert error == pytest.approx(np.sqrt(0.5) / 5)
