"""Continuous streams with labels per frame: videos beside ``labels.csv`` (video, frame, label[, split, group])."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from deltafine.errors import DeltafineError
from deltafine.video.catalogue import Found, Split, Video
from deltafine.video.finding import relative_name
from deltafine.video.layouts.common import expected, locate, note_missing, number_labels, whole_number
from deltafine.video.layouts.further_columns import cells_of, frame_columns, with_further
from deltafine.video.layouts.layout import Layout, LayoutOptions
from deltafine.video.layouts.naming import read_split
from deltafine.video.layouts.tables import FILE_COLUMNS, has_columns, read_table, recognise

LABELS = "labels.csv"
COLUMNS = {"video", "frame"}
CALLED = {
    "video": ("video", *FILE_COLUMNS),
    "frame": ("frame", "frame_number", "frame_index"),
    "label": ("label", "labels", "class", "class_name", "tag", "target"),
    "split": ("split", "subset"),
    "group": ("group", "recording"),
}
MOST_FRAMES = 10_000_000


@dataclass
class _Listed:
    """What the list says of a video: of each of its frames, and of all that have nothing of their own.

    Attributes:
        split, group: of the video.
        labels: by frame; None for the frame stands for all others.
        cells: of the further columns, in the same way.
    """

    split: Split
    group: str | None
    labels: dict[int | None, str] = field(default_factory=dict)
    cells: dict[int | None, tuple[str, ...]] = field(default_factory=dict)


def find_streams(root: Path, *, allow_outside: bool = False) -> Found | None:
    """Read ``labels.csv``; frames that it does not name have no label (-1).

    Without a ``split`` column every stream is for validation. Classes are sorted by name. Further columns may be the
    labels of a model's outputs; with such columns a row without a frame is about all frames of the video that have
    nothing of their own.

    Raises:
        DeltafineError: A row is broken, or none of the videos is there.
    """
    listing = root / LABELS
    if not has_columns(listing, COLUMNS, CALLED):
        return None
    columns, rows = read_table(listing)
    unknown, called = with_further(columns, CALLED)
    label = next((name for name in CALLED["label"] if name in columns), None)
    if label is None and not unknown:
        return None
    listed: dict[str, _Listed] = {}
    for line, cells in recognise(columns, rows, called).rows:
        _read_row(cells, f"{listing}, line {line},", listed, unknown)
    classes, said = number_labels(text for video in listed.values() for text in video.labels.values())
    numbered = {name: number for number, name in enumerate(classes)}
    distinct: dict[tuple[str, ...], int] = {}
    videos = []
    missing = []
    for name, video in listed.items():
        path = locate(root, name, listing, folders=(".", "videos"), allow_outside=allow_outside)
        if path is None:
            path = expected(root, name)
            missing.append(path)
        whole, frame_labels = _by_frame({frame: numbered[text] for frame, text in video.labels.items()})
        row, frame_rows = _by_frame(_numbered(video.cells, distinct))
        videos.append(
            Video(
                path, relative_name(path, root), whole, video.split, frame_labels, group=video.group, row=row,
                frame_rows=frame_rows,
            )
        )  # fmt: skip
    problems = note_missing(missing, len(listed), listing, root)
    further = frame_columns(listing, unknown, label, distinct)
    notes = ([further.note] if further else []) + said
    found = Found("streams with frame labels", videos, classes, has_splits=True, problems=problems, notes=notes)
    found.lists, found.columns = [listing], further
    return found


def _read_row(row: Mapping[str, str], where: str, listed: dict[str, _Listed], unknown: Sequence[str]) -> None:
    """Add a row of the list to what is known of its video."""
    cells = cells_of(row, unknown)
    number, label = whole_number(row.get("frame", ""), MOST_FRAMES), row.get("label")
    of_all = "frame" not in row and bool(unknown)
    if "video" not in row or (number is None and not of_all) or not (label or any(cells)):
        raise DeltafineError(f"{where} needs a video, a frame number from 0 and a label.")
    name, group = row["video"], row.get("group")
    split = read_split(row.get("split", "validation"), where)
    video = listed.setdefault(name, _Listed(split, group))
    if video.split != split:
        raise DeltafineError(f"{where} puts '{name}' into a second split: give a video one split.")
    if video.group != group:
        raise DeltafineError(f"{where} puts '{name}' into a second group: give a video one group, in all lines.")
    if number in video.labels or number in video.cells:
        what = "all frames" if number is None else f"frame {number}"
        raise DeltafineError(f"{where} labels {what} of '{name}' a second time.")
    if label:
        video.labels[number] = label
    if unknown:
        video.cells[number] = (*cells, label or "")


def _numbered(
    cells: Mapping[int | None, tuple[str, ...]], distinct: dict[tuple[str, ...], int]
) -> dict[int | None, int]:
    """Rows by number; what a frame leaves empty is as in the row for all frames."""
    of_all = cells.get(None, ())
    filled = {
        frame: tuple(own or other for own, other in zip(row, of_all, strict=True)) if of_all else row
        for frame, row in cells.items()
    }
    return {frame: distinct.setdefault(row, len(distinct)) for frame, row in filled.items()}


def _by_frame(numbers: Mapping[int | None, int]) -> tuple[int | None, np.ndarray | None]:
    """That of all frames without one of their own, and (frames,) int64, -1 where there is none; or None each."""
    of_all = numbers.get(None)
    frames = {frame: number for frame, number in numbers.items() if frame is not None}
    if not frames:
        return of_all, None
    found = np.full(max(frames) + 1, -1 if of_all is None else of_all, np.int64)
    found[list(frames)] = list(frames.values())
    return of_all, found


class LabelledStreams(Layout):
    """Streams with labels per frame."""

    name = "streams"

    def find(self, path: Path, options: LayoutOptions) -> Found | None:
        return find_streams(path, allow_outside=options.allow_outside)
