"""Labels that are quantities, such as an angle, and not the names of classes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np


def values_of(classes: Sequence[str]) -> tuple[float, ...]:
    """What labels stand for that are numbers, not all of them 0, 1, 2, ...; () where they name classes."""
    if all(re.fullmatch(r"[0-9]+", name) for name in classes):
        return ()
    return numbers_of(classes)


def numbers_of(classes: Sequence[str]) -> tuple[float, ...]:
    """What labels stand for that all are numbers; () where one is not."""
    try:
        return tuple(float(name) for name in classes)
    except ValueError:
        return ()


def label_of(labels: np.ndarray, values: Sequence[float] = (), *, in_rows: bool = False) -> int:
    """What stands for a clip whose frames have labels of their own; -1 when none has one.

    That is the commonest, the lowest of several; or, where labels stand for these values, that of the middle number;
    or, where they are rows of labels of several outputs, that of the middle one of the frames.
    """
    known = labels[labels >= 0]
    if not len(known):
        return -1
    if in_rows:
        return int(known[(len(known) - 1) // 2])
    if not values:
        return int(np.bincount(known).argmax())
    order = np.argsort(np.asarray(values, np.float64)[known], kind="stable")
    return int(known[order[(len(known) - 1) // 2]])


def spread_of(values: Sequence[float], counts: np.ndarray) -> str:
    """Least, greatest, mean and standard deviation of numbers that occur so often."""
    numbers = np.asarray(values, np.float64)[counts > 0]
    weights = counts[counts > 0]
    if not len(numbers):
        return "none"
    mean = float(np.average(numbers, weights=weights))
    deviation = math.sqrt(float(np.average((numbers - mean) ** 2, weights=weights)))
    return f"{numbers.min():.4g} to {numbers.max():.4g}, mean {mean:.4g}, standard deviation {deviation:.4g}"
