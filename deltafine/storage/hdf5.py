"""HDF5 files: written so that a full disk is an error and not the end of the process, and read with distrust."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from deltafine.errors import DeltafineError
from deltafine.storage.files import write_atomically

DAMAGE = (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError)
"""What the library raises where a file is damaged; names that are no text are ``ValueError``, too."""
MOST_OBJECTS = 1_000_000
MOST_ATTRIBUTE_BYTES = 1 << 26
MOST_CHUNK_BYTES = 1 << 28
INFLATION = 1000
"""How far compression may go; what is more, and large, is an empty promise."""
SLACK = 1 << 26


def check(file: h5py.File) -> None:
    """Go through a file that others made by its tables, without reading data.

    Raises:
        DeltafineError: it leads to other files, or names sizes that it does not have.
        OSError: it is damaged.
    """
    waiting, seen = [file], set()
    while waiting:
        group = waiting.pop()
        check_attributes(group)
        for name in group:
            where = f"{group.name.rstrip('/')}/{name}"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise DeltafineError(f"'{where}' in it is a link to somewhere else, which is not followed.")
            item = group[name]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                continue
            seen.add(address)
            if len(seen) > MOST_OBJECTS:
                raise DeltafineError(f"it holds more than {MOST_OBJECTS:,} objects.")
            if isinstance(item, h5py.Group):
                waiting.append(item)
            elif isinstance(item, h5py.Dataset):
                check_attributes(item)
                check_dataset(item)


def check_dataset(data: h5py.Dataset) -> None:
    """Refuse a data set that lies in other files, or claims to be larger than what is stored can be.

    Raises:
        DeltafineError: it is one.
    """
    if data.external or data.is_virtual:
        raise DeltafineError(f"'{data.name}' in it lies in another file, which is not opened.")
    size = _bytes(data.shape, data.dtype)
    chunk = _bytes(data.chunks or (), data.dtype)
    if size > SLACK + INFLATION * data.id.get_storage_size() or chunk > MOST_CHUNK_BYTES:
        raise DeltafineError(
            f"'{data.name}' in it claims {size:,} bytes (shape {data.shape}) and holds {data.id.get_storage_size():,}."
        )


def check_attributes(item: h5py.Group | h5py.Dataset) -> None:
    """Refuse attributes of absurd size; they are read as a whole.

    Raises:
        DeltafineError: there is one.
    """
    for name in item.attrs:
        attribute = item.attrs.get_id(name)
        size = _bytes(attribute.shape or (), attribute.dtype)
        if size > MOST_ATTRIBUTE_BYTES:
            raise DeltafineError(f"the attribute '{name}' of '{item.name}' in it claims {size:,} bytes.")


def _bytes(shape: tuple[int, ...] | None, dtype: np.dtype) -> int:
    size = dtype.itemsize
    for length in shape or ():
        size *= int(length)
    return size


def write(path: Path, fill: Callable[[WrittenFile], object]) -> None:
    """Write an HDF5 file, whole or not at all.

    The HDF5 library crashes where the disk fills while it closes a file; so it never learns of it.

    Args:
        path: what to write.
        fill: is given the file, and puts everything into it.

    Raises:
        CannotWrite: the disk is full, or the place may not be written.
    """

    def write_to(temporary: Path) -> None:
        with temporary.open("wb+", buffering=0) as raw:
            patient = _Patient(raw)
            try:
                with WrittenFile(patient) as file:
                    fill(file)
            finally:
                if patient.error is not None:
                    raise patient.error

    write_atomically(path, write_to)


class WrittenFile(h5py.File):
    """An ``h5py.File`` to write to."""

    def __init__(self, patient: _Patient) -> None:
        super().__init__(patient, "w")
        self._patient = patient

    def check_room(self) -> None:
        """Stop writing where it has failed already; without, that shows when the file is closed.

        Raises:
            OSError: something could not be written so far.
        """
        if self._patient.error is not None:
            raise self._patient.error

    @property
    def failed(self) -> bool:
        """Whether something could not be written so far."""
        return self._patient.error is not None


class _Patient(io.RawIOBase):
    """A file that takes everything, and remembers the first error."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self._lost: dict[int, bytes] = {}
        self._place = 0
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        content = memoryview(data).cast("B")
        try:
            if self.error is None:
                self._raw.seek(self._place)
                written = 0
                while written < len(content):
                    written += self._raw.write(content[written:])
        except OSError as error:
            self.error = error
        if self.error is not None:
            self._lost[self._place] = bytes(content[: 1 << 16])  # HDF5 may want to see its own notes again
        self._place += len(content)
        return len(content)

    def readinto(self, target: Any) -> int:
        room = memoryview(target).cast("B")
        self._raw.seek(self._place)
        got = self._raw.readinto(room) or 0
        if self.error is not None:
            room[got:] = bytes(len(room) - got)
            lost = self._lost.get(self._place, b"")[: len(room)]
            room[: len(lost)] = lost
            got = len(room)
        self._place += got
        return got

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = (0, self._place, self._raw.seek(0, io.SEEK_END))[whence]
        self._place = base + offset
        return self._place

    def tell(self) -> int:
        return self._place

    def truncate(self, size: int | None = None) -> int:
        size = self._place if size is None else size
        try:
            if self.error is None:
                self._raw.truncate(size)
        except OSError as error:
            self.error = error
        return size

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
