"""What the program found and did not use, or could not keep: a line each on standard error."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

from deltafine.errors import DeltafineWarning


@contextlib.contextmanager
def warnings_as_notes() -> Iterator[None]:
    """Print warnings of this program as notes, each once; others as Python does."""
    said = set()
    others = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if not issubclass(category, DeltafineWarning):
            others(message, category, *place, **more)
        elif str(message) not in said:
            from deltafine.cli.console import print_note

            said.add(str(message))
            print_note(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always", DeltafineWarning)
        warnings.showwarning = show
        yield
