"""`deltafine run`: a refined model on videos, cameras and streams, frame by frame."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from deltafine.cli.options import takes_settings
from deltafine.errors import DeltafineError, Interrupted

if TYPE_CHECKING:
    from deltafine.cli.frame_lines import FrameLines
    from deltafine.jobs.run import Playing


@takes_settings("run")
def run(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, or a model file.")],
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="VIDEO...",
            help="Files, folders of images or videos, cameras (0), addresses (rtsp://...), or - for raw frames.",
        ),
    ],
    frames: Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after N frames of each.")] = None,
    every: Annotated[
        int, typer.Option(min=1, metavar="K", help="Run on every K-th frame, and hold the prediction between.")
    ] = 1,
    budget_ms: Annotated[
        float | None,
        typer.Option(metavar="MS", help="Keep the mean time of a frame there, by multiplying all thresholds."),
    ] = None,
    budget_macs: Annotated[
        str | None, typer.Option(metavar="SHARE", help="The same for the share of the dense MACs, such as 5%.")
    ] = None,
    fps: Annotated[float | None, typer.Option(metavar="N", help="Play at most N frames in a second.")] = None,
    raw: Annotated[
        str | None, typer.Option(metavar="FORMAT", help="What - reads: 640x480:bgr24, or float32 (default bytes).")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Write a JSON object per line.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Leave out the lines of frames.")] = False,
    calibrate: Annotated[bool, typer.Option(help="Time both ways of computing on the first frames, once.")] = True,
    precision: Annotated[
        str, typer.Option(metavar="TYPE", help="float32, or int8: calibrated on the first frames, once.")
    ] = "float32",
    threads: Annotated[
        int, typer.Option(min=1, metavar="N", help="Threads that compute a frame of a source; all sources share them.")
    ] = 1,
    **settings: Any,
) -> None:
    """Stream videos through a refined model, computing only what changed."""
    from deltafine.cli.console import quiet_standard_error
    from deltafine.cli.frame_lines import FrameLines, JsonLines
    from deltafine.jobs.run import play

    if fps is not None and not fps > 0:
        raise DeltafineError(f"--fps is {fps:g}: give a number above 0.")
    how: dict[str, Any] = {"frames": frames, "every": every, "fps": fps, "raw": raw, "calibrate": calibrate}
    how |= {"precision": precision, "threads": threads}
    how |= {"budget_ms": budget_ms, "budget_macs": _share(budget_macs)}
    with _stopped_by_sigterm():
        try:
            with quiet_standard_error():  # TensorFlow is loaded only where no plan is kept
                playing = play(run, sources, **how, **settings)
        except KeyboardInterrupt as stop:
            _leave(stop)
        _show(playing, (JsonLines if json else FrameLines)(playing, quiet))


def _share(given: str | None) -> float | None:
    """A share as settings take them: 5%, 5 or 0.05."""
    from deltafine.settings.declaring import is_ambiguous, share_of

    if given is None:
        return None
    share = share_of(given)
    try:
        number = float(share)
    except ValueError:
        number = -1.0
    if is_ambiguous(given) or not 0 < number <= 1:
        raise DeltafineError(f"--budget-macs is {given}: give a share of the dense MACs, such as 5% or 0.05.")
    return number


def _show(playing: Playing, lines: FrameLines) -> None:
    from deltafine.jobs.played import Dropped, Over, Played, Said

    show: dict[type, Any] = {Played: lines.frame, Dropped: lines.dropped, Said: lines.said, Over: lines.over}
    failures: list[str] = []
    dropped = ""
    stopped: KeyboardInterrupt | None = None
    try:
        with playing:
            lines.begin()
            for event in playing:
                show[type(event)](event)
                if isinstance(event, Over) and event.failure:
                    failures.append(event.failure)
                dropped = dropped or (event.reason if isinstance(event, Dropped) else "")
    except KeyboardInterrupt as stop:
        stopped = stop
    if stopped is not None or playing.whole.frames:
        lines.summary()
    if playing.runtime.compiling:
        _say_what_is_waited_for(stopped)
    if stopped is not None:
        _leave(stopped)
    if failures:
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        raise DeltafineError(f"{failures[0].rstrip('.')}{more}.")
    if not playing.whole.frames:
        why = f": {dropped}" if dropped else ""
        raise DeltafineError(f"{', '.join(playing.tallies)} gave no frame that could be played{why}.")


def _say_what_is_waited_for(stop: KeyboardInterrupt | None) -> None:
    """Kernels are still being compiled: the command ends when they are there, or at once where it was stopped."""
    from deltafine.cli.console import print_note

    if stop is None:
        print_note("The kernels are still being compiled: the command ends when they are kept for the next start.")
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(_code_of(stop))


def _leave(stop: KeyboardInterrupt) -> NoReturn:
    raise typer.Exit(_code_of(stop))


def _code_of(stop: KeyboardInterrupt) -> int:
    return 128 + (stop.signal if isinstance(stop, Interrupted) else signal.SIGINT)


@contextlib.contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(None, number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
