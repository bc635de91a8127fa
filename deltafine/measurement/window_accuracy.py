"""Window accuracy: the share of windows of T frames that are predicted right."""

from __future__ import annotations

import numpy as np

from deltafine.document.figures import Estimate
from deltafine.measurement.accuracy import Accuracy, classes_of
from deltafine.measurement.metric import Beside, Metric, Result, Shown, Subject
from deltafine.measurement.records import Record


class WindowAccuracy(Metric):
    """Of a network that takes windows, by its answers; of one that takes frames, by what stands for each clip."""

    name = "window-accuracy"

    def begin(self, subject: Subject) -> None:
        self._output, self._by_window = subject.output, subject.by_window
        self.counted = Accuracy(subject.recording)

    def update(self, shown: Shown) -> None:
        answers = shown.answers
        if self._output.numbers:
            return
        if self._by_window:
            for video, predictions, labels in answers.labelled():
                self.counted.update(video, classes_of(predictions), labels)
        elif answers.clip_labels is not None:
            rows = zip(answers.videos.tolist(), answers.predictions, answers.clip_labels.tolist(), strict=True)
            for video, predictions, label in rows:
                of_clip = self._output.of_clip(predictions)
                if of_clip is not None and label >= 0:
                    self.counted.update(video, classes_of(of_clip), np.array(label))

    def record(self) -> Record:
        return self.counted.record()

    def add(self, record: Record) -> None:
        self.counted.add(record)

    def result(self, beside: Beside) -> Result:
        return Result({"window_accuracy": self.value})

    @property
    def value(self) -> Estimate | None:
        """None as long as nothing was labelled."""
        return self.counted.result()
