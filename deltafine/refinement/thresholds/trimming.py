"""After training: one factor on all thresholds, so that a budget is met exactly and not by luck.

Density falls steadily as all thresholds grow, so bisection on the logarithm of the factor finds the place; each try
is a measurement on the validation streams.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from deltafine.document.history import FrontPoint
from deltafine.refinement.thresholds.budget import Budget

MOST_TRIES = 7
LARGEST_SCALE = 4.0
CLOSE = 0.02
"""Near enough to stop, relative."""

Try = Callable[[float], FrontPoint]
"""Measures the network with all thresholds multiplied by a factor."""


def to_density(budget: Budget, point: FrontPoint, measure: Try) -> list[FrontPoint]:
    """Factors on the thresholds of ``point`` that lead its density to the target; what was measured on the way.

    A factor is sought between 1/4 and 4. The density is taken as a power of the factor between the two nearest
    tries, which takes three or four tries where bisection takes seven.
    """
    assert budget.density is not None
    tried: list[FrontPoint] = []
    ends: dict[str, tuple[float, float]] = {}  # side -> (log factor, log density / target)
    factor, now = 0.0, excess(budget, point)
    while abs(now) > math.log1p(CLOSE) and len(tried) < MOST_TRIES:
        ends["below" if now < 0 else "above"] = (factor, now)
        if len(ends) == 2:
            (left, low), (right, high) = ends["above"], ends["below"]
            factor = left + (right - left) * min(0.9, max(0.1, low / (low - high)))
        else:
            factor += max(-0.7, min(0.7, now))  # density ~ 1 / factor, for a first guess
        if abs(factor) > math.log(LARGEST_SCALE):
            break
        tried.append(measure(math.exp(factor)))
        now = excess(budget, tried[-1])
    return tried


def to_accuracy(floor: float, measure: Try) -> list[FrontPoint]:
    """The largest factor on the thresholds, between 1 and 4, that keeps accuracy at ``floor``; what was measured.

    Accuracy falls with growing thresholds, but not steadily; what is found holds the floor, and something a tenth
    coarser that was tried did not.
    """
    low, high = 0.0, math.log(LARGEST_SCALE)
    factor = high / 3
    tried: list[FrontPoint] = []
    while high - low > math.log(1.1) and len(tried) < MOST_TRIES:
        tried.append(measure(math.exp(factor)))
        if tried[-1].judged >= floor:
            low = factor
        else:
            high = factor
        factor = (low + high) / 2
    return tried


def excess(budget: Budget, point: FrontPoint) -> float:
    """Logarithm of density / target; a density of 0 counts as the smallest that matters."""
    assert budget.density is not None
    return math.log(max(budget.density_of(point), 1e-9) / budget.density)
