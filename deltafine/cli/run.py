"""`deltafine run`: a refined model on a video, frame by frame."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deltafine.cli.options import takes_settings

if TYPE_CHECKING:
    from deltafine.jobs.run import Played
    from deltafine.runtime.runtime import DeltaRuntime


@takes_settings("run")
def run(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, or a model file.")],
    source: Annotated[str, typer.Argument(metavar="VIDEO", help="A file, a folder of images, or a camera (0).")],
    frames: Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after so many frames.")] = None,
    every: Annotated[
        int, typer.Option(min=1, metavar="K", help="Run on every K-th frame, and hold the prediction between.")
    ] = 1,
    calibrate: Annotated[bool, typer.Option(help="Time both ways to compute on the first frames, once.")] = True,
    **settings: Any,
) -> None:
    """Stream a video through a refined model, computing only what changed."""
    from deltafine.jobs.run import play

    _show(*play(run, source, frames=frames, every=every, calibrate=calibrate, **settings))


def _show(runtime: DeltaRuntime, frames: Iterable[Played]) -> None:
    from deltafine.cli.console import printable

    for note in runtime.plan.notes():
        typer.echo(printable(note))
    milliseconds: list[float] = []
    needed: list[int] = []
    dense = runtime.plan.dense_macs()
    for number, frame in enumerate(frames):
        milliseconds.append(frame.milliseconds)
        needed.append(frame.macs)
        typer.echo(
            printable(
                f"frame {number}: {_said(frame.prediction)}, events {_share(frame.sent, frame.values)}, "
                f"MACs {_share(frame.macs, dense)}, {frame.milliseconds:.2f} ms"
            )
        )
    if len(milliseconds) > 1:
        later = sorted(milliseconds[1:])
        typer.echo(
            f"{len(milliseconds)} frames: median {later[len(later) // 2]:.2f} ms, "
            f"p95 {later[int(0.95 * (len(later) - 1))]:.2f} ms, first {milliseconds[0]:.2f} ms; "
            f"MACs after the first {_share(sum(needed[1:]), dense * len(later))} of dense; engine {runtime.engine}"
        )


def _said(prediction: Any, inside: bool = False) -> str:
    """A prediction in a few words: the class and its score, or the values; of several outputs by their names."""
    if isinstance(prediction, dict | tuple | list):
        named = prediction.items() if isinstance(prediction, dict) else (("", part) for part in prediction)
        parts = ", ".join((f"{name}: " if name != "" else "") + _said(part, inside=True) for name, part in named)
        return f"({parts})" if inside else parts
    flat = prediction.ravel()
    if prediction.ndim == 1 and len(flat) > 1:
        return f"class {int(flat.argmax())} ({flat.max():.3g})"
    return " ".join(f"{value:.4g}" for value in flat[:4]) + (" ..." if len(flat) > 4 else "")


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "none"
