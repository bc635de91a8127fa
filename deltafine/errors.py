"""The one kind of failure that is the user's to mend."""

from __future__ import annotations

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
