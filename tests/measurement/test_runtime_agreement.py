"""Answers of several runtimes, compared with one of them and with labels; against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from deltafine.jobs.agreement import RuntimeAgreement, answers_by_label
from deltafine.jobs.answers import OutputKind

FRAMES = 12
CLASSES = OutputKind("scores", "classes")


def heard(answers: dict[str, np.ndarray], labels: list[float | None], *, of_classes: bool) -> RuntimeAgreement:
    """In turns of five frames, as runtimes take them."""
    found = RuntimeAgreement(answers, "dense", of_classes=of_classes, labels=labels)
    for begin in range(0, FRAMES, 5):
        for name, values in answers.items():
            for value in values[begin : begin + 5]:
                found.heard(name, value)
    return found


some_labels = st.lists(st.none() | st.integers(0, 2), min_size=FRAMES, max_size=FRAMES)


@given(arrays.arrays(np.float32, (2, FRAMES, 3), elements=st.floats(0, 1, width=32)), some_labels)
def test_accuracy_is_the_share_of_frames_with_a_label_that_get_it(scores: np.ndarray, labels: Any) -> None:
    found = heard({"ours": scores[0], "dense": scores[1]}, labels, of_classes=True)
    known = [number for number, label in enumerate(labels) if label is not None]
    for name, of_one in zip(("ours", "dense"), scores, strict=True):
        right = [of_one[number].argmax() == labels[number] for number in known]
        assert found.accuracy(name) == (pytest.approx(np.mean(right)) if known else None)
        assert found.label_error(name) is None
    assert found.fidelity("ours") == pytest.approx(np.mean(scores[0].argmax(-1) == scores[1].argmax(-1)))


@given(
    arrays.arrays(np.float64, (2, FRAMES, 1), elements=st.floats(-10, 10)),
    arrays.arrays(np.float64, FRAMES, elements=st.floats(-10, 10), unique=True),
)
def test_the_error_of_numbers_is_in_units_of_the_spread_of_the_labels(values: np.ndarray, labels: np.ndarray) -> None:
    if labels.std() < 1e-3:
        return
    found = heard({"ours": values[0], "dense": values[1]}, labels.tolist(), of_classes=False)
    for name, of_one in zip(("ours", "dense"), values, strict=True):
        expected = np.sqrt(np.mean((of_one[:, 0] - labels) ** 2)) / labels.std()
        assert found.label_error(name) == pytest.approx(expected)
        assert found.accuracy(name) is None


def test_labels_are_told_from_classes_by_their_names() -> None:
    named = OutputKind("scores", "classes", ("cat", "dog", "owl"))
    assert answers_by_label(["owl", "cat", "cow"], named, 3) == [2, 0, None]


def test_without_names_the_order_of_as_many_classes_counts() -> None:
    assert answers_by_label(["a", "b", "c"], CLASSES, 3) == [0, 1, 2]
    assert answers_by_label(["a", "b"], CLASSES, 3) == [None, None]


def test_labels_of_one_number_are_numbers() -> None:
    number = OutputKind("angle", "numbers")
    assert answers_by_label(["-0.5", "2"], number, 1) == [-0.5, 2.0]
    assert answers_by_label(["-0.5", "2"], number, 4) == [None, None]
    assert answers_by_label(["left", "right"], number, 1) == [None, None]


def test_maps_have_no_label_of_a_frame() -> None:
    found = RuntimeAgreement(["dense"], "dense", of_classes=True, labels=[1])
    found.heard("dense", np.zeros((4, 4, 3)))
    assert found.accuracy("dense") is None
