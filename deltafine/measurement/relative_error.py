"""Relative error: how far numbers are from those they should be, in units of how much these vary."""

from __future__ import annotations

import numpy as np

from deltafine.errors import DeltafineError

SMALLEST_SPREAD = 1e-3
"""The least spread that an output counts with, as a share of the largest: one that never varies must count too."""


class RelativeError:
    """Root mean square error / standard deviation of the targets.

    Output by output; then the root mean square of these. 0 is perfect; 1 is what the mean of the targets would score.
    Targets are the original model's predictions, or labels.
    """

    def __init__(self) -> None:
        self._count = 0
        self._origin = np.zeros(0)
        self._sum = np.zeros(0)
        self._squares = np.zeros(0)
        self._errors = np.zeros(0)

    def update(self, predictions: np.ndarray, targets: np.ndarray) -> None:
        """Add predictions and targets (frames, ..., outputs); positions of a map count as frames do."""
        aim = np.asarray(targets, np.float64).reshape(-1, targets.shape[-1])
        error = np.asarray(predictions, np.float64).reshape(aim.shape) - aim
        if not len(aim):
            return
        if not self._count:
            # Counted from a first value on, so that small changes of large numbers are not lost to rounding.
            self._origin = aim[0].copy()
            self._sum, self._squares, self._errors = (np.zeros(aim.shape[-1]) for _ in range(3))
        self._count += len(aim)
        self._sum += (aim - self._origin).sum(0)
        self._squares += ((aim - self._origin) ** 2).sum(0)
        self._errors += (error**2).sum(0)

    def result(self) -> float | None:
        """The error; None if nothing was added.

        Raises:
            DeltafineError: the targets never vary, so that no error is large or small.
        """
        if not self._count:
            return None
        variance = np.maximum(self._squares / self._count - (self._sum / self._count) ** 2, 0)
        if not variance.max():
            raise DeltafineError(
                "The numbers to be predicted are the same on every frame, so an error has nothing to be compared "
                "with: give videos in which they change."
            )
        spread = np.maximum(variance, SMALLEST_SPREAD**2 * variance.max())
        return float(np.sqrt(np.mean(self._errors / self._count / spread)))
