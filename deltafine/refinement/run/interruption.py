"""Stopping a run so that nothing is lost, and in time."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from deltafine.errors import Interrupted

SECONDS_TO_STOP = 8.0
"""After SIGTERM, which machines that are taken away send some 10 s or more before they are gone."""


class Requests:
    """Turns Ctrl-C and SIGTERM into :class:`Interrupted`, raised at once, or between two steps where they are held.

    A second Ctrl-C always takes effect at once. A process that has not ended some seconds after a SIGTERM, because it
    is in the middle of a long step or of a long video, is ended as if it had been killed: what it has written is
    whole. In other threads than the main one signals cannot be caught, and are left as they are.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._held = False
        self._before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}
        self._watch: _Watch | None = None

    @property
    def stop(self) -> bool:
        """Whether someone wants the run to stop."""
        return self.signal != 0

    def obey(self) -> None:
        """Stop the run if someone wants it to.

        Raises:
            Interrupted: somebody does.
        """
        if self.stop:
            raise Interrupted(None, self.signal)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Within the block signals wait until :meth:`obey` is called, or the block is over."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        self.obey()

    def __enter__(self) -> Requests:
        if threading.current_thread() is threading.main_thread():
            self._watch = _Watch()
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
        if self._watch is not None:
            self._watch.close()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        again = self.stop
        self.signal = self.signal or number
        if not self._held:
            raise Interrupted(None, self.signal)
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt


class _Watch:
    """Ends the process some time after SIGTERM, even while the main thread is deep in a library.

    Python's own handlers wait for the main thread to come back; the wake-up descriptor does not.
    """

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._over = threading.Event()
        threading.Thread(target=self._wait, name="deltafine-sigterm", daemon=True).start()

    def close(self) -> None:
        """Give the descriptor back; what comes now is up to whoever had it before."""
        signal.set_wakeup_fd(self._before)
        self._over.set()
        self._writer.close()

    def _wait(self) -> None:
        with self._reader:
            while numbers := self._noted():
                if signal.SIGTERM in numbers:
                    break
            else:
                return
        if not self._over.wait(SECONDS_TO_STOP):
            said = b"Interrupted in the middle of something long: go on with --resume from the last checkpoint.\n"
            with contextlib.suppress(OSError):  # whoever read it may have left
                os.write(2, said)
            os._exit(128 + signal.SIGTERM)

    def _noted(self) -> bytes:
        """Numbers of signals; nothing once the other end is closed, which is an error where it held any unread."""
        try:
            return self._reader.recv(64)
        except ConnectionResetError:
            return b""
