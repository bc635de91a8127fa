"""Accuracy of whole videos: the predictions of all their frames are averaged, then compared with the label."""

from __future__ import annotations

from deltafine.measurement.accuracy import ClipAccuracy
from deltafine.measurement.metric import Beside, Metric, Result, Shown, Subject
from deltafine.measurement.records import Record


class VideoAccuracy(Metric):
    """Where each video has one label, and a clip is judged by the mean over its frames."""

    name = "video-accuracy"

    def begin(self, subject: Subject) -> None:
        self._judged = not subject.output.numbers and subject.output.clip_output == "mean"
        self._counted = ClipAccuracy(subject.recording)

    def update(self, shown: Shown) -> None:
        if self._judged and shown.answers.one_label:
            for video, predictions, labels in shown.answers.labelled():
                self._counted.update(video, predictions, labels, shown.answers.work_item)

    def record(self) -> Record:
        return self._counted.record()

    def add(self, record: Record) -> None:
        self._counted.add(record)

    def result(self, beside: Beside) -> Result:
        return Result({"clip_accuracy": self._counted.result()})
