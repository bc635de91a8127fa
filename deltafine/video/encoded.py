"""Encoded video files, with exact frame numbers: frame k is the k-th picture that the file shows.

A file is read through once, completely, to learn how many frames it really gives and where it can be entered;
containers are not believed. Later reads seek to the last key frame before the wanted frames, and recognise
every frame by its time stamp. Where time stamps are no help, reading starts at frame 0.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from deltafine.video.conversion import Converter, peak_of, shown_size
from deltafine.video.decoding import open_video, sound_frames
from deltafine.video.frames import Damage, FrameIndex, Limits, UnreadableVideo, file_stamp


class EncodedVideo:
    """The frames of a file that FFmpeg reads."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def stamp(self) -> tuple[int, int]:
        """See ``FrameSource``."""
        return file_stamp(self._path)

    def estimate(self, limits: Limits) -> int:
        """See ``FrameSource``."""
        file_stamp(self._path)
        with open_video(self._path, limits) as (container, stream):
            seconds = (container.duration or 0) / av.time_base
            return stream.frames or round(seconds * float(stream.average_rate or stream.guessed_rate or 25))

    def scan(
        self, limits: Limits, sink: Callable[[VideoFrame], None] | None = None, *, whole: bool = True
    ) -> FrameIndex:
        """See ``FrameSource``."""
        stamp = file_stamp(self._path)
        stamps: list[int | None] = []
        keys: list[int] = []
        size = (0, 0)
        peak = 0
        breaks: list[tuple[int, int | None, str]] = []  # frames from and to which it is damaged, and why

        def note(reason: str) -> None:
            if not breaks or breaks[-1][1] is not None:
                breaks.append((len(stamps), None, reason))

        with open_video(self._path, limits) as (container, stream):
            per_second = float(stream.average_rate or stream.guessed_rate or 25)
            deadline = time.monotonic() + limits.seconds
            for frame in sound_frames(container, stream, limits, deadline=deadline, damaged=None if whole else note):
                if frame.key_frame:
                    keys.append(len(stamps))
                if breaks and breaks[-1][1] is None:
                    breaks[-1] = breaks[-1][0], len(stamps), breaks[-1][2]
                if not stamps:
                    size = shown_size(frame)
                stamps.append(frame.pts)
                peak = max(peak, peak_of(frame))
                if sink is not None:
                    sink(frame)
            if container.format.name == "gif" and not _ends_as_gif(self._path):
                raise UnreadableVideo("is cut off")  # which no decoder tells: the rest is guessed
            time_base = stream.time_base
            if time_base is None:
                raise UnreadableVideo("does not say when its frames are shown")
            unit = float(time_base)
            declared = _declared_seconds(container, stream, time_base)
            codec = str(stream.codec_context.name)
        if not stamps:
            raise UnreadableVideo(breaks[0][2] if breaks else "holds no frame")
        if file_stamp(self._path) != stamp:
            raise UnreadableVideo("changed while it was read")
        ticks = np.array(stamps, np.int64) if None not in stamps else None
        if ticks is not None and not (np.diff(ticks) > 0).all():
            ticks = None
        times = np.arange(len(stamps)) / per_second if ticks is None else (ticks - ticks[0]) * unit
        entries = np.array([0, *(key for key in keys if key)], np.int64)
        index = FrameIndex(len(stamps), times, *size, codec, stamp, entries, ticks, peak)
        if index.seconds < 0.9 * declared - 0.1:  # headers may be off by a frame or two
            reason = f"ends after {index.seconds:.1f} of {declared:.1f} seconds"
            if whole:
                raise UnreadableVideo(reason)
            note(reason)
        if breaks and ticks is None:
            raise UnreadableVideo(breaks[0][2])  # without times, nothing tells where a segment is
        return replace(index, damage=tuple(_stretch(index, *found) for found in breaks))

    def pictures(
        self, index: FrameIndex, convert: Converter, limits: Limits, start: int, keep: set[int] | None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """See ``FrameSource``."""
        if file_stamp(self._path) != index.stamp:
            raise UnreadableVideo("changed while it was in use")
        position = start
        for first in _entries(index, start):
            with open_video(self._path, limits) as (container, stream):
                for number, frame in _numbered(container, stream, index, first, limits):
                    if number > position:
                        break
                    if number == position:
                        position += 1
                        if keep is None or number in keep:
                            yield number, convert(frame)
            if position == index.count:
                return
        raise UnreadableVideo(f"gave {position} of the {index.count} frames that it had before")


def _stretch(index: FrameIndex, first: int, stop: int | None, reason: str) -> Damage:
    """The damage before which frame ``first - 1`` was the last sound one, and ``stop`` the first sound one after it."""
    step = float(np.median(np.diff(index.times))) if index.count > 1 else 0.0
    start = float(index.times[first - 1]) + step if first else 0.0
    return Damage(start, math.inf if stop is None else float(index.times[stop]), first, reason)


def _ends_as_gif(path: Path) -> bool:
    """Whether the last byte that is not 0 is GIF's trailer."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        return file.read().rstrip(b"\0").endswith(b";")


def _declared_seconds(container: InputContainer, stream: VideoStream, time_base: Fraction) -> float:
    """How long the file says that its pictures last; 0 when it does not say."""
    if stream.duration:
        return float(stream.duration * time_base)
    return (container.duration or 0) / av.time_base if len(container.streams) == 1 else 0.0


def _entries(index: FrameIndex, start: int) -> list[int]:
    """Key frames to decode frame ``start`` from: the last before it, then earlier ones, in the end frame 0.

    The earlier ones are only needed where a seek leads past its aim, as it does in MPEG transport streams.
    """
    if index.stamps is None:
        return [0]
    last = int(np.searchsorted(index.keys, start, side="right")) - 1
    return list(dict.fromkeys([int(index.keys[max(0, last - back)]) for back in (0, 1, 2, 8)] + [0]))


def _numbered(
    container: InputContainer, stream: VideoStream, index: FrameIndex, key: int, limits: Limits
) -> Iterator[tuple[int, VideoFrame]]:
    """Frames with their numbers, from the key frame ``key`` or one before it; ends where they stop matching."""
    if index.damage and index.stamps is not None:
        yield from _numbered_around_damage(container, stream, index, key, limits)
        return
    if key == 0 or index.stamps is None:
        yield from enumerate(sound_frames(container, stream, limits))
        return
    container.seek(int(index.stamps[key]), stream=stream, backward=True)
    number = -1
    for frame in sound_frames(container, stream, limits):
        if number < 0:
            if not frame.key_frame or frame.pts is None:
                continue  # shown before the key frame, and may lack the pictures it was coded from
            number = int(np.searchsorted(index.stamps, frame.pts))
        if number >= index.count or frame.pts != index.stamps[number]:
            return
        yield number, frame
        number += 1


def _numbered_around_damage(
    container: InputContainer, stream: VideoStream, index: FrameIndex, key: int, limits: Limits
) -> Iterator[tuple[int, VideoFrame]]:
    """The same for a file of which only some is sound: frames that it does not count are passed over."""
    assert index.stamps is not None
    if key:
        container.seek(int(index.stamps[key]), stream=stream, backward=True)
    begun = not key
    for frame in sound_frames(container, stream, limits, damaged=_ignore):
        begun = begun or frame.key_frame
        number = int(np.searchsorted(index.stamps, frame.pts)) if begun and frame.pts is not None else index.count
        if number < index.count and index.stamps[number] == frame.pts:
            yield number, frame


def _ignore(reason: str) -> None:
    pass
