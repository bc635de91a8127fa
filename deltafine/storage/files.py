"""The one writer of files: a file is there whole or not at all. And reading small files that others may have made.

Everything that deltafine keeps is written by :func:`write_atomically`; tests/storage/test_one_writer.py holds that, and
names what is excepted.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deltafine.errors import DeltafineError

_UNFINISHED = ".writing"
JsonObject = dict[str, Any]
"""What a JSON object is read as, or written from."""
_UNFINISHED_NAMES = re.compile(r"\.(.+\.writing(\..+)?|.+\.partial\.\w+|frames-.+\.part)")
"""The last two are names that earlier versions gave; what they left when they were killed is removed as well."""
_MODELS = (b"\x89HDF\r\n\x1a\n", b"PK\x03\x04")
_LFS = b"version https://git-lfs.github.com/spec/"
_ONNX_SECOND = b"\x12\x1a\x22\x28\x32\x3a\x42"
"""Keys of what follows the version in an ONNX file: who made it, or its graph."""
ABANDONED_SECONDS = 24 * 3600.0
"""After so long nobody is writing a file any more that was begun."""
_NOT_NOW = {
    errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ESTALE, errno.ENOMEM, errno.ENOLCK,
}  # fmt: skip
_FULL = {errno.ENOSPC, errno.EDQUOT}


class CannotWrite(DeltafineError):
    """A file could not be written; what was there before is as it was."""


def write_atomically(path: Path, content: bytes | Callable[[Path], object]) -> None:
    """Write beside ``path``, force it to the disk and rename it into place.

    Args:
        path: what to write.
        content: the bytes, or a function that makes the file at the path that it is given, which ends as ``path`` does.

    Raises:
        CannotWrite: the disk is full, the place may not be written, or is none.
    """
    # Only a name of its own keeps two processes that write the same file from mixing it.
    temporary = path.with_name(f".{path.stem[:100]}.{secrets.token_hex(4)}{_UNFINISHED}{path.suffix}")
    try:
        try:
            if callable(content):
                content(temporary)
            else:
                temporary.write_bytes(content)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise CannotWrite(f"{path} cannot be written: {_reason(error)}.") from error


def looks_like_a_model(path: Path) -> bool:
    """Whether a file begins as a zip archive or HDF5 does, which is how Keras saves models."""
    with path.open("rb") as file:
        return file.read(len(_MODELS[0])).startswith(_MODELS)


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is what Git keeps in place of a large one until ``git lfs pull`` fetches that."""
    with path.open("rb") as file:
        return file.read(len(_LFS)) == _LFS


def looks_like_onnx(path: Path) -> bool:
    """Whether a file is called, or begins, as ONNX: that has no mark of its own, but its version stands first."""
    if path.suffix.lower() == ".onnx":
        return True
    with path.open("rb") as file:
        begin = file.read(3)
    return len(begin) == 3 and begin[0] == 8 and 0 < begin[1] < 64 and begin[2] in _ONNX_SECOND


def make_folder(folder: Path) -> None:
    """Make a folder and those above it where they are not there.

    Raises:
        CannotWrite: the disk is full, the place may not be written, or is none.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWrite(f"The folder {folder} cannot be made: {_reason(error)}.") from error


def is_damage(error: Exception) -> bool:
    """Whether an error in reading a file tells that it is damaged, and not that it cannot be read here and now."""
    return not isinstance(error, MemoryError) and getattr(error, "errno", None) not in _NOT_NOW


def discard(path: Path) -> None:
    """Remove what is damaged: a file, a link or an empty folder, if that can be done."""
    with contextlib.suppress(OSError):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def remove_unfinished(folder: Path, *, older_than: float = 0.0) -> None:
    """Remove what writers that were killed have left.

    Args:
        folder: where; nothing happens if it is not there.
        older_than: seconds; 0 only where nobody else can be writing now.
    """
    now = time.time()
    for left in filter(is_unfinished, folder.glob(".*")):
        with contextlib.suppress(FileNotFoundError):  # its writer has finished it
            if not older_than or now - left.stat().st_mtime > older_than:
                left.unlink()


def is_unfinished(path: Path) -> bool:
    """Whether the name is that of a file that is being written, by this version or an earlier one."""
    return _UNFINISHED_NAMES.fullmatch(path.name) is not None


def read_small(path: Path, most_bytes: int) -> bytes:
    """The bytes of a regular file that is no longer than ``most_bytes``.

    Raises:
        OSError: it cannot be read, or is no regular file (a pipe would be waited for).
        DeltafineError: it is longer, or a Git LFS pointer.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "is not a regular file")
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise DeltafineError(f"{path} is larger than {most_bytes >> 20} MiB, which no such file should be.")
    if content.startswith(_LFS):
        raise DeltafineError(f"{path} is a Git LFS pointer, a note in place of the file: fetch it with git lfs pull.")
    return content


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # not every file system can; the rename is done
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: OSError) -> str:
    if error.errno in _FULL:
        return "no space is left there; make room and give the command again"
    return error.strerror or " ".join(str(error).split())[:200]
