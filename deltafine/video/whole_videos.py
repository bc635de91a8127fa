"""Pieces of one file that follow each other without a gap, put together again: one continuous stream.

Short pieces that are measured by themselves flatter a network that updates little: each begins with a full update. Only
a data set that says where pieces lie in their file tells that one continues the other; names and groups do not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from deltafine.video.catalogue import Video
from deltafine.video.examination import Examination

_RANGE = re.compile(r" \[[^\]]*\]$")


def rows_of(videos: Sequence[Video]) -> list[list[Video]]:
    """The videos in rows: each piece with what continues it, in the order of the first of each row.

    Pieces are of one file, group and split, and one ends where the next begins.
    """
    by_file: dict[tuple[object, ...], list[Video]] = {}
    for video in videos:
        if video.is_segment:
            by_file.setdefault((video.source, video.group, video.split, *video.extents), []).append(video)
    after: dict[int, Video] = {}
    for pieces in by_file.values():
        beginning: dict[float, list[Video]] = {}
        ending: dict[float, list[Video]] = {}
        for piece in pieces:
            start, end = (round(bound, 3) for bound in _extent(piece))  # to the millisecond
            beginning.setdefault(start, []).append(piece)
            ending.setdefault(end, []).append(piece)
        for moment, before in ending.items():
            following = beginning.get(moment, [])
            if len(before) == len(following) == 1:  # else which continues which is not known
                after[id(before[0])] = following[0]
    continued = {id(video) for video in after.values()}
    return [_row(video, after) for video in videos if id(video) not in continued]


def joined(videos: Sequence[Video], examination: Examination) -> list[Video]:
    """Each row as one video, with the label of its pieces, or one label per frame where these differ.

    Pieces of a damaged file stay apart: pictures are missing between them.
    """
    found: list[Video] = []
    for row in rows_of(videos):
        apart = len(row) == 1 or len(examination.breaks(row[0]))
        found += row if apart else [_whole(row, examination)]
    return found


def _row(video: Video, after: dict[int, Video]) -> list[Video]:
    row = [video]
    while (following := after.get(id(row[-1]))) is not None:
        row.append(following)
    return row


def _extent(video: Video) -> tuple[float, float]:
    (extent,) = video.extents.values()
    return extent


def _whole(row: Sequence[Video], examination: Examination) -> Video:
    first, last = row[0], row[-1]
    name = f"{_RANGE.sub('', first.name)}{_range(first, last)}"
    whole = replace(first, name=name, end=last.end, end_frame=last.end_frame)
    if not (all(video.frame_rows is None for video in row) and len({video.row for video in row}) == 1):
        whole = replace(whole, row=None, frame_rows=_of_frames(row, examination, examination.frame_rows))
    if all(video.frame_labels is None for video in row) and len({video.label for video in row}) == 1:
        return whole
    return replace(whole, label=None, frame_labels=_of_frames(row, examination, examination.frame_labels))


def _of_frames(row: Iterable[Video], examination: Examination, of: Callable[[Video], np.ndarray]) -> np.ndarray:
    """Labels, or rows, of all frames of the file, as far as the pieces tell."""
    of_file = np.empty(0, np.int64)
    for video in row:
        values, frames = of(video), examination.frame_numbers(video)
        if len(of_file) < len(values):
            of_file = np.concatenate([of_file, np.full(len(values) - len(of_file), -1, np.int64)])
        of_file[frames] = values[frames]
    return of_file


def _range(first: Video, last: Video) -> str:
    """As a manifest names pieces; nothing of a whole file."""
    start, end = _extent(first)[0], _extent(last)[1]
    if not start and end == math.inf:
        return ""
    if "frames" in first.extents:
        return f" [frames {start:.0f}-{'' if end == math.inf else f'{end - 1:.0f}'}]"
    return f" [{start:g}-{'' if end == math.inf else f'{end:g}'} s]"
