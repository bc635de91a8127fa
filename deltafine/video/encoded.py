"""Encoded video files, with exact frame numbers: frame k is the k-th picture that the file shows.

A file is read through once, completely, to learn how many frames it really gives and where it can be entered;
containers are not believed. Later reads seek to the last key frame before the wanted frames, and recognise
every frame by its time stamp. Where time stamps are no help, reading starts at frame 0.
"""

from __future__ import annotations

import math
import struct
import time
from array import array
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from deltafine.video.conversion import Converter, peak_of, shown_size
from deltafine.video.decoding import open_video, packets_of, sound_frames
from deltafine.video.frames import Damage, FrameIndex, Limits, UnreadableVideo, file_stamp
from deltafine.video.headers import HeaderLog
from deltafine.video.open_files import OPEN_FILES
from deltafine.video.packets import NONE, PacketLog, ascending

COUNTED_FROM_ZERO = ("matroska", "flv")
"""Formats of which the duration is the last time stamp, wherever the first one is."""


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
        limits = limits.of_file(stamp[0])
        stamps, origins, keys = array("q"), array("q"), array("q")  # a day has millions of frames
        log = PacketLog()
        size = (0, 0)
        peak = 0
        breaks: list[tuple[int, str]] = []  # frames before which it is damaged, and why

        def note(reason: str) -> None:
            breaks.append((len(stamps), reason))

        with open_video(self._path, limits) as (container, stream):
            per_second = float(stream.average_rate or stream.guessed_rate or 25)
            deadline = math.inf if limits.seconds is None else time.thread_time() + limits.seconds
            damaged, headers = None if whole else note, HeaderLog(stream)

            def seen(packet: Packet[VideoStream]) -> None:
                log.note(packet)
                headers.note(packet)

            for frame in sound_frames(container, stream, limits, deadline=deadline, damaged=damaged, log=seen):
                if frame.key_frame and headers.may_enter(frame.opaque):
                    keys.append(len(stamps))
                if not stamps:
                    size = shown_size(frame)
                stamps.append(NONE if frame.pts is None else frame.pts)
                origins.append(frame.opaque if isinstance(frame.opaque, int) else NONE)
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
            from_zero = container.format.name.startswith(COUNTED_FROM_ZERO)
            is_whole = container.format.name == "avi" and riff_is_whole(self._path)
            codec = str(stream.codec_context.name)
        if not stamps:
            raise UnreadableVideo(breaks[0][1] if breaks else "holds no frame")
        if file_stamp(self._path) != stamp:
            raise UnreadableVideo("changed while it was read")
        ticks = ascending(stamps)
        of_packets = np.array(origins, np.int64)
        packets = log.index(of_packets) if ticks is None or breaks else None
        shown = log.times(of_packets) if ticks is None else ticks
        times = np.arange(len(stamps)) / per_second if shown is None else (shown - shown[0]) * unit
        entries = np.unique(np.array([0, *keys], np.int64))
        index = FrameIndex(len(stamps), times, *size, codec, stamp, entries, ticks, peak, packets=packets)
        given = max(index.seconds, log.span * unit, (log.end or 0) * unit if from_zero else 0)
        if given < 0.9 * declared - 0.1 and not is_whole:  # headers may be off by a frame or two
            reason = f"ends after {given:.1f} of {declared:.1f} seconds"
            if whole:
                raise UnreadableVideo(reason)
            index = _without_loose_end(index, log.decoded)
            reason = breaks[-1][1] if breaks and breaks[-1][0] >= index.count else reason
            breaks = [*(found for found in breaks if found[0] < index.count), (index.count, reason)]
        return replace(index, damage=tuple(_stretch(index, *found) for found in breaks))

    def pictures(
        self, index: FrameIndex, convert: Converter, limits: Limits, start: int, keep: set[int] | None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """See ``FrameSource``."""
        if file_stamp(self._path) != index.stamp:
            raise UnreadableVideo("changed while it was in use")
        position = start
        complaints: list[str] = []
        for first in _entries(index, start):
            try:
                with closing(self._numbered(index, first, limits, complaints)) as frames:
                    for number, frame in frames:
                        if number > position:
                            break
                        if number == position:
                            position += 1
                            if keep is None or number in keep:
                                yield number, convert(frame)
                        if position == index.count:
                            return
            except UnreadableVideo as error:
                complaints.append(str(error))
        reason = f" ({complaints[-1]})" if complaints else ""
        raise UnreadableVideo(f"gave {position} of the {index.count} frames that it had before{reason}")

    def _numbered(
        self, index: FrameIndex, key: int, limits: Limits, complaints: list[str]
    ) -> Generator[tuple[int, VideoFrame]]:
        """Sound frames that count, with their numbers, from the key frame ``key`` or one before it.

        What is wrong meanwhile is added to ``complaints``.
        """
        if key == 0:
            with open_video(self._path, limits) as (container, stream):
                told = complaints.append if index.damage else None
                yield from enumerate(sound_frames(container, stream, limits, damaged=told))
            return
        with OPEN_FILES.entered(self._path, limits, index.count) as opened:
            container, stream = opened.container, opened.stream
            opened.sound = opened.sound and not index.damage

            def damaged(reason: str) -> None:
                complaints.append(reason)
                opened.sound = False

            begun = False
            sound = sound_frames(
                container,
                stream,
                limits,
                damaged=damaged,
                packets=_sought(container, stream, index, key, complaints),
                log=opened.note,
            )
            with closing(sound):  # nothing may go on reading when the file is lent to others
                for frame in sound:
                    begun = begun or frame.key_frame  # what is shown before may lack the pictures it was coded from
                    number = index.number_of(frame) if begun else None
                    if number is not None:
                        yield number, frame


def _sought(
    container: InputContainer, stream: VideoStream, index: FrameIndex, key: int, complaints: list[str]
) -> Iterator[tuple[int, Packet[VideoStream]]] | None:
    """Seek to the key frame ``key``; gives the packets from there on where they are numbered."""
    if index.packets is not None:
        return index.packets.enter(container, stream, packets_of(container, stream, complaints), key)
    if index.stamps is not None:
        container.seek(int(index.stamps[key]), stream=stream, backward=True)
    return None


def _without_loose_end(index: FrameIndex, decoded: int | None) -> FrameIndex:
    """The index of a file that is cut off, without frames that are shown after some that are missing."""
    if index.stamps is None or decoded is None:
        return index
    count = max(1, int(np.searchsorted(index.stamps, decoded, side="right")))
    keys = index.keys[index.keys < count]
    cut = replace(index, count=count, times=index.times[:count], stamps=index.stamps[:count], keys=keys)
    if cut.packets is None:
        return cut
    return replace(cut, packets=replace(cut.packets, origins=cut.packets.origins[:count]))


def _stretch(index: FrameIndex, place: int, reason: str) -> Damage:
    """The damage between the frames ``place - 1`` and ``place``."""
    step = float(np.median(np.diff(index.times))) if index.count > 1 else 0.0
    start = float(index.times[place - 1]) + step if place else 0.0
    return Damage(start, float(index.times[place]) if place < index.count else math.inf, place, reason)


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

    The earlier ones are only needed where a seek leads past its aim, as it does in MPEG transport streams, or where
    decoding does not begin at every key frame.
    """
    if index.stamps is None and index.packets is None:
        return [0]
    last = int(np.searchsorted(index.keys, start, side="right")) - 1
    return list(dict.fromkeys([int(index.keys[max(0, last - back)]) for back in (0, 1, 2, 8)] + [0]))


def riff_is_whole(path: Path) -> bool:
    """Whether an AVI file has all the bytes that it says it has.

    Of pictures that are dropped or shown long it holds fewer than its header counts.
    """
    size = path.stat().st_size
    place = 0
    with path.open("rb") as file:
        while place + 8 <= size:
            file.seek(place)
            name, length = struct.unpack("<4sI", file.read(8))
            if name != b"RIFF":
                break  # other programs' additions
            place += 8 + length + length % 2
    return 0 < place <= size + 1
