"""One source that is read by a thread of its own, and what of it is to be played next."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from deltafine.video.frames import UnreadableVideo
from deltafine.video.live import LONGEST_SILENCE, SILENT, Shot, opened, said_of
from deltafine.video.named_source import NamedSource
from deltafine.video.raw_frames import RawFormat

ANSWERING = 10.0, 5.0
"""Seconds that a live source may take to answer, at first and when it is connected to again."""
SILENCE = 1.5
"""Seconds without a frame after which a live source counts as broken off, unless it has shown to be slower."""
PAUSE = 0.5
"""Seconds at most between two tries to connect again."""


@dataclass(frozen=True)
class Waiting:
    """A frame that waits to be played.

    Attributes:
        number: of the frame in its source, from 0 on.
        arrived: when it was decoded, seconds since 1970.
    """

    number: int
    arrived: float
    shot: Shot


@dataclass(frozen=True)
class End:
    """The source has no more frames. ``failure`` is the sentence that says why, if that is not as it should be."""

    failure: str = ""


class Feed:
    """One source.

    Of a recording every frame waits until it is taken. Of a live source the newest one takes the place of the one
    that waits, which is then skipped; where it breaks off, it is connected to again.

    Args:
        source: what to read.
        size, channels, raw: as for ``opened``.
        ready: is given this feed whenever something waits and nobody is at it. Whoever takes it from there calls
            ``take``, and then ``done``.
        say: is given a sentence about what becomes of the connection.
        fps: at most so many frames in a second; None for all.
        insist: whether a live source that cannot be opened at the start is tried again as one that broke off.

    Attributes:
        skipped: frames that nobody took.
        reconnections: how often the source was connected to again.
    """

    def __init__(
        self,
        source: NamedSource,
        size: tuple[int, int],
        channels: int,
        raw: RawFormat | None,
        *,
        ready: queue.SimpleQueue[Feed | None],
        say: Callable[[str], None],
        fps: float | None = None,
        insist: bool = False,
    ) -> None:
        self.source = source
        self.skipped = self.reconnections = 0
        self._how = (size, channels, raw)
        self._ready, self._say, self._insist = ready, say, insist
        self._period, self._due = (1 / fps if fps else 0.0), 0.0
        self._changed = threading.Condition()
        self._waiting: Waiting | End | None = None
        self._scheduled = False
        self._over = threading.Event()
        self._number = 0
        self._silence = SILENCE
        self._thread = threading.Thread(target=self._read, name=f"deltafine-{source.label}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Read no more; the thread ends as soon as the source lets it."""
        self._over.set()
        with self._changed:
            self._changed.notify_all()

    def join(self, seconds: float) -> None:
        self._thread.join(max(seconds, 0.0))

    def take(self) -> Waiting | End:
        """What waits."""
        with self._changed:
            taken, self._waiting = self._waiting, None
            self._changed.notify_all()
        assert taken is not None  # else it is not given to anybody
        return taken

    def done(self) -> None:
        """What was taken is played: the next may be."""
        with self._changed:
            self._scheduled = self._waiting is not None
        if self._scheduled:
            self._ready.put(self)

    def _offer(self, what: Waiting | End, live: bool) -> None:
        with self._changed:
            if live and isinstance(self._waiting, Waiting) and isinstance(what, Waiting):
                self._waiting = None
                self.skipped += 1
            while self._waiting is not None and not self._over.is_set():
                self._changed.wait()
            self._waiting = what
            if self._scheduled:
                return
            self._scheduled = True
        self._ready.put(self)

    def _read(self) -> None:
        try:
            failure = self._until_its_end()
        except Exception as error:  # whatever it is, nobody else would hear of it
            failure = said_of(self.source, f"cannot be read ({type(error).__name__}: {error})")
        if not self._over.is_set():
            self._offer(End(failure), live=False)

    def _until_its_end(self) -> str:
        """Give all frames; the sentence about a failure, if it ends with one."""
        live, lost = self.source.kind in ("address", "camera") and self._insist, 0.0
        pause = 0.0
        while not self._over.wait(pause):
            before = self._number
            try:
                patience = (ANSWERING[bool(lost)], self._silence)
                with opened(self.source, *self._how, patience=patience) as connection:
                    live = connection.live
                    for shot in connection.shots:
                        if lost:
                            self.reconnections += 1
                            self._say(f"is back after {time.monotonic() - lost:.1f} s")
                            lost = pause = 0.0
                        self._give(shot, live)
                        if self._over.is_set():
                            return ""
                reason = "has ended"
            except UnreadableVideo as error:
                reason = str(error)
                if not live:
                    return said_of(self.source, reason)
                if reason == SILENT and self._number - before < 2:  # it may be slow, not gone
                    self._silence = min(2 * self._silence, LONGEST_SILENCE)
            if not live:
                return ""
            if not lost:
                lost = time.monotonic()
                self._say(f"{reason}: connecting again")
            pause = min(pause + 0.1, PAUSE)
        return ""

    def _give(self, shot: Shot, live: bool) -> None:
        number, now = self._number, time.monotonic()
        self._number += 1
        early = self._due - now
        if self._period and early > 0:
            if live:
                if early > self._period / 4:  # frames do not come at even times
                    return
            elif self._over.wait(early):
                return
        if self._period:
            self._due = max(self._due, now - self._period) + self._period
        self._offer(Waiting(number, time.time(), shot), live)
