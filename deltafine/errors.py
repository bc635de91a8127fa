"""What can end or accompany a command: a failure that is the user's to mend, a warning, an interruption."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar


class DeltafineError(Exception):
    """Bad input or usage.

    The message is one sentence that says what is wrong, where, and what to do. The command line
    prints it without a traceback and exits with ``exit_code``.
    """

    exit_code: ClassVar[int] = 2


class DeltafineWarning(UserWarning):
    """Something was found and not used, or could not be kept; results are right all the same.

    The message is one sentence. The command line prints it as a line of its own.
    """


class Interrupted(KeyboardInterrupt):
    """The run was stopped; ``saved`` is the best model so far, if an epoch was over, ``signal`` what stopped it."""

    def __init__(self, saved: Path | None, signal: int) -> None:
        super().__init__()
        self.saved = saved
        self.signal = signal
