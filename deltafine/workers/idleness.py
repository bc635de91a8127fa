"""Whether this process does anything: one that waits for a storage that does not answer, or for itself, does not."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

LEAST_SHARE = 0.01
"""Of a processor: whoever uses less, does nothing."""
LEAST_BYTES = 1 << 16
"""The same, in a second, that are read and written."""
THREADS_THAT_WORK = "deltafine-video"
"""How the names of threads begin that count although they do not keep the process from ending."""

_OF_PROCESS = Path("/proc/self")


class Idleness:
    """For how long this process has done nothing: used no processor time, read nothing and written nothing.

    Threads that watch others, or draw a progress bar, do not count.
    """

    def __init__(self) -> None:
        self._last = self._active = time.monotonic()
        self._seen = _used(), _moved()

    def look(self) -> None:
        """See what was done since the last look; to be called every few seconds."""
        now, seen = time.monotonic(), (_used(), _moved())
        passed, self._last = now - self._last, now
        used, moved = seen[0] - self._seen[0], seen[1] - self._seen[1]
        self._seen = seen
        if used > LEAST_SHARE * passed or moved > LEAST_BYTES * passed:
            self._active = now

    @property
    def seconds(self) -> float:
        """Seconds since it was last seen to do something."""
        return time.monotonic() - self._active


def _used() -> float:
    """Seconds of processor time of all threads that work."""
    watching = [
        thread.native_id
        for thread in threading.enumerate()
        if thread.daemon and not thread.name.startswith(THREADS_THAT_WORK)
    ]
    return time.process_time() - sum(map(_used_by, watching))


def _used_by(thread: int | None) -> float:
    """Seconds of processor time of one thread; 0 where the system does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = (_OF_PROCESS / "task" / str(thread) / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _moved() -> int:
    """Bytes that were read and written so far; 0 where the system does not tell."""
    with contextlib.suppress(OSError, ValueError):
        lines = (_OF_PROCESS / "io").read_text().splitlines()
        return sum(int(line.partition(":")[2]) for line in lines if line.startswith(("rchar", "wchar")))
    return 0
