"""One video's frames on their way into a cache: held while they are few, and written as they come from then on."""

from __future__ import annotations

import zlib

import h5py
import numpy as np
from av.video.frame import VideoFrame

from deltafine.storage.hdf5 import WrittenFile
from deltafine.video.conversion import Converter, is_deep

CHUNK_BYTES = 1 << 20
"""Of a data set whose length is not known when it is begun; so much of it may be empty."""


class KeptFrames:
    """Takes frames from a thread that decodes them. It never raises what the disk does: decoding is to go on.

    Pictures of 16 bits are not taken, because how deep they are is known when all videos were read.

    Args:
        file: Where they go if they are many.
        name: Of the data set in it.
        convert: Makes the pictures.
        most_bytes: Of pictures to hold.
    """

    def __init__(self, file: WrittenFile, name: str, convert: Converter, most_bytes: int) -> None:
        self._file, self._name, self._convert = file, name, convert
        frame_bytes = int(np.prod(convert.shape))
        self._rows = max(1, CHUNK_BYTES // frame_bytes)
        self._most = max(self._rows, most_bytes // frame_bytes)
        self._held: list[np.ndarray] = []
        self._stored: h5py.Dataset | None = None
        self._written = self._checksum = 0

    @property
    def count(self) -> int:
        """How many it has taken."""
        return self._written + len(self._held)

    def take(self, frame: VideoFrame) -> None:
        """Keep one more."""
        if is_deep(frame.format.name) or self._file.failed:
            return
        self._held.append(self._convert(frame).copy())
        if len(self._held) > self._most:
            self._write(len(self._held) // self._rows * self._rows)

    def held(self, count: int) -> np.ndarray | None:
        """All that it has taken, (count, H, W, C) uint8, which it forgets; None where these are not all, or written."""
        if self._stored is not None or not 0 < count == len(self._held):
            return None
        pictures = np.stack(self._held)
        self._held.clear()
        return pictures

    def finish(self, count: int) -> int | None:
        """Write what is held, and leave ``count`` frames; gives their checksum, or None where fewer were taken."""
        if self._stored is None or count > self.count:
            return None
        self._write(len(self._held))
        if count < self._written:  # those at the end turned out not to be sound
            self._stored.resize(count, axis=0)
            self._checksum = 0
            for begin in range(0, count, self._rows):
                self._checksum = zlib.crc32(self._stored[begin : begin + self._rows].data, self._checksum)
        return self._checksum

    def discard(self) -> None:
        """Forget them all."""
        self._held.clear()
        if self._stored is not None:
            self._stored = None
            del self._file[self._name]

    def _write(self, count: int) -> None:
        if not count:
            return
        pictures = np.stack(self._held[:count])
        if self._stored is None:
            shape = self._convert.shape
            self._stored = self._file.create_dataset(
                self._name, (0, *shape), np.uint8, maxshape=(None, *shape), chunks=(self._rows, *shape)
            )
        self._stored.resize(self._written + count, axis=0)
        self._stored[self._written :] = pictures
        self._checksum = zlib.crc32(pictures.data, self._checksum)
        self._written += count
        del self._held[:count]
