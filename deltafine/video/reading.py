"""Where the frames of a dataset's videos come from: decoded each time, or kept in a cache."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from deltafine.video.cache import FrameCache
from deltafine.video.catalogue import Video
from deltafine.video.conversion import Converter
from deltafine.video.examination import Examination
from deltafine.video.frames import UnreadableVideo, read_frames


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


class DecodedFrames:
    """Decodes what is asked for."""

    cheap = False

    def __init__(self, examination: Examination, size: tuple[int, int], channels: int) -> None:
        self.size = size
        self.channels = channels
        self._examination = examination
        self._of_thread = threading.local()

    def converter(self) -> Converter:
        """What makes these frames, for one thread."""
        return Converter(self.size, self.channels, self._examination.depth)

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

    def stream(self, video: Video, wanted: np.ndarray, chunk: int) -> Iterator[np.ndarray]:
        """See ``Reader``."""
        for begin in range(0, len(wanted), chunk):
            numbers = wanted[begin : begin + chunk]
            out = np.empty((len(numbers), *self.size, self.channels), np.uint8)
            self.read(video, numbers, out)
            yield out
