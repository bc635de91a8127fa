"""Where the frames of a dataset's videos come from: decoded each time, or kept in a cache."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from deltafine.video.cache import FrameCache, SourceKey
from deltafine.video.catalogue import Video
from deltafine.video.conversion import Converter
from deltafine.video.ends import Ends, small
from deltafine.video.examination import Examination
from deltafine.video.frames import UnreadableVideo, read_frames

MOST_ENDS = 1 << 15
"""Videos of which both ends are kept, a few kilobytes each; of others they are decoded again."""


class Reader(Protocol):
    """Gives frames of one size; may be used by several threads at once."""

    size: tuple[int, int]
    channels: int
    cheap: bool
    """Whether any few frames cost no more than neighbouring ones."""

    def read(self, video: Video, wanted: np.ndarray, out: np.ndarray) -> None:
        """Read frames ``wanted`` (ascending, repeats allowed) of a video into ``out`` (len(wanted), H, W, C) uint8.

        Raises:
            UnreadableVideo: The file is not any more what it was when it was scanned.
        """

    def stream(self, video: Video, wanted: np.ndarray, chunk: int) -> Iterator[np.ndarray]:
        """The same, ``chunk`` frames at a time."""

    def ends(self, video: Video, first: int, last: int) -> np.ndarray:
        """(2, values): two frames of a video, ``small``; cheap where these are both ends of its file."""


class DecodedFrames:
    """Decodes what is asked for."""

    cheap = False

    def __init__(self, examination: Examination, size: tuple[int, int], channels: int) -> None:
        self.size = size
        self.channels = channels
        self._examination = examination
        self._of_thread = threading.local()
        self._ends: dict[SourceKey, Ends] = {}

    def converter(self) -> Converter:
        """What makes these frames, for one thread."""
        return Converter(self.size, self.channels, self._examination.depth)

    def sees(self, video: Video) -> Ends | None:
        """What to give every frame of a video's file to when it is read through, so that its ends are known."""
        if len(self._ends) >= MOST_ENDS:
            return None
        ends = self._ends[video.source] = Ends(self.converter())
        return ends

    def ends(self, video: Video, first: int, last: int) -> np.ndarray:
        """See ``Reader``."""
        seen, index = self._ends.get(video.source), self._examination.index(video)
        if seen is not None and index is not None and (first, last) == (0, index.count - 1):
            pictures = seen.pictures(index.count)
            if pictures is not None:
                return pictures
        return _ends_read_by(self, video, first, last)

    def read(self, video: Video, wanted: np.ndarray, out: np.ndarray) -> None:
        """See ``Reader``."""
        converter = getattr(self._of_thread, "converter", None)
        if converter is None:
            converter = self._of_thread.converter = self.converter()
        source, index = self._examination.source(video)
        read_frames(source, index, wanted.tolist(), converter, self._examination.limits, out)

    def stream(self, video: Video, wanted: np.ndarray, chunk: int) -> Iterator[np.ndarray]:
        """See ``Reader``."""
        if not len(wanted):
            return
        source, index = self._examination.source(video)
        convert = self.converter()
        keep = None if len(wanted) == index.count else set(wanted.tolist())
        held = np.empty((min(chunk, len(wanted)), *convert.shape), np.uint8)
        given = filled = 0
        for number, picture in source.pictures(index, convert, self._examination.limits, int(wanted[0]), keep):
            while given + filled < len(wanted) and wanted[given + filled] == number:
                held[filled] = picture
                filled += 1
                if filled == len(held):
                    yield held
                    given += filled
                    filled = 0
                    held = np.empty((min(chunk, len(wanted) - given), *convert.shape), np.uint8)
            if given == len(wanted):
                return
        raise UnreadableVideo(f"gave {given + filled} of the {len(wanted)} frames that it had before")


class CachedFrames:
    """Reads from a cache, and decodes where the cache turns out to be damaged."""

    cheap = True

    def __init__(self, cache: FrameCache, decoded: DecodedFrames) -> None:
        self.size = cache.size
        self.channels = cache.channels
        self._cache = cache
        self._decoded = decoded

    def read(self, video: Video, wanted: np.ndarray, out: np.ndarray) -> None:
        """See ``Reader``."""
        if not self._cache.read(video.source, wanted, out):
            self._decoded.read(video, wanted, out)

    def ends(self, video: Video, first: int, last: int) -> np.ndarray:
        """See ``Reader``."""
        return _ends_read_by(self, video, first, last)

    def stream(self, video: Video, wanted: np.ndarray, chunk: int) -> Iterator[np.ndarray]:
        """See ``Reader``."""
        for begin in range(0, len(wanted), chunk):
            numbers = wanted[begin : begin + chunk]
            out = np.empty((len(numbers), *self.size, self.channels), np.uint8)
            self.read(video, numbers, out)
            yield out


def _ends_read_by(reader: Reader, video: Video, first: int, last: int) -> np.ndarray:
    frames = np.empty((2, *reader.size, reader.channels), np.uint8)
    for number, frame in enumerate((first, last)):  # one by one, because what is between need not be decoded
        reader.read(video, np.array([frame]), frames[number : number + 1])
    return small(frames)
