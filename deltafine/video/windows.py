"""Which frames make up which clip. Pure arithmetic on frame numbers and times."""

from __future__ import annotations

import numpy as np

TICK = 0.0006
"""Seconds by which a time may be off: some containers round times to milliseconds."""


def chosen_frames(
    times: np.ndarray,
    seconds: float,
    *,
    start: float | None = None,
    end: float | None = None,
    fps: float | None = None,
) -> np.ndarray:
    """Numbers of the frames that a segment of a video shows, at another frame rate where one is given.

    Args:
        times: (count,) seconds of the video's frames, ascending.
        seconds: How long the video lasts.
        start, end: The segment in seconds; the frame at ``end`` does not belong to it.
        fps: Frames per second. At every 1 / fps seconds the frame nearest in time is taken, so that frames are
            left out or repeated and never mixed.

    Returns:
        (frames,) int64, ascending, repeated where the video has fewer frames than wanted.
    """
    begin = start or 0.0
    stop = seconds if end is None else min(end, seconds)
    inside = (times >= begin - TICK) & ((times < stop - TICK) if end is not None else True)
    numbers = np.flatnonzero(inside)
    if fps is None or not len(numbers):
        return numbers.astype(np.int64)
    moments = begin + np.arange(int(np.ceil((stop - begin) * fps - TICK * fps))) / fps
    shown = times[numbers]
    after = np.clip(np.searchsorted(shown, moments), 1, max(1, len(shown) - 1))
    before = after - 1
    after = np.minimum(after, len(shown) - 1)
    nearer = np.where(moments - shown[before] <= shown[after] - moments + 1e-9, before, after)
    return numbers[nearer].astype(np.int64)


def span(frames: int, frame_stride: int) -> int:
    """Number of frames from the first to the last of a clip, both counted."""
    return (frames - 1) * frame_stride + 1


def window_starts(
    count: int, *, frames: int, frame_stride: int = 1, clip_stride: int | None = None, clips: int | None = None
) -> np.ndarray:
    """First frames of the clips of a video.

    Args:
        count: Number of frames of the video.
        frames: Frames in a clip.
        frame_stride: Step from one frame of a clip to the next.
        clip_stride: Step from one clip to the next; ``frames * frame_stride`` when None, so that clips do
            not overlap. The last clip always ends on the last frame, so that nothing is dropped at the tail.
        clips: Give this many clips, evenly spread over the whole video, and ignore ``clip_stride``. A video
            with fewer places gives one clip for each place. A single clip lies in the middle.

    Returns:
        (clips,) int64, ascending; empty when the video is shorter than a clip.
    """
    last = count - span(frames, frame_stride)
    if last < 0:
        return np.empty(0, np.int64)
    if clips == 1:
        return np.array([last // 2], np.int64)
    if clips is not None:
        return np.unique(np.linspace(0, last, clips).round().astype(np.int64))
    starts = np.arange(0, last + 1, clip_stride or frames * frame_stride, dtype=np.int64)
    return starts if starts[-1] == last else np.append(starts, last)


def random_starts(
    count: int, *, frames: int, frame_stride: int, clips: int, generator: np.random.Generator
) -> np.ndarray:
    """Like ``window_starts(clips=...)``, with every place equally likely and none twice."""
    places = count - span(frames, frame_stride) + 1
    if places <= 0:
        return np.empty(0, np.int64)
    return np.sort(generator.choice(places, size=min(clips, places), replace=False)).astype(np.int64)


def window_frames(start: int, frames: int, frame_stride: int) -> np.ndarray:
    """(frames,) int64: the frame numbers of the clip that begins at ``start``."""
    return start + frame_stride * np.arange(frames, dtype=np.int64)
