"""Keeping compiled kernels between starts, such that a damaged file costs only the time to compile again.

numba unpickles what it finds in its cache and runs the machine code in it. Here each file begins with a digest of what
follows; one that does not fit counts as not there.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile, UserWideCacheLocator

from deltafine.errors import DeltafineError, DeltafineWarning
from deltafine.storage.files import write_atomically

_HEADER = f"deltafine kernels, numba {numba.__version__}\n".encode()
_DIGEST = 32
NOWHERE = (
    "Compiled kernels cannot be kept{}: every start on this machine compiles them again, which takes a minute or two."
)


class _CheckedFiles(IndexDataCacheFile):
    """numba's index and data files, each with a digest in front."""

    def _load_index(self) -> dict[Any, str]:
        content = self._read(Path(self._index_path))
        if content is None:
            return {}
        stamp, overloads = content
        return overloads if stamp == self._source_stamp else {}

    def _save_index(self, overloads: dict[Any, str]) -> None:
        self._write(Path(self._index_path), (self._source_stamp, overloads))

    def _load_data(self, name: str) -> Any:
        return self._read(Path(self._data_path(name)))

    def _save_data(self, name: str, data: Any) -> None:
        self._write(Path(self._data_path(name)), data)

    def _write(self, path: Path, values: Any) -> None:
        body = self._dump(values)
        write_atomically(path, _HEADER + hashlib.sha256(body).digest() + body)

    @staticmethod
    def _read(path: Path) -> Any:
        """What was written; None if it is not there or not whole."""
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            _say_unused(path, f"cannot be read: {error.strerror or error}")
            return None
        begin = len(_HEADER) + _DIGEST
        body = content[begin:]
        if content[:begin] != _HEADER + hashlib.sha256(body).digest():
            _say_unused(path, "damaged, or of another version")
            return None
        return pickle.loads(body)


def _has_home() -> bool:
    return bool(os.environ.get("XDG_CACHE_HOME")) or os.path.expanduser("~") != "~"  # noqa: PTH111 (that one raises)


class _Places(CompileResultCacheImpl):
    """Where files are kept: as numba does it, but not in a folder called ``~`` for a user who has no home."""

    _locator_classes = [
        place for place in CompileResultCacheImpl._locator_classes if place is not UserWideCacheLocator or _has_home()
    ]


class KernelCache(FunctionCache):
    """numba's cache of one function; whatever is wrong with its files, the function is compiled."""

    _impl_class = _Places

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = _CheckedFiles(
            cache_path=self._cache_path,
            filename_base=self._impl.filename_base,
            source_stamp=self._impl.locator.get_source_stamp(),
        )

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(signature, target_context)
        except Exception as error:  # the file is as it was written, and yet not what this numba can load
            _say_unused(Path(self._cache_path), f"cannot be loaded: {type(error).__name__}")
            return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        try:
            super().save_overload(signature, compiled)
        except (OSError, DeltafineError) as error:
            warnings.warn(NOWHERE.format(f" in {self._cache_path} ({error})"), DeltafineWarning, stacklevel=2)


def _say_unused(path: Path, why: str) -> None:
    warnings.warn(f"Kept kernels are not used, and are compiled again: {path} ({why}).", DeltafineWarning, stacklevel=2)
