"""Bits that a quantised activation needs."""

from __future__ import annotations

import math


def bits(lowest: float, highest: float) -> int | None:
    """ceil(log2(levels)), the levels being those from the lowest to the highest that occurred, in thresholds.

    None where a level is not finite.
    """
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        return None
    return math.ceil(math.log2(highest - lowest + 1))
