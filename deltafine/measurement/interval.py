"""Confidence intervals: bootstrap over videos, whose frames are not independent of each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deltafine.document.figures import Estimate

RESAMPLES = 2000


def share_with_interval(right: Sequence[int], of: Sequence[int], *, seed: int = 0) -> Estimate:
    """Sum of ``right`` / sum of ``of`` with its 95% percentile interval.

    Args:
        right: per video, how many were right (or, for a paired difference, right minus right of the other).
        of: per video, out of how many; at least one video has some.
        seed: of the resampling.

    Raises:
        ValueError: nothing to divide by.
    """
    numerators, denominators = np.asarray(right, np.int64), np.asarray(of, np.int64)
    if denominators.sum() == 0:
        raise ValueError("a share of nothing has no value")
    kept = denominators > 0
    numerators, denominators = numerators[kept], denominators[kept]
    videos = len(denominators)
    weights = np.random.default_rng(seed).multinomial(videos, np.full(videos, 1 / videos), size=RESAMPLES)
    shares = (weights @ numerators) / (weights @ denominators)
    low, high = np.quantile(shares, [0.025, 0.975])
    return Estimate(value=float(numerators.sum() / denominators.sum()), low=float(low), high=float(high))


def mean_with_interval(values: Sequence[float] | np.ndarray, *, seed: int = 0) -> Estimate:
    """Mean of one value for each video, with its 95% percentile interval.

    Args:
        values: at least one.
        seed: of the resampling.
    """
    numbers = np.asarray(values, np.float64)
    videos = len(numbers)
    weights = np.random.default_rng(seed).multinomial(videos, np.full(videos, 1 / videos), size=RESAMPLES)
    low, high = np.quantile(weights @ numbers / videos, [0.025, 0.975])
    return Estimate(value=float(numbers.mean()), low=float(low), high=float(high))
