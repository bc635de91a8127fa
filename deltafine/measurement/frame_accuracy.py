"""Frame accuracy: the share of frames that are predicted right."""

from __future__ import annotations

from deltafine.document.figures import Estimate
from deltafine.measurement.accuracy import Accuracy, classes_of
from deltafine.measurement.metric import Beside, Metric, Result, Shown, Subject
from deltafine.measurement.records import Record


class FrameAccuracy(Metric):
    """Of a network that takes single frames, and where its answers are classes."""

    name = "frame-accuracy"

    def begin(self, subject: Subject) -> None:
        self._judged = not (subject.output.numbers or subject.by_window)
        self.counted = Accuracy(subject.recording)

    def update(self, shown: Shown) -> None:
        if self._judged:
            for video, predictions, labels in shown.answers.labelled():
                self.counted.update(video, classes_of(predictions), labels)

    def record(self) -> Record:
        return self.counted.record()

    def add(self, record: Record) -> None:
        self.counted.add(record)

    def result(self, beside: Beside) -> Result:
        return Result({"frame_accuracy": self.value})

    @property
    def value(self) -> Estimate | None:
        """None as long as nothing was labelled."""
        return self.counted.result()
