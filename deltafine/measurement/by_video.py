"""Quality and cost of every video, so that those are seen whom a good mean hides."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from deltafine.document.figures import VideoFigures
from deltafine.measurement.effective_macs import EffectiveMacs
from deltafine.measurement.fidelity import Fidelity
from deltafine.measurement.frame_accuracy import FrameAccuracy
from deltafine.measurement.label_error import LabelError
from deltafine.measurement.metric import Beside, Metric, Result, Shown, Subject
from deltafine.measurement.original_error import OriginalError
from deltafine.measurement.records import Record, inner_record, nested
from deltafine.measurement.window_accuracy import WindowAccuracy


class ByVideo(Metric):
    """On streams: each video by itself. On clips it is only counted of how many recordings they are.

    Pieces of several videos at once cannot be told apart, and are counted as clips are.
    """

    name = "by-video"

    def begin(self, subject: Subject) -> None:
        self._subject = subject
        self._videos: dict[int, _OneVideo] = {}
        self._together = subject.as_clips

    def update(self, shown: Shown) -> None:
        videos = shown.answers.videos.tolist()
        self._together = self._together or len(videos) > 1
        for video in videos:
            one = self._videos.setdefault(video, _OneVideo(self._subject))
            if not self._together:
                one.update(shown)

    def record(self) -> Record:
        records = {str(video): one.record() for video, one in self._videos.items()}
        return nested({**records, "all": {"videos": np.array(sorted(self._videos), np.int64)}})

    def add(self, record: Record) -> None:
        for video in inner_record(record, "all")["videos"].tolist():
            self._videos.setdefault(video, _OneVideo(self._subject)).add(inner_record(record, str(video)))

    def result(self, beside: Beside) -> Result:
        recordings = {self._subject.recording(video) for video in self._videos}
        by_video = [] if self._together else list(self._by_video(beside))
        return Result({"recordings": len(recordings), "by_video": by_video})

    def _by_video(self, beside: Beside) -> Iterable[VideoFigures]:
        windows = beside.metric(WindowAccuracy) if self._subject.by_window else None
        accuracy = (windows or beside.metric(FrameAccuracy)).counted
        errors = beside.metric(LabelError).by_work_item() or beside.metric(OriginalError).by_work_item()
        for video, one in sorted(self._videos.items()):
            right, of = accuracy.of_video(video)
            known = self._subject.known.get(video)
            yield VideoFigures(
                video=str(video) if known is None else known.name,
                recording=self._subject.recording(video),
                frames=one.macs.frames * (self._subject.probe.window or 1),
                labelled=one.labelled,
                label_changes=one.label_changes,
                accuracy=right / of if of else None,
                fidelity=one.fidelity.value,
                error=errors.get(video),
                mac_density=one.macs.delta_steady / one.macs.dense_total if one.macs.measured else None,
                frame_macs_worst=one.macs.percentiles()[2] if one.macs.measured else None,
            )


class _OneVideo:
    """What is counted of a video."""

    def __init__(self, subject: Subject) -> None:
        self.macs, self.fidelity = EffectiveMacs(), Fidelity()
        self.macs.begin(subject)
        self.fidelity.begin(subject)
        self.labelled = self.label_changes = 0
        self._last: int | None = None

    def update(self, shown: Shown) -> None:
        self.macs.update(shown)
        self.fidelity.update(shown)
        labels = shown.answers.labels[0]
        labels = labels[labels >= 0]
        if len(labels):
            before = labels[0] if self._last is None else self._last
            self.label_changes += int((np.diff(labels, prepend=before) != 0).sum())
            self.labelled += len(labels)
            self._last = int(labels[-1])

    def record(self) -> Record:
        labels = {"labelled": np.asarray(self.labelled), "changes": np.asarray(self.label_changes)}
        return nested({"macs": self.macs.record(), "fidelity": self.fidelity.record(), "labels": labels})

    def add(self, record: Record) -> None:
        """A video is measured by one process, from beginning to end."""
        self.macs.add(inner_record(record, "macs"))
        self.fidelity.add(inner_record(record, "fidelity"))
        labels = inner_record(record, "labels")
        self.labelled += int(labels["labelled"])
        self.label_changes += int(labels["changes"])
