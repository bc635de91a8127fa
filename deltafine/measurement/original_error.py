"""Relative error: how far numbers are from those that the original predicts, in units of how much these vary."""

from __future__ import annotations

from deltafine.measurement.metric import Beside, Metric, Result, Shown, Subject
from deltafine.measurement.records import Record
from deltafine.measurement.relative_error import RelativeError


class OriginalError(Metric):
    """Where the answers are numbers, and the original is measured too."""

    name = "original-error"

    def begin(self, subject: Subject) -> None:
        self._judged = subject.output.numbers
        self._error = RelativeError(subject.output.parts)

    def update(self, shown: Shown) -> None:
        answers = shown.answers
        if self._judged and answers.original is not None:
            for predictions, original in zip(answers.predictions, answers.original, strict=True):
                self._error.update(predictions, original, answers.work_item)

    def record(self) -> Record:
        return self._error.record()

    def add(self, record: Record) -> None:
        self._error.add(record)

    def result(self, beside: Beside) -> Result:
        return Result({"relative_error": self.value})

    @property
    def value(self) -> float | None:
        """None as long as nothing was compared."""
        return self._error.result()

    def by_part(self) -> list[float | None]:
        """The error of each of several outputs; None for one that never varies."""
        return self._error.by_part()

    def by_work_item(self) -> dict[int, float]:
        """The error of each video of streams, or batch of clips, in units of the spread of all."""
        return self._error.by_work_item()
