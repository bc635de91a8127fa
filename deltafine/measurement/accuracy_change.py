"""Change of accuracy: the model's minus the original's on the same videos, paired."""

from __future__ import annotations

from deltafine.measurement.frame_accuracy import FrameAccuracy
from deltafine.measurement.metric import Beside, Metric, Result, Shown, Subject
from deltafine.measurement.records import Record, inner_record, nested
from deltafine.measurement.window_accuracy import WindowAccuracy


class AccuracyChange(Metric):
    """Of frame accuracy on streams, of window accuracy on clips and for networks that take windows."""

    name = "accuracy-change"

    def begin(self, subject: Subject) -> None:
        kind: type[WindowAccuracy | FrameAccuracy] = (
            WindowAccuracy if subject.as_clips or subject.by_window else FrameAccuracy
        )
        self._judged = not subject.is_original
        self._own, self._original = kind(), kind()
        self._own.begin(subject)
        self._original.begin(subject)

    def update(self, shown: Shown) -> None:
        if self._judged and (original := shown.answers.of_original()) is not None:
            self._own.update(shown)
            self._original.update(shown.answered(original))

    def record(self) -> Record:
        return nested({"own": self._own.record(), "original": self._original.record()})

    def add(self, record: Record) -> None:
        self._own.add(inner_record(record, "own"))
        self._original.add(inner_record(record, "original"))

    def result(self, beside: Beside) -> Result:
        return Result({"accuracy_change": self._own.counted.change_from(self._original.counted)})
