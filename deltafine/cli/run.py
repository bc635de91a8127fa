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
    frames: Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after N frames.")] = None,
    every: Annotated[
        int, typer.Option(min=1, metavar="K", help="Run on every K-th frame, and hold the prediction between.")
    ] = 1,
    calibrate: Annotated[bool, typer.Option(help="Time both ways of computing on the first frames, once.")] = True,
    **settings: Any,
) -> None:
    """Stream a video through a refined model, computing only what changed."""
    from deltafine.cli.console import quiet_standard_error
    from deltafine.jobs.run import play

    with quiet_standard_error():  # TensorFlow is loaded only where no plan is kept
        played = play(run, source, frames=frames, every=every, calibrate=calibrate, **settings)
    _show(*played)


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
        from numpy import percentile

        median, p95 = percentile(milliseconds[1:], (50, 95))
        typer.echo(
            f"{len(milliseconds)} frames: median {median:.2f} ms, p95 {p95:.2f} ms, first {milliseconds[0]:.2f} ms; "
            f"MACs after the first {_share(sum(needed[1:]), dense * (len(needed) - 1))} of dense; "
            f"engine {runtime.engine}"
        )


def _said(prediction: Any, inside: bool = False) -> str:
    """A prediction in a few words: the class and its score, or the values; of several outputs by their names."""
    if isinstance(prediction, dict | tuple | list):
        named = prediction.items() if isinstance(prediction, dict) else (("", value) for value in prediction)
        values = ", ".join((f"{name}: " if name != "" else "") + _said(value, inside=True) for name, value in named)
        return f"({values})" if inside else values
    flat = prediction.ravel()
    if prediction.ndim == 1 and len(flat) > 1:
        return f"class {int(flat.argmax())} ({flat.max():.3g})"
    return " ".join(f"{value:.4g}" for value in flat[:4]) + (" ..." if len(flat) > 4 else "")


def _share(count: int, whole: int) -> str:
    return f"{count / whole:.1%}" if whole else "none"
