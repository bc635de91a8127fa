"""Error to labels: how far numbers are from labels that are numbers, in units of how much these vary."""

from __future__ import annotations

from deltafine.measurement.metric import Beside, Metric, Result, Shown, Subject
from deltafine.measurement.records import Record
from deltafine.measurement.relative_error import RelativeError


class LabelError(Metric):
    """Where the answers are numbers, and so are the labels; of several outputs those that have labels."""

    name = "label-error"

    def begin(self, subject: Subject) -> None:
        self._output = subject.output
        self._error = RelativeError(subject.output.parts, to_labels=True)

    def update(self, shown: Shown) -> None:
        if self._output.numbers:
            for _, predictions, labels in shown.answers.labelled():
                known = labels >= 0
                targets = self._output.targets(labels[known])
                self._error.update(predictions[known], targets, shown.answers.work_item)

    def record(self) -> Record:
        return self._error.record()

    def add(self, record: Record) -> None:
        self._error.add(record)

    def result(self, beside: Beside) -> Result:
        return Result({"label_error": self.value})

    @property
    def value(self) -> float | None:
        """None as long as nothing was labelled."""
        return self._error.result()

    def by_part(self) -> list[float | None]:
        """The error of each of several outputs; None for one without labels."""
        return self._error.by_part()

    def by_work_item(self) -> dict[int, float]:
        """The error of each video of streams, or batch of clips, in units of the spread of all."""
        return self._error.by_work_item()
