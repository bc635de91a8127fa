"""Scores as a user would write them, and functions that are none."""

from __future__ import annotations

from typing import Any

import numpy as np


def balanced(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy averaged over the classes of a video."""
    right = predictions.argmax(-1) == labels
    return float(np.mean([right[labels == one].mean() for one in np.unique(labels)]))


def nearness(predictions: np.ndarray, original: np.ndarray) -> Any:
    """1 - mean absolute difference, as a NumPy number."""
    return 1 - np.abs(predictions - original).mean()


def steadiness(predictions: np.ndarray, labels: np.ndarray) -> float:
    """How rarely the answer changes: 1 for a network that stands still, whatever it says."""
    answers = predictions.argmax(-1)
    return 1 - float((answers[1:] != answers[:-1]).mean())


def minus_error(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Of numbers: minus the mean absolute error."""
    assert predictions.shape == labels.shape
    return -float(np.abs(predictions - labels).mean())


def empty(predictions: np.ndarray, labels: np.ndarray) -> float:
    return float("nan")


def words(predictions: np.ndarray, labels: np.ndarray) -> str:
    return "good"


def per_frame(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return (predictions.argmax(-1) == labels).astype(float)


def failing(predictions: np.ndarray, labels: np.ndarray) -> float:
    raise KeyError("boxes")


def changing(predictions: np.ndarray, labels: np.ndarray) -> float:
    predictions[:] = 0
    return 0.0


class Scorer:
    pass


number = 3
