"""Confidence intervals: bootstrap over recordings, whose frames are not independent of each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deltafine.document.figures import Estimate

RESAMPLES = 2000


def share_with_interval(
    right: Sequence[int], of: Sequence[int], *, recordings: Sequence[str] | None = None, seed: int = 0
) -> Estimate:
    """Sum of ``right`` / sum of ``of`` with its 95% percentile interval.

    Args:
        right: per video, how many were right (or, for a paired difference, right minus right of the other).
        of: per video, out of how many; at least one video has some.
        recordings: per video, the same for all that are drawn together; default: each video is drawn by itself.
        seed: of the resampling.

    Raises:
        ValueError: nothing to divide by.
    """
    numerators, denominators = np.asarray(right, np.int64), np.asarray(of, np.int64)
    if denominators.sum() == 0:
        raise ValueError("a share of nothing has no value")
    value = float(numerators.sum() / denominators.sum())
    if recordings is not None:
        number = {recording: place for place, recording in enumerate(dict.fromkeys(recordings))}
        places = np.array([number[recording] for recording in recordings])
        sums = np.zeros((len(number), 2), np.int64)
        np.add.at(sums, places, np.stack([numerators, denominators], axis=1))
        numerators, denominators = sums.T
    kept = denominators > 0
    numerators, denominators = numerators[kept], denominators[kept]
    drawn = len(denominators)
    weights = np.random.default_rng(seed).multinomial(drawn, np.full(drawn, 1 / drawn), size=RESAMPLES)
    shares = (weights @ numerators) / (weights @ denominators)
    low, high = np.quantile(shares, [0.025, 0.975])
    return Estimate(value=value, low=float(low), high=float(high))


def mean_with_interval(
    values: Sequence[float] | np.ndarray, *, recordings: Sequence[str] | None = None, seed: int = 0
) -> Estimate:
    """Mean of one value for each video, with its 95% percentile interval.

    Args:
        values: at least one.
        recordings: per video, the same for all that are drawn together; default: each video is drawn by itself.
        seed: of the resampling.
    """
    numbers = np.asarray(values, np.float64)
    sums, of = numbers, np.ones(len(numbers), np.float64)
    if recordings is not None:
        number = {recording: place for place, recording in enumerate(dict.fromkeys(recordings))}
        places = [number[recording] for recording in recordings]
        sums, of = (np.asarray(np.bincount(places, one), np.float64) for one in (numbers, of))
    drawn = len(sums)
    weights = np.random.default_rng(seed).multinomial(drawn, np.full(drawn, 1 / drawn), size=RESAMPLES)
    low, high = np.quantile((weights @ sums) / (weights @ of), [0.025, 0.975])
    return Estimate(value=float(numbers.mean()), low=float(low), high=float(high))
