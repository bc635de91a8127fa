"""The task loss, against the same in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from deltafine.measurement.output import are_probabilities
from deltafine.refinement.training.losses import ClassificationLoss, RegressionLoss

BATCH, TIME, CLASSES = 3, 4, 5


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def logits(seed: int, classes: int = CLASSES) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, (BATCH, TIME, classes))


def expected(p: np.ndarray, t: np.ndarray | None, labels: np.ndarray, distill: float) -> float:
    """Frame by frame: cross-entropy where there is a label, and the divergence from the original's answer."""
    labels = np.broadcast_to(labels[:, None], p.shape[:2]) if labels.ndim == 1 else labels
    terms, count = 0.0, 0
    for index in np.ndindex(p.shape[:2]):
        label = labels[index]
        cross_entropy = -np.log(p[index][label]) if label >= 0 else 0.0
        if t is None:
            terms += cross_entropy
            count += label >= 0
            continue
        divergence = np.sum(t[index] * np.log(t[index] / p[index]))
        share = distill if label >= 0 else 1.0
        terms += share * divergence + (1 - share) * cross_entropy
        count += 1
    return terms / max(1, count)


@pytest.mark.parametrize("probabilities", [True, False])
@pytest.mark.parametrize("distill", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("labels", [[0, 4, 2], [0, -1, 2], [-1, -1, -1]])
def test_the_loss_is_cross_entropy_and_divergence_frame_by_frame(
    probabilities: bool, distill: float, labels: list[int]
) -> None:
    student, original = logits(0), logits(1)
    given = [softmax(values) if probabilities else values for values in (student, original)]
    loss = ClassificationLoss(probabilities, distill)
    found = loss(given[0], given[1] if distill else None, np.array(labels))
    teacher = softmax(original) if distill else None
    assert float(found) == pytest.approx(expected(softmax(student), teacher, np.array(labels), distill), rel=1e-5)


def test_labels_of_frames_count_each_for_its_own_frame() -> None:
    labels = np.array([[0, 1, -1, 2], [3, 3, 3, 3], [-1, -1, -1, 4]])
    found = ClassificationLoss(False, 0.0)(logits(0), None, labels)
    assert float(found) == pytest.approx(expected(softmax(logits(0)), None, labels, 0.0), rel=1e-5)


@pytest.mark.parametrize("probabilities", [True, False])
def test_a_single_output_is_the_probability_of_the_second_class(probabilities: bool) -> None:
    values = logits(0, classes=1)
    yes = 1 / (1 + np.exp(-values))
    labels = np.array([0, 1, 1])
    found = ClassificationLoss(probabilities, 0.0)(yes if probabilities else values, None, labels)
    assert float(found) == pytest.approx(expected(np.concatenate([1 - yes, yes], -1), None, labels, 0.0), rel=1e-4)


def test_certainty_in_the_wrong_class_costs_much_but_not_infinitely() -> None:
    certain = np.zeros((1, 2, 3))
    certain[..., 0] = 1
    found = float(ClassificationLoss(True, 0.0)(certain, None, np.array([1])))
    assert 10 < found < 100


@pytest.mark.parametrize(
    ("predictions", "answer"),
    [
        (softmax(logits(0)), True),
        (logits(0), False),
        (np.full((2, 4), 0.3), False),
        (np.array([[0.2], [0.9]]), True),
        (np.array([[0.2], [1.9]]), False),
    ],
)
def test_probabilities_are_told_from_logits(predictions: np.ndarray, answer: bool) -> None:
    assert are_probabilities(predictions) is answer


@pytest.mark.parametrize("values", [(), (0.0, 1.0, 5.0)])
@pytest.mark.parametrize("distill", [0.0, 0.25, 1.0])
def test_numbers_lose_half_the_squared_error_over_the_variance(values: tuple[float, ...], distill: float) -> None:
    original, student = logits(1, 1), logits(0, 1)
    loss = RegressionLoss(original.reshape(-1, 1), distill, values)
    labels = np.array([2, -1, 0])
    variance, expected = original.var(), []
    for clip, frame in np.ndindex(BATCH, TIME):
        to_teacher = (student[clip, frame, 0] - original[clip, frame, 0]) ** 2 / variance / 2
        share = 1.0
        if values and labels[clip] >= 0:
            share = distill
            to_label = (student[clip, frame, 0] - values[labels[clip]]) ** 2 / variance / 2
        expected.append(share * to_teacher + (1 - share) * (to_label if share < 1 else 0.0))
    assert float(loss(student, original, labels)) == pytest.approx(np.mean(expected), rel=1e-5)
    assert loss.divergence(original[0], student[0]) == pytest.approx(
        np.mean((student[0] - original[0]) ** 2) / variance / 2, rel=1e-5
    )


def test_each_number_is_taken_by_its_own_spread_and_maps_by_position() -> None:
    original = np.random.default_rng(0).normal(0, [1.0, 100.0], (4, 3, 2, 2, 2))
    loss = RegressionLoss(original.reshape(-1, 2, 2, 2))
    off = original + original.reshape(-1, 2).std(0)
    assert float(loss(off, original, np.full(4, -1))) == pytest.approx(0.5, rel=1e-4)


def test_a_map_of_classes_follows_the_original_position_by_position() -> None:
    student, original = (np.random.default_rng(seed).normal(0, 1, (2, 3, 4, 5, 6)) for seed in range(2))
    p, t = softmax(student), softmax(original)
    found = ClassificationLoss(True, 1.0)(p, t, np.array([-1, -1]))
    assert float(found) == pytest.approx(np.mean(np.sum(t * np.log(t / p), -1)), rel=1e-5)
