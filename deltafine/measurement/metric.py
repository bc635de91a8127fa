"""What a metric is: one class in one file, which counts while video goes through a model, and gives figures.

``deltafine.measurement.metrics`` holds those that are measured; one of your own is added there with ``register``, or
given to ``measure(..., metrics=[...])``. CONTRIBUTING.md has a worked example.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol, TypeVar

import numpy as np

from deltafine.document.figures import DeltaFigures, DocumentObject, Estimate, NamedFigure
from deltafine.measurement.output import Output
from deltafine.measurement.probe import Piece, Probe
from deltafine.measurement.recordings import Known
from deltafine.measurement.records import Record
from deltafine.measurement.scoring import ScoredVideo


@dataclass(frozen=True)
class Subject:
    """The model that is measured, and how.

    Attributes:
        probe: the model; ``probe.layers`` and ``probe.deltas`` are where its pieces have counts.
        output: how its predictions are read.
        by_window: whether there is one prediction per window, of a network that takes clips, not one per frame.
        as_clips: whether clips are measured, not streams.
        is_original: whether it is the original model, which others are compared with.
        known: names and recordings of the videos by number, filled in before a video is shown; one that is not there
            is a recording of its own.
    """

    probe: Probe
    output: Output = field(default_factory=Output)
    by_window: bool = False
    as_clips: bool = False
    is_original: bool = False
    known: Mapping[int, Known] = field(default_factory=dict)

    def recording(self, video: int) -> str:
        """The same for all videos of one recording."""
        return self.known[video].recording if video in self.known else str(video)


@dataclass(frozen=True)
class Answered:
    """What was answered about some videos, a row for each clip, or one row for a piece of a stream.

    Attributes:
        predictions: (rows, frames, ..., outputs); scores, where they are of classes. A network that gives one
            prediction per window has one "frame" in each row.
        labels: (rows, frames) int64, the right classes; below 0 where there is none.
        videos: (rows,) number of the video of each row.
        work_item: number of the video or of the batch of clips; floating-point sums are kept apart by it
            (``records``).
        original: what the original model answered, shaped as ``predictions``; None where it is not measured.
        clip_labels: (rows,) int64, the right class of each whole clip; None for pieces of streams.
        one_label: whether a video has one label, not a label for each frame.
        name: of the video of a stream, for messages.
        about: the same video, for a score that looks up truth of its own.
    """

    predictions: np.ndarray
    labels: np.ndarray
    videos: np.ndarray
    work_item: int = 0
    original: np.ndarray | None = None
    clip_labels: np.ndarray | None = None
    one_label: bool = False
    name: str = ""
    about: ScoredVideo | None = None

    def labelled(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """(video, predictions, labels) of each row that has any label."""
        for video, predictions, labels in zip(self.videos.tolist(), self.predictions, self.labels, strict=True):
            if (labels >= 0).any():
                yield video, predictions, labels

    def of_original(self) -> Answered | None:
        """The same rows as the original answered them; None where it is not measured."""
        return None if self.original is None else replace(self, predictions=self.original)


@dataclass(frozen=True)
class Shown:
    """A batch of clips, or a piece of a stream, as it went through the model that is measured.

    Attributes:
        piece: what was counted inside of the model.
        answers: what the model answered.
        control: what a network that never updates would have answered: the first answer, held; None where nothing is
            held.
    """

    piece: Piece
    answers: Answered
    control: Answered | None = None

    def answered(self, answers: Answered) -> Shown:
        """The same with other answers."""
        return replace(self, answers=answers)


@dataclass(frozen=True)
class Result:
    """The figures of a metric.

    Those of deltafine's own metrics are fields of the document; those of any other metric are ``named``, and every
    format shows them by their name, unit and meaning.

    Attributes:
        figures: fields of ``Figures``.
        operations: fields of ``Operations``.
        layers: fields of ``LayerFigures``, for each of ``probe.layers``.
        deltas: the delta layers.
        named: all others.
    """

    figures: Mapping[str, int | float | Estimate | Sequence[DocumentObject] | None] = field(default_factory=dict)
    operations: Mapping[str, int | float] = field(default_factory=dict)
    layers: Sequence[Mapping[str, str | int | float]] = ()
    deltas: Sequence[DeltaFigures] = ()
    named: Sequence[NamedFigure] = ()


class Metric(ABC):
    """Counts of one model, and the figures that they make.

    An instance that is registered, or given to ``measure``, is a pattern: for every model, and once for streams and
    once for clips, a copy of it counts, from ``begin`` on. So a constructor takes options, and ``begin`` sets every
    count to 0.
    """

    name: ClassVar[str]
    """Letters, digits, ``-`` and ``_``; no other metric has it."""

    @abstractmethod
    def begin(self, subject: Subject) -> None:
        """Forget what was counted, and be ready for a model."""

    @abstractmethod
    def update(self, shown: Shown) -> None:
        """Count in what the model was shown."""

    @abstractmethod
    def record(self) -> Record:
        """Everything counted, as named arrays: with several workers, each counts some of the videos."""

    @abstractmethod
    def add(self, record: Record) -> None:
        """Add what another one has counted of the same model on other videos, as its ``record`` gave it."""

    @abstractmethod
    def result(self, beside: Beside) -> Result:
        """The figures.

        Args:
            beside: the other metrics of the same model.

        Raises:
            DeltafineError: there is nothing to make a figure of, and a report needs it.
        """


Kind = TypeVar("Kind", bound=Metric)


class Beside(Protocol):
    """The metrics of one model."""

    def metric(self, kind: type[Kind]) -> Kind:
        """The one of a class.

        Raises:
            LookupError: none is.
        """
        ...


class Derived(Metric):
    """A metric that is computed from the model and from other metrics, and counts nothing."""

    def begin(self, subject: Subject) -> None:
        self.subject = subject

    def update(self, shown: Shown) -> None:
        pass

    def record(self) -> Record:
        return {}

    def add(self, record: Record) -> None:
        pass
