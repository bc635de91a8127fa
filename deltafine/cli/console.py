"""What commands say while they work: progress on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Task, TaskID
    from rich.text import Text

    from deltafine.document.history import Epoch


SECONDS_BETWEEN_LINES = 10.0
_BAR, _ROOMY = 16, 90
"""Width of a bar; the terminal's from which on there is one."""


def print_error(sentence: str) -> None:
    """One sentence on standard error; names from data cannot style or steer the terminal."""
    _print_sentence("[bold red]Error:[/]", sentence)


def print_note(sentence: str) -> None:
    """One sentence on standard error, of something that stops nothing."""
    _print_sentence("Note:", sentence)


def _print_sentence(label: str, sentence: str) -> None:
    """Wrapped between words on a terminal, one line elsewhere."""
    console = Console(stderr=True, highlight=False)
    console.print(f"{label} {escape(printable(one_line(sentence)))}", soft_wrap=not console.is_terminal)


def print_text(text: str) -> None:
    """Lines on standard output: too long ones wrapped between words on a terminal, and as they are elsewhere."""
    from rich.cells import cell_len

    console, shown = Console(highlight=False), printable(text)
    if console.is_terminal and any(cell_len(line) > console.width for line in shown.split("\n")):
        console.print(escape(shown))
    else:
        print(shown, flush=True)  # whoever reads a pipe gets each line at once


def one_line(text: str) -> str:
    """The text with line breaks shown as escapes: no name passes for a line of its own, such as CI services obey."""
    return text.replace("\n", "\\n")


def printable(text: str) -> str:
    """The text with control characters shown as escapes."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


@contextlib.contextmanager
def quiet_standard_error() -> Iterator[None]:
    """Only what Python writes is shown: TensorFlow's start-up notes come from C++, before any setting."""
    python = sys.stderr
    python.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        if _file_descriptor(python) == 2:
            sys.stderr = open(kept, "w", 1, python.encoding, python.errors, closefd=False)  # noqa: SIM115
        yield
    finally:
        sys.stderr.flush()
        sys.stderr = python
        os.dup2(kept, 2)
        os.close(kept)


def _file_descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except OSError:
        return None


def load_tensorflow(talk: Talk | None = None) -> None:
    """Import TensorFlow without its start-up notes.

    Args:
        talk: tells the user; default: one of its own.
    """
    with nullcontext(talk) if talk is not None else Talk() as told, quiet_standard_error():
        told.progress("loading TensorFlow", 0, 0)
        import tensorflow  # noqa: F401


class _DoneOfTotal(ProgressColumn):
    """Such as 3/40; nothing where the total is not known."""

    def render(self, task: Task) -> Text:
        from rich.text import Text

        return Text("" if task.total is None else f"{task.completed:.0f}/{task.total:.0f}")


class _TimeLeft(ProgressColumn):
    """Time left, where it can be told; else the time that has passed."""

    def __init__(self) -> None:
        super().__init__()
        self._left, self._passed = TimeRemainingColumn(compact=True), TimeElapsedColumn()

    def render(self, task: Task) -> Text:
        from rich.text import Text

        passed = self._passed.render(task)
        if task.total is None or task.time_remaining is None:
            return passed
        return Text.assemble(passed, " ", self._left.render(task), " left")


class _Figures(ProgressColumn):
    """The latest figures, "loss 0.1  accuracy 0.9", as many as have room beside the others: none is cut."""

    def __init__(self, width: int, others: Sequence[ProgressColumn]) -> None:
        super().__init__()
        self._width, self._others = width, others

    def render(self, task: Task) -> Text:
        from rich.text import Text

        left = self._width - sum(_cells(column(task)) + 1 for column in self._others)
        kept: list[str] = []
        for figure in task.fields["figures"].split("  "):
            if len("  ".join([*kept, figure])) > left:
                break
            kept.append(figure)
        return Text("  ".join(kept))


def _cells(drawn: RenderableType) -> int:
    from rich.text import Text

    return drawn.cell_len if isinstance(drawn, Text) else _BAR


class Talk:
    """Tells the user how far a run is; a context manager.

    On a terminal, a bar with the latest figures, the time that has passed and the time left; without one, a line now
    and then. A quiet one leaves that to another process. One that speaks aside does so on standard error, and without
    a terminal only where it takes long.
    """

    def __init__(self, *, quiet: bool = False, aside: bool = False) -> None:
        self._quiet, self._aside = quiet, aside
        self._console = Console(highlight=False, stderr=aside)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._what = ""
        self._last_line = time.monotonic() if aside else 0.0

    def __enter__(self) -> Talk:
        if self._console.is_terminal and not self._quiet:
            roomy = self._console.width >= _ROOMY
            bar = [BarColumn(bar_width=_BAR)] if roomy else []
            columns = [TextColumn("{task.description}"), *bar, _DoneOfTotal(), _TimeLeft()]
            self._bar = Progress(
                *columns,
                _Figures(self._console.width - 1, columns),
                console=self._console,
                transient=True,
            )
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, text: str) -> None:
        self._console.print(escape(printable(one_line(text))), soft_wrap=not self._console.is_terminal)
        (sys.stderr if self._aside else sys.stdout).flush()

    def progress(self, what: str, done: int, total: int, figures: str = "") -> None:
        if self._quiet:
            return
        if self._bar is not None:
            if self._task is None or what != self._what:
                if self._task is not None:
                    self._bar.remove_task(self._task)
                self._task = self._bar.add_task(what, total=total or None, figures=figures)
            self._bar.update(self._task, completed=done, total=total or None, figures=figures)
        else:
            now = time.monotonic()
            late = now - self._last_line > SECONDS_BETWEEN_LINES and (total > 0 or self._last_line > 0)
            begins = what != self._what and total > 1 and done < total and not self._aside
            if begins or late:
                self.say(f"{what}: {done} of {total}  {figures}".rstrip() if total else what)
                self._last_line = now
        self._what = what

    def epoch(self, epoch: Epoch, epochs: int) -> None:
        if self._quiet:
            return
        left = (epochs - epoch.epoch) * epoch.seconds
        what, quality = epoch.judged_by or "accuracy", epoch.validation_accuracy
        if quality is not None and what == "error":  # which is kept as 1 - error
            quality = 1 - quality
        judged = "" if quality is None else f"{what} {quality:.3f}, "
        self.say(
            f"epoch {epoch.epoch} of {epochs}: loss {epoch.loss:.3f}, on validation streams {judged}"
            f"MACs {epoch.validation_mac_density:.3f} of dense ({epoch.seconds:.0f} s"
            + (f", about {left:.0f} s left)" if left else ")")
        )
