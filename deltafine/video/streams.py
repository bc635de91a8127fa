"""Whole videos as continuous streams."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from deltafine.video.catalogue import Video
from deltafine.video.examination import Examination
from deltafine.video.frames import UnreadableVideo
from deltafine.video.further_values import FurtherValues, packed
from deltafine.video.prefetch import background
from deltafine.video.reading import Reader

Stream = Iterator[tuple[np.ndarray, np.ndarray | None]]
"""Chunks of (frames (t, H, W, C) uint8, labels (t,) int64 or None)."""


def iterate_streams(
    examination: Examination,
    reader: Reader,
    videos: list[Video],
    chunk: int,
    frame_stride: int,
    fps: float | None,
    further: FurtherValues | None = None,
) -> Iterator[tuple[Video, Stream]]:
    """Every video with its stream, which is decoded ahead while it is used."""
    for video in videos:
        yield video, background(_stream(examination, reader, video, chunk, frame_stride, fps, further))


def _stream(
    examination: Examination,
    reader: Reader,
    video: Video,
    chunk: int,
    frame_stride: int,
    fps: float | None,
    further: FurtherValues | None,
) -> Stream:
    wanted = examination.frame_numbers(video, fps)[::frame_stride]
    labelled = video.label is not None or video.frame_labels is not None
    labels = examination.frame_labels(video)[wanted] if labelled else None
    values = None if further is None else further.at(video, wanted)
    given = 0
    try:
        for frames in reader.stream(video, wanted, chunk):
            piece = slice(given, given + len(frames))
            shown = frames if values is None else packed(frames, values[piece])
            yield shown, None if labels is None else labels[piece]
            given += len(frames)
    except UnreadableVideo as error:
        examination.note_problem(video, str(error))
