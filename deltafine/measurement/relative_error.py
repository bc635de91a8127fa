"""Relative error: how far numbers are from those they should be, in units of how much these vary."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from deltafine.errors import DeltafineError
from deltafine.measurement.records import Record

SMALLEST_SPREAD = 1e-3
"""The least spread that an output counts with, as a share of the largest: one that never varies must count too."""


class RelativeError:
    """Root mean square error / standard deviation of the targets.

    Output by output; then the root mean square of these. 0 is perfect; 1 is what the mean of the targets would score.
    Targets are the original model's predictions, or labels.
    """

    def __init__(self) -> None:
        self._by_work_item: dict[int, _Sums] = {}

    def update(self, predictions: np.ndarray, targets: np.ndarray, work_item: int = 0) -> None:
        """Add predictions and targets (frames, ..., outputs); positions of a map count as frames do."""
        aim = np.asarray(targets, np.float64).reshape(-1, targets.shape[-1])
        error = np.asarray(predictions, np.float64).reshape(aim.shape) - aim
        if not len(aim):
            return
        if work_item not in self._by_work_item:
            # Counted from a first value on, so that small changes of large numbers are not lost to rounding.
            self._by_work_item[work_item] = _Sums(0, aim[0].copy(), *(np.zeros(aim.shape[-1]) for _ in range(3)))
        sums = self._by_work_item[work_item]
        sums.count += len(aim)
        sums.sum += (aim - sums.origin).sum(0)
        sums.squares += ((aim - sums.origin) ** 2).sum(0)
        sums.errors += (error**2).sum(0)

    def record(self) -> Record:
        """Everything added up, for :meth:`add` of another one."""
        work_items = sorted(self._by_work_item)
        sums = [self._by_work_item[item] for item in work_items]
        return {
            "work_item": np.array(work_items, np.int64),
            "count": np.array([one.count for one in sums]),
            "origin": np.array([one.origin for one in sums]),
            "sum": np.array([one.sum for one in sums]),
            "squares": np.array([one.squares for one in sums]),
            "errors": np.array([one.errors for one in sums]),
        }

    def add(self, record: Record) -> None:
        """Add what another one has added up."""
        columns = (record[name] for name in ("origin", "sum", "squares", "errors"))
        for item, count, *sums in zip(record["work_item"].tolist(), record["count"].tolist(), *columns, strict=True):
            other, known = _Sums(count, *sums), self._by_work_item.get(item)
            self._by_work_item[item] = other if known is None else known.with_another(other)

    def result(self) -> float | None:
        """The error; None if nothing was added.

        Raises:
            DeltafineError: the targets never vary, so that no error is large or small.
        """
        return self.of(self._sums().errors) if self._by_work_item else None

    def by_work_item(self) -> dict[int, float]:
        """The error of each work item by itself, in units of the spread of all targets.

        Raises:
            DeltafineError: as ``result``.
        """
        whole = self._sums().count if self._by_work_item else 0
        return {item: self.of(sums.errors * whole / sums.count) for item, sums in sorted(self._by_work_item.items())}

    def of(self, errors: np.ndarray) -> float:
        """The error that sums of squared errors (outputs,) of other predictions of the same targets amount to.

        Raises:
            DeltafineError: as ``result``.
        """
        sums = self._sums()
        variance = np.maximum(sums.squares / sums.count - (sums.sum / sums.count) ** 2, 0)
        if not variance.max():
            raise DeltafineError(
                "The numbers to be predicted are the same on every frame, so an error has nothing to be compared "
                "with: give videos in which they change."
            )
        spread = np.maximum(variance, SMALLEST_SPREAD**2 * variance.max())
        return float(np.sqrt(np.mean(errors / sums.count / spread)))

    def _sums(self) -> _Sums:
        first, *others = (self._by_work_item[work_item] for work_item in sorted(self._by_work_item))
        return functools.reduce(_Sums.with_another, others, first)


@dataclass(slots=True)
class _Sums:
    """Over targets (count, outputs), less ``origin``: the sum, that of squares, and that of squared errors."""

    count: int
    origin: np.ndarray
    sum: np.ndarray
    squares: np.ndarray
    errors: np.ndarray

    def with_another(self, other: _Sums) -> _Sums:
        away = other.origin - self.origin
        return _Sums(
            self.count + other.count,
            self.origin,
            self.sum + other.sum + other.count * away,
            self.squares + other.squares + 2 * away * other.sum + other.count * away**2,
            self.errors + other.errors,
        )
