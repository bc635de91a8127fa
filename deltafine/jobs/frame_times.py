"""Percentiles of how long frames took, by one definition wherever they are shown.

The p-th percentile is the nearest rank: the shortest time that at least p percent of the frames did not exceed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence


def percentile(milliseconds: Sequence[float], percent: float) -> float:
    """Of times that are all at hand.

    Raises:
        ValueError: there are none.
    """
    return _ranked(Counter(milliseconds), percent)


class FrameTimes:
    """Times of any number of frames, in memory that does not grow with it: they are kept to three digits."""

    def __init__(self) -> None:
        self._counted: Counter[float] = Counter()
        self.count = 0

    def add(self, milliseconds: float) -> None:
        self._counted[float(f"{milliseconds:.2e}")] += 1
        self.count += 1

    def percentile(self, percent: float) -> float:
        """See ``percentile``."""
        return _ranked(self._counted, percent)


def _ranked(counted: Mapping[float, int], percent: float) -> float:
    rank = max(1, math.ceil(percent / 100 * sum(counted.values()) - 1e-9))
    for value in sorted(counted):
        rank -= counted[value]
        if rank <= 0:
            return value
    raise ValueError("there are no times")
