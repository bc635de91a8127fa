"""Where in a long video reading is, told now and then."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

from deltafine.video.finding import as_text

SECONDS_BETWEEN = 1.0

Within = Callable[[int, int, str], None]
"""Told how many of how many videos are done, and in words where in one of them reading is."""


class Meter:
    """Counts the frames of one video. Of one that is read in a moment it tells nothing.

    Args:
        tell: told where reading is, in words.
        name: of the video.
        frames: about how many there are; asked when there is something to tell.
    """

    def __init__(self, tell: Callable[[str], None], name: str, frames: Callable[[], int]) -> None:
        self._tell, self._name, self._frames = tell, name, functools.cache(frames)
        self._count = 0
        self._due = time.monotonic() + SECONDS_BETWEEN

    def count(self, frames: int = 1) -> None:
        """So many more were read."""
        self._count += frames
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + SECONDS_BETWEEN
        all_of_it = self._frames()
        of = f" of about {all_of_it:,}" if all_of_it >= self._count else ""
        self._tell(f"frame {self._count:,}{of}  {as_text(self._name)}")
