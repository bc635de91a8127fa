"""How good the predictions of one model are: classes by accuracy and fidelity, numbers by their error."""

from __future__ import annotations

from typing import Any

import numpy as np

from deltafine.measurement.accuracy import Accuracy, ClipAccuracy, classes_of
from deltafine.measurement.fidelity import Fidelity
from deltafine.measurement.output import Output
from deltafine.measurement.records import Record, nested, part_of
from deltafine.measurement.relative_error import RelativeError

_PARTS = ("_frame", "_window", "_clip", "_same", "_error", "_label_error")


class Quality:
    """Everything that is said of one model's predictions.

    Args:
        output: how they are read.
        by_window: whether there is one prediction per window, of a network that takes clips, instead of one per frame.
    """

    def __init__(self, output: Output, by_window: bool) -> None:
        self._output = output
        self._by_window = by_window
        self._frame, self._window, self._clip = Accuracy(), Accuracy(), ClipAccuracy()
        self._same, self._error, self._label_error = Fidelity(), RelativeError(), RelativeError()

    def add(self, video: int, predictions: np.ndarray, labels: np.ndarray, *, one_label: bool, unit: int = 0) -> None:
        """Add predictions (frames, ..., outputs) about one video and labels (frames,), below 0 where there is none."""
        if not (labels >= 0).any():
            return
        if self._output.numbers:
            known = labels >= 0
            self._label_error.update(predictions[known], self._output.targets(labels[known]), unit)
            return
        (self._window if self._by_window else self._frame).update(video, classes_of(predictions), labels)
        if one_label and self._output.clip_output == "mean":
            self._clip.update(video, predictions, labels, unit)

    def add_clip(self, video: int, predictions: np.ndarray, label: int) -> None:
        """Add the predictions (frames, ..., outputs) about one clip, and its label."""
        of_clip = self._output.of_clip(predictions)
        if of_clip is not None and label >= 0 and not self._by_window and not self._output.numbers:
            self._window.update(video, classes_of(of_clip), np.array(label))

    def record(self) -> Record:
        """Everything counted, for :meth:`merge` into another one."""
        return nested({name: getattr(self, name).record() for name in _PARTS})

    def merge(self, record: Record) -> None:
        """Add what another one has counted."""
        for name in _PARTS:
            getattr(self, name).add(part_of(record, name))

    def compare(self, predictions: np.ndarray, original: np.ndarray, unit: int = 0) -> None:
        """Add predictions of the same frames by this model and by the original."""
        if self._output.numbers:
            self._error.update(predictions, original, unit)
        else:
            self._same.update(predictions, original)

    def figures(self, original: Quality | None, frozen: Quality | None, *, as_clips: bool) -> dict[str, Any]:
        """Fields of ``Figures``.

        Args:
            original: of the original model, where it was measured.
            frozen: of the original's first prediction, held for the whole video.
            as_clips: whether clips were measured, not streams.
        """
        found: dict[str, Any] = {
            "frame_accuracy": self._frame.result(),
            "window_accuracy": self._window.result(),
            "clip_accuracy": self._clip.result(),
            "label_error": self._label_error.result(),
        }
        if original is not None:
            if original is not self:
                one, other = (q._window if as_clips or self._by_window else q._frame for q in (self, original))
                found["accuracy_change"] = one.change_from(other)
            if self._output.numbers:
                found["relative_error"] = self._error.result()
            else:
                found["fidelity"] = self._same.result()
        if frozen is not None:
            found |= frozen._as_control()
        return found

    def _as_control(self) -> dict[str, Any]:
        if self._output.numbers:
            of_labels = self._label_error.result()
            return {"frozen_error": self._error.result() if of_labels is None else of_labels}
        accuracy = self._window if self._by_window else self._frame
        return {"frozen_accuracy": accuracy.result(), "frozen_fidelity": self._same.result()}
