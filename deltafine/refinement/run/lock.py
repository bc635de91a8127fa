"""One process for one run directory."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from deltafine.errors import DeltafineError


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other processes out of a run directory that is there.

    The lock is the operating system's, on the directory itself: it leaves no file, and ends with the process, however
    that ends. File systems that know no locks are used without.

    Raises:
        DeltafineError: another process is at work there.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise DeltafineError(
                    f"Another process is at work in {directory}: wait for it, stop it, or choose another --out."
                ) from error
        yield
    finally:
        os.close(descriptor)
