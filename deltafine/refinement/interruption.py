"""Stopping a run between two steps, so that nothing is lost."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any


class Interrupted(KeyboardInterrupt):
    """The run was stopped; ``saved`` is the best model so far, if an epoch was over, ``signal`` what stopped it."""

    def __init__(self, saved: Path | None, signal: int) -> None:
        super().__init__()
        self.saved = saved
        self.signal = signal


class Requests:
    """Holds Ctrl-C and SIGTERM back until the training asks; a second Ctrl-C takes effect at once.

    In other threads than the main one signals cannot be caught, and are left as they are.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}

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

    def __enter__(self) -> Requests:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
