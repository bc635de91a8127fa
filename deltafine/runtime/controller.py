"""Keeping what frames cost at a budget, by moving the number that all thresholds of a stream are multiplied with."""

from __future__ import annotations

import math

from deltafine.errors import DeltafineError

LEAST, MOST = 0.25, 8.0
"""How far the number may move: far below 1 nothing is gained any more, far above it little of the picture is left."""
GAIN = 0.05
"""By how much the logarithm of the number moves for each budget that a frame costs too much."""
NOTICEABLE = 0.02
"""A smaller move of that logarithm is not made yet."""

SMALLEST, LARGEST = 1e-6, 1e6
"""Of a number that is set by hand, so that no threshold leaves the range of single precision."""


def checked_sensitivity(value: float) -> float:
    """The number as it is.

    Raises:
        DeltafineError: thresholds cannot be multiplied with it.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not SMALLEST <= value <= LARGEST:
        raise DeltafineError(f"sensitivity is {value!r}: give a number from {SMALLEST:g} to {LARGEST:g}; 1 for none.")
    return float(value)


class Controller:
    """Keeps the mean of what frames cost at a budget.

    It sums up by how much frames are too expensive, and moves the logarithm of the sensitivity along. So over any
    stretch of frames their mean is off by no more than that logarithm has moved, divided by ``GAIN`` and by how many
    frames these are.

    Args:
        budget: what a frame may cost in the mean, above 0.

    Attributes:
        sensitivity: what to multiply thresholds with, from ``LEAST`` to ``MOST``; it begins with 1.
    """

    def __init__(self, budget: float) -> None:
        self.budget = budget
        self.sensitivity = 1.0
        self._exact = 0.0  # its logarithm, of which moves that are not noticeable are not made

    def saw(self, cost: float) -> bool:
        """Take note of what a frame has cost; returns whether the sensitivity has moved."""
        moved = self._exact + GAIN * (cost / self.budget - 1)
        self._exact = min(max(moved, math.log(LEAST)), math.log(MOST))
        now = math.log(self.sensitivity)
        at_end = self._exact != now and self._exact in (math.log(LEAST), math.log(MOST))
        if not at_end and abs(self._exact - now) < NOTICEABLE:
            return False
        self.sensitivity = math.exp(self._exact)
        return True


def check_budgets(ms: float | None, macs: float | None) -> None:
    """Refuse budgets that cannot be kept.

    Args:
        ms: milliseconds of a frame.
        macs: a share of the dense MACs of a frame.

    Raises:
        DeltafineError: both are given, or one is not a number that can be a budget.
    """
    if ms is not None and macs is not None:
        raise DeltafineError("budget_ms and budget_macs cannot both be kept: give one of them.")
    if ms is not None and not 0 < ms < math.inf:
        raise DeltafineError(f"budget_ms is {ms:g}: give milliseconds above 0.")
    if macs is not None and not 0 < macs <= 1:
        raise DeltafineError(f"budget_macs is {macs:g}: give a share of the dense MACs above 0, such as 0.05.")
