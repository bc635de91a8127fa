"""Continuous streams with a label per frame: videos beside ``labels.csv`` (video, frame, label[, split, group])."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from deltafine.errors import DeltafineError
from deltafine.video.catalogue import Found, Split, Video
from deltafine.video.finding import relative_name
from deltafine.video.layouts.common import expected, locate, note_missing, number_labels, whole_number
from deltafine.video.layouts.layout import Layout, LayoutOptions
from deltafine.video.layouts.naming import read_split
from deltafine.video.layouts.tables import FILE_COLUMNS, has_columns, read_table, recognise, say_unknown

LABELS = "labels.csv"
COLUMNS = {"video", "frame", "label"}
CALLED = {
    "video": ("video", *FILE_COLUMNS),
    "frame": ("frame", "frame_number", "frame_index"),
    "label": ("label", "labels", "class", "class_name", "tag", "target"),
    "split": ("split", "subset"),
    "group": ("group", "recording"),
}
MOST_FRAMES = 10_000_000


def find_streams(root: Path, *, allow_outside: bool = False) -> Found | None:
    """Read ``labels.csv``; frames that it does not name have no label (-1).

    Without a ``split`` column every stream is for validation. Classes are sorted by name.

    Raises:
        DeltafineError: A row is broken, or none of the videos is there.
    """
    listing = root / LABELS
    if not has_columns(listing, COLUMNS, CALLED):
        return None
    table = recognise(*read_table(listing), CALLED)
    labels: dict[str, dict[int, str]] = {}
    splits: dict[str, Split] = {}
    groups: dict[str, str | None] = {}
    for line, row in table.rows:
        where = f"{listing}, line {line},"
        frame = whole_number(row.get("frame", ""), MOST_FRAMES)
        if frame is None or not set(row) >= COLUMNS:
            raise DeltafineError(f"{where} needs a video, a frame number from 0 and a label.")
        name = row["video"]
        split = read_split(row.get("split", "validation"), where)
        if splits.setdefault(name, split) != split:
            raise DeltafineError(f"{where} puts '{name}' into a second split: give a video one split.")
        group = row.get("group")
        if groups.setdefault(name, group) != group:
            raise DeltafineError(f"{where} puts '{name}' into a second group: give a video one group, in all lines.")
        if frame in labels.setdefault(name, {}):
            raise DeltafineError(f"{where} labels frame {frame} of '{name}' a second time.")
        labels[name][frame] = row["label"]
    classes, said = number_labels(label for frames in labels.values() for label in frames.values())
    numbered = {name: number for number, name in enumerate(classes)}
    videos = []
    missing = []
    for name, frames in labels.items():
        path = locate(root, name, listing, folders=(".", "videos"), allow_outside=allow_outside)
        if path is None:
            path = expected(root, name)
            missing.append(path)
        numbers = np.full(max(frames) + 1, -1, np.int64)
        for frame, label in frames.items():
            numbers[frame] = numbered[label]
        videos.append(Video(path, relative_name(path, root), None, splits[name], numbers, group=groups[name]))
    problems = note_missing(missing, len(labels), listing, root)
    notes = say_unknown(listing, table.unknown) + said
    return Found(
        "streams with frame labels", videos, classes, has_splits=True, problems=problems, notes=notes, lists=[listing]
    )


class LabelledStreams(Layout):
    """Streams with a label per frame."""

    name = "streams"

    def find(self, path: Path, options: LayoutOptions) -> Found | None:
        return find_streams(path, allow_outside=options.allow_outside)
