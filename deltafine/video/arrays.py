"""Videos that are arrays in an HDF5 file: a row of ``frames`` (N, T, H, W, C), or a data set of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from av.video.frame import VideoFrame

from deltafine.video.conversion import Converter, array_frame
from deltafine.video.frames import FrameIndex, Limits, UnreadableVideo, file_stamp

FRAMES_PER_SECOND = 25
"""What arrays count as unless their ``rate`` attribute says otherwise."""

CHUNK = 64
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

    def scan(self, limits: Limits, sink: Callable[[VideoFrame], None] | None = None) -> FrameIndex:
        """See ``FrameSource``."""
        stamp = file_stamp(self._path)
        count, height, width, rate = self._measure()
        if count > limits.frames:
            raise UnreadableVideo(f"has more than {limits.frames} frames")
        if height * width > limits.pixels:
            raise UnreadableVideo(f"has pictures of {width}x{height}, more than {limits.pixels} pixels")
        for start in range(0, count, CHUNK):  # reading all of it shows whether it can be read
            for picture in self._read(start, min(start + CHUNK, count)):
                if sink is not None:
                    sink(array_frame(picture))
        return FrameIndex(count, np.arange(count) / rate, width, height, "arrays", stamp)

    def pictures(
        self, index: FrameIndex, convert: Converter, limits: Limits, start: int, keep: set[int] | None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """See ``FrameSource``."""
        if file_stamp(self._path) != index.stamp:
            raise UnreadableVideo("changed while it was in use")
        stop = index.count if keep is None else max(keep) + 1
        for first in range(start, stop, CHUNK):
            for number, picture in enumerate(self._read(first, min(first + CHUNK, stop)), start=first):
                if keep is None or number in keep:
                    yield number, convert.array(picture)

    def _measure(self) -> tuple[int, int, int, float]:
        with _lock, self._open() as data:
            shape = data.shape if self._row is None else data.shape[1:]
            if data.dtype != np.uint8 or len(shape) != 4 or shape[-1] not in (1, 3) or 0 in shape:
                raise UnreadableVideo(f"holds {data.dtype} of shape {shape} where uint8 (T, H, W, 1 or 3) was expected")
            rate = float(data.attrs.get("rate", FRAMES_PER_SECOND))
        return shape[0], shape[1], shape[2], rate if rate > 0 else FRAMES_PER_SECOND

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

    def __enter__(self) -> Any:
        try:
            self._file = h5py.File(self._path, "r")
            return self._file[self._name]
        except (OSError, KeyError) as error:
            self.__exit__(None, None, None)
            raise UnreadableVideo("cannot be read as HDF5") from error

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if self._file is not None:
            self._file.close()
        if isinstance(error, OSError):
            raise UnreadableVideo("cannot be read as HDF5") from error
