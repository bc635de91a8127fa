"""What a dataset consists of: its videos, their labels and splits, and what is wrong with them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
"""What is trained on, what everything is chosen by, and what is only reported on (few data sets have all three)."""


@dataclass(frozen=True, eq=False)
class Video:
    """One video of a dataset.

    Attributes:
        path: The file (or the folder of frame images).
        name: Its path relative to the data's root, with forward slashes.
        label: Index into the dataset's classes, or None where the video has no label of its own.
        split: ``"train"``, ``"validation"``, or ``"test"`` where there are validation videos as well.
        frame_labels: (frames,) int64, one class index per frame and -1 where a frame has none; None where
            the data does not label frames.
        entry: Which data set of an HDF5 file it is; None for a file or folder of its own.
        start: Seconds at which it begins in its file; None for the beginning.
        end: Seconds at which it ends in its file; None for the end.
        start_frame: The same as a frame of the file, from 0; None for the beginning.
        end_frame: The first frame of the file that does not belong to it any more; None for the end.
        group: The recording that it is a part of, where the data says it: videos of one group are on one side of a
            drawn split, and intervals are over groups.
        frame_rows: (frames,) int64, the row of ``FrameColumns`` of each frame, -1 where it has none; None where no
            frame has one of its own.
        row: That of all other frames; None where they have none.
    """

    path: Path
    name: str
    label: int | None = None
    split: Split = "train"
    frame_labels: np.ndarray | None = None
    entry: str | None = None
    start: float | None = None
    end: float | None = None
    start_frame: int | None = None
    end_frame: int | None = None
    group: str | None = None
    frame_rows: np.ndarray | None = None
    row: int | None = None

    @property
    def is_segment(self) -> bool:
        """Whether it is less than its whole file."""
        return any(bound is not None for bound in (self.start, self.end, self.start_frame, self.end_frame))

    @property
    def extents(self) -> dict[str, tuple[float, float]]:
        """Where it begins and ends in its file, by unit: seconds, frames, or both for a whole file."""
        if self.start_frame is not None or self.end_frame is not None:
            return {"frames": (self.start_frame or 0, math.inf if self.end_frame is None else self.end_frame)}
        seconds = (self.start or 0.0, math.inf if self.end is None else self.end)
        return {"seconds": seconds} if self.is_segment else {"seconds": seconds, "frames": seconds}

    def labels_at(self, numbers: np.ndarray) -> np.ndarray:
        """(n,) int64 labels of frames of its file by their numbers (n,), -1 for those without."""
        labels = np.full(len(numbers), -1 if self.label is None else self.label, np.int64)
        if self.frame_labels is not None:
            known = numbers < len(self.frame_labels)
            labels[known] = self.frame_labels[numbers[known]]
        return labels

    def rows_at(self, numbers: np.ndarray) -> np.ndarray:
        """(n,) int64 rows of ``FrameColumns`` of frames of its file by their numbers (n,), -1 for those without."""
        rows = np.full(len(numbers), -1 if self.row is None else self.row, np.int64)
        if self.frame_rows is not None:
            known = numbers < len(self.frame_rows)
            rows[known] = self.frame_rows[numbers[known]]
        return rows

    @property
    def source(self) -> tuple[str, str | None]:
        """What it is read from: the same for two segments of one file."""
        return str(self.path), self.entry


@dataclass(frozen=True, eq=False)
class FrameColumns:
    """What a list says of frames beside their label, in columns that may be called like the outputs of a model.

    Attributes:
        listing: The list's name, for messages.
        names: Of the columns, in lower case and with underscores.
        rows: Their cells, in every combination that occurs; empty where a frame has none.
        note: What the user is told of them as long as nothing uses them.
    """

    listing: str
    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str

    def cells(self, name: str) -> list[str]:
        """A column, one cell for each of ``rows``."""
        place = self.names.index(name)
        return [row[place] for row in self.rows]


@dataclass(frozen=True)
class Problem:
    """Why a video is not used.

    Attributes:
        video: The video's name.
        reason: A clause without its subject, such as "has 5 frames, a clip needs 8".
        kind: ``"unreadable"`` for what counts against a limit of bad videos, ``"short"`` for a sound video
            that a clip does not fit into, ``"missing"`` for one that is listed but not there, where the
            layout allows that, ``"cut"`` for a segment that is used and ends before its list says.
    """

    video: str
    reason: str
    kind: Literal["unreadable", "short", "missing", "cut"] = "unreadable"


@dataclass
class Found:
    """What a layout found below a path, before classes are reordered and splits are drawn.

    Attributes:
        layout: The layout's name as shown to the user, such as "UCF101 layout, split 1".
        videos: The videos, in a stated order. Their labels index ``classes``.
        classes: Class names; () when unlabelled.
        values: What the labels stand for where they are numbers; None to find out from the classes.
        has_splits: Whether the data says itself which videos train and which validate.
        problems: What is known to be wrong before anything is decoded.
        notes: What the user should know of how the data was read, one sentence each: lists that are not used and why.
        lists: Files that were read for it.
        columns: What it says of frames beside their labels, by rows that the videos name; None where there is nothing.
        outputs: Those of a model with several that the labels are for, each label being a row with one for each of
            them; () where a label is one class or number.
    """

    layout: str
    videos: list[Video]
    classes: tuple[str, ...] = ()
    has_splits: bool = False
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lists: list[Path] = field(default_factory=list)
    values: tuple[float, ...] | None = None
    columns: FrameColumns | None = None
    outputs: tuple[str, ...] = ()
