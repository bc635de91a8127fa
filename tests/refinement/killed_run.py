"""Refinements in processes of their own that kill themselves with SIGKILL at a given moment.

Reads jobs from standard input, one JSON object a line: `arguments` of `deltafine.refine`, and perhaps `moment`,
`number` and `seconds`. Each is done in a process forked from this one, which has loaded TensorFlow but not used it;
how that ended is printed as JSON: `code` as in `subprocess`, and `error`.

The moment is a phase that the run tells of (`decoding`, `calibrating`, `epoch`, `validating`, `measuring`, `said`), or
what it does with files: `sync NAME` just before a file of that name is forced to the disk, its content being written,
and `rename NAME` just before it gets its name. `number` says at which time of that, `seconds` how much later.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from typing import Any

import deltafine.refinement.run.refinement  # noqa: F401 (loads TensorFlow once for all)
from deltafine import refine
from deltafine.jobs.refine import Quiet


class Killer(Quiet):
    """Waits for the moment."""

    def __init__(self, moment: str = "", number: int = 1, seconds: float = 0.0) -> None:
        self._moment, self._left, self._seconds = moment, number, seconds
        sys.addaudithook(self._see)

    def say(self, text: str) -> None:
        self._now("said")

    def progress(self, what: str, done: int, total: int, figures: str = "") -> None:
        self._now(what.split()[0])

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and arguments[1] in ("r+", "rb+"):
            self._now(f"sync {plain(arguments[0])}")
        elif event == "os.rename":
            self._now(f"rename {plain(arguments[1])}")

    def _now(self, moment: str) -> None:
        if moment != self._moment:
            return
        self._left -= 1
        if self._left == 0:
            if self._seconds:
                threading.Timer(self._seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
            else:
                os.kill(os.getpid(), signal.SIGKILL)


def plain(path: Any) -> str:
    """`last` of `.last.1a2b3c4d.writing.h5`, `epoch` of `epoch-0003.h5`, `frames` of a cache."""
    name = os.path.basename(os.fsdecode(path)).lstrip(".")  # noqa: PTH119 (bytes or text)
    return name.split(".")[0].split("-")[0]


def run(job: dict[str, Any], errors: int) -> None:
    """Do a job and end this process."""
    code = 0
    try:
        killer = Killer(**{name: job[name] for name in ("moment", "number", "seconds") if name in job})
        refine(**job["arguments"], listener=killer)
    except BaseException:
        os.write(errors, traceback.format_exc().encode())
        code = 1
    os._exit(code)


def main() -> None:
    for line in sys.stdin:
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(reader)
            run(json.loads(line), writer)
        os.close(writer)
        with os.fdopen(reader) as said:
            error = said.read()
        _, status = os.waitpid(child, 0)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status), "error": error}), flush=True)


if __name__ == "__main__":
    main()
