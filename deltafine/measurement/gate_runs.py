"""Which frames a motion gate lets through, compiled: where numba is installed."""

from __future__ import annotations

import numpy as np

from deltafine.runtime.kernels import entry, kernel


@kernel
def _sum_of_differences(one: np.ndarray, other: np.ndarray) -> int:
    total = 0
    for place in range(len(one)):
        total += int(abs(np.int32(one[place]) - np.int32(other[place])))
    return total


@entry
def follow(frames: np.ndarray, before: np.ndarray, last: np.ndarray, thresholds: np.ndarray, ran: np.ndarray) -> None:
    """As ``motion_gate.follow``."""
    rows, size = before.shape
    for number in range(len(frames)):
        compared, difference = -2, 0.0
        for way in range(len(thresholds)):
            if last[way] != compared:  # thresholds ascend: those that ran last on one frame stand side by side
                compared, difference = last[way], np.inf
                if compared >= 0:
                    other = before[compared] if compared < rows else frames[compared - rows]
                    difference = _sum_of_differences(frames[number], other) / size
            if difference > thresholds[way]:
                last[way] = rows + number
            ran[way, number] = last[way]
