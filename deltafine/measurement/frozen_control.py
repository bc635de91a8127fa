"""The frozen control: how good a network is that never updates, so that its first answer is held."""

from __future__ import annotations

from deltafine.document.figures import Estimate
from deltafine.measurement.fidelity import Fidelity
from deltafine.measurement.frame_accuracy import FrameAccuracy
from deltafine.measurement.label_error import LabelError
from deltafine.measurement.metric import Beside, Metric, Result, Shown, Subject
from deltafine.measurement.original_error import OriginalError
from deltafine.measurement.records import Record, inner_record, nested
from deltafine.measurement.window_accuracy import WindowAccuracy


class FrozenControl(Metric):
    """Accuracy and fidelity of the answer that is held; of numbers the error, to the labels where there are some."""

    name = "frozen-control"

    def begin(self, subject: Subject) -> None:
        self._numbers, self._as_clips = subject.output.numbers, subject.as_clips
        self._accuracy = WindowAccuracy() if subject.by_window else FrameAccuracy()
        self._fidelity, self._error, self._label_error = Fidelity(), OriginalError(), LabelError()
        self._metrics: dict[str, Metric] = {
            metric.name: metric for metric in (self._accuracy, self._fidelity, self._error, self._label_error)
        }
        for metric in self._metrics.values():
            metric.begin(subject)

    def update(self, shown: Shown) -> None:
        if shown.control is not None:
            for metric in self._metrics.values():
                metric.update(shown.answered(shown.control))

    def record(self) -> Record:
        return nested({name: metric.record() for name, metric in self._metrics.items()})

    def add(self, record: Record) -> None:
        for name, metric in self._metrics.items():
            metric.add(inner_record(record, name))

    def result(self, beside: Beside) -> Result:
        if self._numbers:
            of_labels = self._label_error.value
            return Result({"frozen_error": self._error.value if of_labels is None else of_labels})
        return Result(
            {
                "frozen_accuracy": self._accuracy.value,
                "frozen_fidelity": self._fidelity.value,
                "gain_over_frozen": self._gain(beside),
            }
        )

    def _gain(self, beside: Beside) -> Estimate | None:
        judged = beside.metric(type(self._accuracy)).counted
        if self._as_clips or not judged.is_of_same(self._accuracy.counted):
            return None
        return judged.change_from(self._accuracy.counted)
