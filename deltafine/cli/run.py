"""`deltafine run`: a refined model on a video, frame by frame."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deltafine.cli.model_options import CustomObjects, Size, UnsafeLambda, frame_size_of, trust_in
from deltafine.errors import DeltafineError

if TYPE_CHECKING:
    import numpy as np

_CALIBRATION_FRAMES = 20


def run(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, or a model file.")],
    source: Annotated[str, typer.Argument(metavar="VIDEO", help="A file, a folder of images, or a camera (0).")],
    frames: Annotated[int | None, typer.Option(min=1, help="Stop after so many frames.")] = None,
    calibrate: Annotated[bool, typer.Option(help="Time both ways to compute on the first frames, once.")] = True,
    size: Size = None,
    custom_objects: CustomObjects = None,
    unsafe_lambda: UnsafeLambda = False,
) -> None:
    """Stream a video through a refined model, computing only what changed."""
    from itertools import chain, islice

    from deltafine.runtime.runtime import DeltaRuntime
    from deltafine.video.live import live_frames

    runtime = DeltaRuntime(run, frame_size=frame_size_of(size), **trust_in(custom_objects, unsafe_lambda))
    if len(runtime.plan.input_shape) != 3:
        raise DeltafineError(
            f"Model '{runtime.plan.name}' takes {runtime.plan.input_shape} at a time, and a video gives frames of "
            "(height, width, channels): feed deltafine.DeltaRuntime yourself."
        )
    height, width, channels = runtime.plan.input_shape
    stream: Iterator[np.ndarray] = islice(live_frames(source, (height, width), channels), frames)
    if calibrate and not runtime.calibrated:
        first = list(islice(stream, _CALIBRATION_FRAMES))
        if len(first) == _CALIBRATION_FRAMES:
            runtime.calibrate(first)
        stream = chain(first, stream)
    _show(runtime, stream)


def _show(runtime: Any, frames: Any) -> None:
    from deltafine.cli.console import printable

    for note in runtime.plan.notes():
        typer.echo(printable(note))
    milliseconds: list[float] = []
    needed: list[int] = []
    dense = runtime.plan.dense_macs()
    for number, frame in enumerate(frames):
        begin = time.perf_counter()
        prediction = runtime.step(frame)
        milliseconds.append(1e3 * (time.perf_counter() - begin))
        counts = runtime.counts
        needed.append(counts.total("needed_macs"))
        sent, values = (
            (sum(part) for part in zip(*counts.events().values(), strict=True)) if counts.events() else (0, 0)
        )
        typer.echo(
            printable(
                f"frame {number}: {_said(prediction)}, events {_share(sent, values)}, "
                f"MACs {_share(needed[-1], dense)}, {milliseconds[-1]:.2f} ms"
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
