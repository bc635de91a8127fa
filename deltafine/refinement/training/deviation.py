"""How far numbers are from those of the original, in units of how much the labels vary, as their error is."""

from __future__ import annotations

from deltafine.document.figures import NamedFigure
from deltafine.measurement.metric import Beside, Metric, Result, Shown, Subject
from deltafine.measurement.records import Record
from deltafine.measurement.relative_error import RelativeError


class Deviation(Metric):
    """Where numbers have labels and the original is measured too; over frames with a label."""

    name = "deviation"

    def begin(self, subject: Subject) -> None:
        self._output = subject.output
        self._error = RelativeError()

    def update(self, shown: Shown) -> None:
        original = shown.answers.of_original()
        if not (self._output.numbers and self._output.values) or original is None:
            return
        rows = zip(shown.answers.labelled(), original.labelled(), strict=True)
        for (_, predictions, labels), (_, of_original, _) in rows:
            known = labels >= 0
            targets = self._output.targets(labels[known])
            self._error.update(targets + predictions[known] - of_original[known], targets, shown.answers.work_item)

    def record(self) -> Record:
        return self._error.record()

    def add(self, record: Record) -> None:
        self._error.add(record)

    def result(self, beside: Beside) -> Result:
        meaning = "root mean square difference from the original's answers / spread of the labels"
        figure = NamedFigure(name=self.name, value=self._error.result(), unit="number", meaning=meaning, better="lower")
        return Result(named=[figure])
