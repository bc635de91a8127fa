"""A file of decoded frames: HDF5 in the layout of ``layouts.hdf5``, read without the HDF5 library.

It is written under another name and renamed when it is complete, so that a file under its own name is whole,
whoever else writes at the same time. Every video carries a checksum, compared when it is first read: what was
damaged later is decoded again, and the file is removed so that the next run makes a new one.
"""

from __future__ import annotations

import contextlib
import io
import json
import threading
import warnings
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np

from deltafine.errors import DeltafineWarning
from deltafine.storage.files import discard, is_damage
from deltafine.video.frames import Damage, FrameIndex

FORMAT = 2
BLOCK = 8 << 20
SourceKey = tuple[str, str | None]


def cache_file(directory: Path, key: str) -> Path:
    """Where the cache with this key is."""
    return directory / f"frames-{key}.h5"


def is_cache(path: Path) -> bool:
    """Whether the name is that of a cache."""
    return path.name.startswith("frames-") and path.suffix == ".h5"


class FrameCache:
    """An open cache. Made by ``open_cache``.

    Attributes:
        path: The file.
        size: Height and width of the frames.
        channels: 3 or 1.
        bits: How many bits were taken for used in pictures of 16 bits; 0 where there are none.
        indexes: What reading through each source had shown; a text where it was unreadable.
    """

    def __init__(self, path: Path, size: tuple[int, int], channels: int) -> None:
        self.path = path
        self.size = size
        self.channels = channels
        self.bits = 0
        self.indexes: dict[SourceKey, FrameIndex | str] = {}
        self._places: dict[SourceKey, _Place] = {}
        self._sound: dict[SourceKey, bool] = {}
        self._lock = threading.Lock()
        self._of_thread = threading.local()

    def read(self, source: SourceKey, wanted: np.ndarray, out: np.ndarray) -> bool:
        """Read frames ``wanted`` into ``out`` (len(wanted), H, W, C); False when they are not here or damaged."""
        place = self._places.get(source)
        positions = None if place is None else place.positions(wanted)
        if place is None or positions is None:
            return False
        frame_bytes = out[0].nbytes
        # one read for each stretch of frames that lie behind each other
        cuts = [0, *(np.flatnonzero(place.parted(positions)) + 1).tolist(), len(wanted)]
        try:
            if not self._is_sound(source, place):
                return False
            file = self._file()
            for begin, stop in pairwise(cuts):
                file.seek(place.offset(int(positions[begin]), frame_bytes))
                if not _fill(file, out[begin:stop].reshape(-1).data):
                    return False
        except OSError:
            return False  # another thread found it damaged, somebody removed it, or the disk cannot give it
        return True

    def _file(self) -> io.RawIOBase:
        file = getattr(self._of_thread, "file", None)
        if file is None:
            file = self._of_thread.file = self.path.open("rb", buffering=0)
        return file

    def _is_sound(self, source: SourceKey, place: _Place) -> bool:
        with self._lock:
            if source not in self._sound:
                self._sound[source] = self._checksum(place) == place.checksum
                if not self._sound[source]:
                    _say_unused(self.path, f"the frames of {source[0]} have changed")
                    discard(self.path)  # the next run tries again
            return self._sound[source]

    def _checksum(self, place: _Place) -> int:
        checksum = 0
        with self.path.open("rb") as file:
            for offset, left in place.pieces():
                file.seek(offset)
                while left and (block := file.read(min(left, BLOCK))):
                    checksum = zlib.crc32(block, checksum)
                    left -= len(block)
        return checksum


class _Place:
    """Where a source's frames are in the file, in runs of neighbouring frames.

    Args:
        runs: first frame and number of frames of each.
        offsets: (pieces,) int64, bytes of the file at which pieces of so many frames begin.
        rows: frames in a piece; the last one may have fewer.
        size: bytes of all frames.
        checksum: of them.
    """

    __slots__ = ("_before", "_counts", "_firsts", "_offsets", "_rows", "_size", "checksum")

    def __init__(self, runs: list[list[int]], offsets: np.ndarray, rows: int, size: int, checksum: int) -> None:
        self.checksum = checksum
        self._offsets, self._rows, self._size = offsets, rows, size
        self._firsts, self._counts = np.array(runs, np.int64).T
        self._before = np.cumsum(self._counts) - self._counts

    def offset(self, position: int, frame_bytes: int) -> int:
        """At which byte of the file a stored frame begins."""
        return int(self._offsets[position // self._rows]) + position % self._rows * frame_bytes

    def parted(self, positions: np.ndarray) -> np.ndarray:
        """(n - 1,) bool: whether something lies between two of the stored frames ``positions``."""
        apart: np.ndarray = (np.diff(positions) != 1) | (positions[1:] % self._rows == 0)
        return apart

    def pieces(self) -> Iterator[tuple[int, int]]:
        """First byte and number of bytes of each piece."""
        whole = self._size // int(self._counts.sum()) * self._rows
        for number, offset in enumerate(self._offsets.tolist()):
            yield offset, min(whole, self._size - number * whole)

    def positions(self, wanted: np.ndarray) -> np.ndarray | None:
        """Which of the stored frames the frames ``wanted`` are; None when one is not here."""
        run = np.searchsorted(self._firsts, wanted, side="right") - 1
        inside = wanted - self._firsts[run]
        if (run < 0).any() or (inside >= self._counts[run]).any():
            return None
        positions: np.ndarray = self._before[run] + inside
        return positions


def open_cache(path: Path, sources: list[SourceKey], stamps: list[tuple[int, int]]) -> FrameCache | None:
    """Open a cache; None when there is none, or when it is not whole, in which case it is removed.

    Args:
        path: The file.
        sources: What its videos are read from, in the order in which they were written.
        stamps: The sources' present ``file_stamp``; their contents are known to be what they were.
    """
    if not path.exists():
        return None
    try:
        with h5py.File(path, "r", locking=False) as file:  # it is never changed once it has its name
            if file.attrs.get("format") != FORMAT or not file.attrs.get("complete"):
                raise OSError("it is not complete")
            if file.attrs.get("tables", found := checksum_of_tables(file)) != found:  # earlier versions kept none
                raise OSError("its tables have changed")
            return _read_tables(file, path, sources, stamps)
    except Exception as error:  # whatever HDF5, JSON and NumPy make of a file that is damaged
        _say_unused(path, str(error))
        if is_damage(error):
            discard(path)  # whoever writes the new one will say that it cannot be replaced
        return None


def checksum_of_tables(file: h5py.File) -> int:
    """Of everything that is read at the beginning."""
    checksum = zlib.crc32(repr([int(value) for value in (*file.attrs["shape"], file.attrs["bits"])]).encode())
    checksum = zlib.crc32(file["table"][()], checksum)
    return zlib.crc32(np.ascontiguousarray(file["times"][()]).data, checksum)


def _read_tables(file: h5py.File, path: Path, sources: list[SourceKey], stamps: list[tuple[int, int]]) -> FrameCache:
    height, width, channels = (int(value) for value in file.attrs["shape"])
    cache = FrameCache(path, (height, width), channels)
    cache.bits = int(file.attrs.get("bits", 0))
    entries = json.loads(file["table"][()])
    times = file["times"][()]
    passed = 0
    for number, (source, stamp, entry) in enumerate(zip(sources, stamps, entries, strict=True)):
        if "problem" in entry:
            cache.indexes[source] = str(entry["problem"])
            continue
        count = int(entry["count"])
        cache.indexes[source] = FrameIndex(
            count,
            times[passed : passed + count],
            int(entry["width"]),
            int(entry["height"]),
            str(entry["codec"]),
            stamp,
            peak=int(entry.get("peak", 0)),
            damage=tuple(Damage(*damage) for damage in entry.get("damage", ())),
        )
        passed += count
        frames = file[f"videos/{number:06d}/frames"]
        offsets, rows = _pieces(frames)
        if rows:
            cache._places[source] = _Place(entry["runs"], offsets, rows, frames.size, int(entry["checksum"]))
    return cache


def _pieces(frames: h5py.Dataset) -> tuple[np.ndarray, int]:
    """Where the pieces of a data set begin in the file, and the rows of each; 0 rows where nothing is stored."""
    if frames.chunks is None:
        offset = frames.id.get_offset()  # there is none when no frame is shown
        return (np.zeros(0, np.int64), 0) if offset is None else (np.array([offset]), len(frames))
    rows = frames.chunks[0]
    offsets = np.zeros(-(-len(frames) // rows), np.int64)

    def note(piece: h5py.h5d.StoreInfo) -> None:
        offsets[piece.chunk_offset[0] // rows] = piece.byte_offset

    frames.id.chunk_iter(note)
    if not offsets.all() or frames.chunks[1:] != frames.shape[1:]:
        raise OSError("its frames are not complete")
    return offsets, rows


def _say_unused(path: Path, reason: str) -> None:
    said = f"Kept frames are not used, and decoded again: {path} ({' '.join(reason.split()).rstrip('.')[:200]})."
    warnings.warn(said, DeltafineWarning, stacklevel=2)


def _fill(file: io.RawIOBase, target: memoryview) -> bool:
    while target:
        with contextlib.suppress(InterruptedError):
            got = file.readinto(target)
            if not got:
                return False
            target = target[got:]
    return True
