"""Videos that are arrays in an HDF5 file: a row of ``frames`` (N, T, H, W, C), or a data set of their own."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np
from av.video.frame import VideoFrame

from deltafine.storage.hdf5 import DAMAGE
from deltafine.video.conversion import Converter, array_frame
from deltafine.video.frames import FrameIndex, Limits, UnreadableVideo, file_stamp

FRAMES_PER_SECOND = 25
"""What arrays count as unless their ``rate`` attribute says otherwise."""

READ_BYTES = 16 << 20
MOST_CHUNK_BYTES = 1 << 30
"""Largest piece that a compressed data set may be stored in: HDF5 unpacks a whole one to give a single frame."""

_lock = threading.Lock()  # the HDF5 library serves one thread at a time


class ArrayVideo:
    """One video of an HDF5 file.

    Args:
        path: The file.
        entry: The name of a data set (T, H, W, C) uint8, or ``name:row`` for a row of one (N, T, H, W, C).
    """

    def __init__(self, path: Path, entry: str) -> None:
        self._path = path
        self._name, _, row = entry.partition(":")
        self._row = int(row) if row else None

    def stamp(self) -> tuple[int, int]:
        """See ``FrameSource``."""
        return file_stamp(self._path)

    def estimate(self, limits: Limits) -> int:
        """See ``FrameSource``."""
        return self._measure()[0]

    def scan(
        self, limits: Limits, sink: Callable[[VideoFrame], None] | None = None, *, whole: bool = True
    ) -> FrameIndex:
        """See ``FrameSource``."""
        stamp = file_stamp(self._path)
        limits = limits.of_file(stamp[0])
        count, height, width, rate = self._measure()
        if limits.frames is not None and count > limits.frames:
            raise UnreadableVideo(f"has more than {limits.frames} frames")
        if height * width > limits.pixels:
            raise UnreadableVideo(f"has pictures of {width}x{height}, more than {limits.pixels} pixels")
        deadline = math.inf if limits.seconds is None else time.thread_time() + limits.seconds
        for pictures in self._pieces(0, count):  # reading all of it shows whether it can be read
            if time.thread_time() > deadline:
                raise UnreadableVideo(f"takes longer than {limits.seconds:g} seconds of processor time to decode")
            if sink is not None:
                for picture in pictures:
                    sink(array_frame(picture))
        return FrameIndex(count, np.arange(count) / rate, width, height, "arrays", stamp)

    def pictures(
        self, index: FrameIndex, convert: Converter, limits: Limits, start: int, keep: set[int] | None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """See ``FrameSource``."""
        if file_stamp(self._path) != index.stamp:
            raise UnreadableVideo("changed while it was in use")
        stop = index.count if keep is None else max(keep) + 1
        number = start
        for pictures in self._pieces(start, stop):
            for picture in pictures:
                if keep is None or number in keep:
                    yield number, convert.array(picture)
                number += 1

    def _pieces(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Frames from ``start`` to before ``stop``, as many at a time as a few megabytes hold."""
        first = start
        frames = 1
        while first < stop:
            pictures = self._read(first, min(first + frames, stop))
            yield pictures
            first += len(pictures)
            frames = max(1, READ_BYTES // pictures[0].nbytes)

    def _measure(self) -> tuple[int, int, int, float]:
        with _lock, self._open() as data:
            shape = data.shape if self._row is None else data.shape[1:]
            if data.dtype != np.uint8 or len(shape) != 4 or shape[-1] not in (1, 3) or 0 in shape:
                raise UnreadableVideo(f"holds {data.dtype} of shape {shape} where uint8 (T, H, W, 1 or 3) was expected")
            if data.chunks and math.prod(data.chunks) > MOST_CHUNK_BYTES:
                raise UnreadableVideo(f"is stored in pieces of more than {MOST_CHUNK_BYTES} bytes")
            rate = data.attrs.get("rate", FRAMES_PER_SECOND)
        if not isinstance(rate, (int, float, np.number)) or not 1e-3 <= rate <= 1e5:
            raise UnreadableVideo(f"has the rate {rate}, which is no number of frames per second")
        return shape[0], shape[1], shape[2], float(rate)

    def _read(self, start: int, stop: int) -> np.ndarray:
        with _lock, self._open() as data:
            return data[start:stop] if self._row is None else data[self._row, start:stop]

    def _open(self) -> _Opened:
        return _Opened(self._path, self._name)


class _Opened:
    """A data set of a file, while it is open; what HDF5 finds wrong becomes ``UnreadableVideo``."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._name = name
        self._file: h5py.File | None = None

    def __enter__(self) -> h5py.Dataset:
        try:
            self._file = h5py.File(self._path, "r")
            return self._file[self._name]
        except DAMAGE as error:
            self.__exit__(None, None, None)
            raise UnreadableVideo("cannot be read as HDF5") from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
        if isinstance(error, DAMAGE):  # AttributeError when it is a group by now
            raise UnreadableVideo("cannot be read as HDF5") from error
