"""Relative error: how far numbers are from those they should be, in units of how much these vary."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deltafine.errors import DeltafineError
from deltafine.measurement.parts import SMALLEST_SPREAD, OutputPart, floored, split
from deltafine.measurement.records import Record, inner_record, nested

NEVER_VARIES = (
    "The numbers to be predicted are the same on every frame, so an error has nothing to be compared with: give videos "
    "in which they change."
)


class RelativeError:
    """Root mean square error / standard deviation of the targets.

    Number by number; then the root mean square of these. 0 is perfect; 1 is what the mean of the targets would score.
    Targets are the original model's predictions, or labels.

    Args:
        parts: of a model with several outputs, whose predictions are laid out. Each output then has an error of its
            own, in units of its own spread, and the whole is the root of the mean of their squares by weight.
        to_labels: whether targets are labels, NaN where an output has none. What has no label is left out, and so is
            an output without any. Scores of classes share one spread: a class that is rare is no scale.
    """

    def __init__(self, parts: Sequence[OutputPart] = (), *, to_labels: bool = False) -> None:
        self._parts = tuple(parts)
        self._to_labels = to_labels
        self._errors = [_ErrorOfOne(as_one=self._of_classes(part)) for part in self._parts or (None,)]

    def update(self, predictions: np.ndarray, targets: np.ndarray, work_item: int = 0) -> None:
        """Add predictions and targets (frames, ..., outputs); positions of a map count as frames do."""
        given = np.asarray(predictions).reshape(targets.shape)
        for error, ours, aim in zip(self._errors, self._apart(given), self._apart(targets), strict=True):
            if self._to_labels and self._parts:
                known = ~np.isnan(aim).reshape(len(aim), -1).any(axis=1)
                ours, aim = ours[known], aim[known]
            error.update(ours, aim, work_item)

    def record(self) -> Record:
        """Everything added up, for :meth:`add` of another one."""
        return nested({str(place): error.record() for place, error in enumerate(self._errors)})

    def add(self, record: Record) -> None:
        """Add what another one has added up."""
        for place, error in enumerate(self._errors):
            error.add(inner_record(record, str(place)))

    def result(self) -> float | None:
        """The error; None if nothing was added.

        Raises:
            DeltafineError: the targets never vary, so that no error is large or small.
        """
        return self._whole([error.result(several=bool(self._parts)) for error in self._errors])

    def by_part(self) -> list[float | None]:
        """The error of each of several outputs; None if nothing was added."""
        return [error.result(several=True) for error in self._errors] if self._parts else []

    def by_work_item(self) -> dict[int, float]:
        """The error of each work item by itself, in units of the spread of all targets.

        Raises:
            DeltafineError: as ``result``.
        """
        found = [error.by_work_item(several=bool(self._parts)) for error in self._errors]
        items = sorted(set().union(*found))
        whole = {item: self._whole([of_part.get(item) for of_part in found]) for item in items}
        return {item: error for item, error in whole.items() if error is not None}

    def of(self, errors: np.ndarray) -> float:
        """The error that sums of squared errors (outputs,) of other predictions of the same targets amount to.

        Raises:
            DeltafineError: as ``result``.
        """
        summed = [errors]
        if self._parts:
            summed = [one.reshape(-1, one.shape[-1]).sum(0) for one in split(errors, self._parts)]
        pairs = zip(self._errors, summed, strict=True)
        found = self._whole([error.of(one, several=bool(self._parts)) for error, one in pairs])
        assert found is not None
        return found

    def _of_classes(self, part: OutputPart | None) -> bool:
        return self._to_labels and part is not None and part.labels is not None and part.labels.classes > 0

    def _apart(self, values: np.ndarray) -> list[np.ndarray]:
        return split(values, self._parts) if self._parts else [values]

    def _whole(self, errors: Sequence[float | None]) -> float | None:
        if not self._parts:
            return errors[0]
        rows = zip(self._parts, self._errors, errors, strict=True)
        known = [(part.weight, of_part, error) for part, of_part, error in rows if error is not None]
        if not known:
            return None
        if not any(of_part.varies for _, of_part, _ in known):
            raise DeltafineError(NEVER_VARIES)
        weights = np.array([weight for weight, _, _ in known])
        if not weights.any():  # of outputs that nothing is to follow, all count the same
            weights = np.ones(len(known))
        return float(np.sqrt(np.average(np.square([error for _, _, error in known]), weights=weights)))


class _ErrorOfOne:
    """The relative error of one output; ``several``: whether it stands beside others, see ``parts.floored``.

    Args:
        as_one: whether all of its numbers share one spread.
    """

    def __init__(self, *, as_one: bool = False) -> None:
        self._by_work_item: dict[int, _Sums] = {}
        self._as_one = as_one

    def update(self, predictions: np.ndarray, targets: np.ndarray, work_item: int) -> None:
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
        columns = (record[name] for name in ("origin", "sum", "squares", "errors"))
        for item, count, *sums in zip(record["work_item"].tolist(), record["count"].tolist(), *columns, strict=True):
            other, known = _Sums(count, *sums), self._by_work_item.get(item)
            self._by_work_item[item] = other if known is None else known.with_another(other)

    def result(self, *, several: bool) -> float | None:
        return self.of(self._sums().errors, several=several) if self._by_work_item else None

    def by_work_item(self, *, several: bool) -> dict[int, float | None]:
        whole = self._sums().count if self._by_work_item else 0
        return {
            item: self.of(sums.errors * whole / sums.count, several=several)
            for item, sums in sorted(self._by_work_item.items())
        }

    def of(self, errors: np.ndarray, *, several: bool) -> float | None:
        if not self._by_work_item and several:
            return None
        sums, variance = self._sums(), self._variance
        if self._as_one:
            variance = np.full_like(variance, variance.mean())
        if several:
            mean = sums.origin + sums.sum / sums.count
            spread = floored(variance, variance + mean**2)
        elif not variance.max():
            raise DeltafineError(NEVER_VARIES)
        else:
            spread = np.maximum(variance, SMALLEST_SPREAD**2 * variance.max())
        return float(np.sqrt(np.mean(errors / sums.count / spread)))

    @property
    def varies(self) -> bool:
        return bool(self._variance.max())

    @property
    def _variance(self) -> np.ndarray:
        sums = self._sums()
        return np.maximum(sums.squares / sums.count - (sums.sum / sums.count) ** 2, 0)

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
