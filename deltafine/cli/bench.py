"""`deltafine bench`: the delta runtime beside dense ones, on the same frames."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deltafine.errors import DeltafineError

if TYPE_CHECKING:
    import numpy as np

_CALIBRATION_FRAMES = 20
TIMING = "timing.json"


def bench(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, or a model file.")],
    data: Annotated[Path, typer.Option(metavar="DIR", help="Videos to run on.")],
    frames: Annotated[int, typer.Option(min=2, help="Frames in all.")] = 200,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the dense runtimes.")] = 1,
) -> None:
    """Time a refined model frame by frame against TensorFlow, ONNX Runtime and OpenVINO."""
    from deltafine.cli.output import load_tensorflow, printable, quiet_standard_error

    load_tensorflow()
    from deltafine.model import load
    from deltafine.runtime.comparison import DELTA, merged, take_turns
    from deltafine.runtime.dense import dense_runtimes, per_frame, set_threads
    from deltafine.runtime.kept import machine
    from deltafine.runtime.runtime import REFINED, DeltaRuntime

    set_threads(threads)
    runtime = DeltaRuntime(run)
    videos = _videos(data, runtime.plan.input_shape, frames)
    with quiet_standard_error():
        dense, missing = dense_runtimes(per_frame(load(run / REFINED if run.is_dir() else run)), threads)
    by_events = runtime.calibrate(videos[0][:_CALIBRATION_FRAMES]) if len(videos[0]) >= _CALIBRATION_FRAMES else {}
    runs = {DELTA: runtime.step, **dense}
    times = merged(take_turns(runs, video, runtime.reset) for video in videos)
    lines = [
        f"{sum(len(video) for video in videos)} frames of {len(videos)} videos on {machine()}; "
        f"dense runtimes with {threads} thread{'s' * (threads > 1)}, deltafine ({runtime.engine}) with 1; "
        f"{len(by_events)} layers by events",
        *(f"{name} left out: {reason}" for name, reason in missing.items()),
        *(f"'{operation.name}' ({operation.layer}) runs densely through Keras" for operation in runtime.plan.unknown),
    ]
    typer.echo(printable("\n".join(lines)))
    _show(times)
    if run.is_dir():
        _keep(run / TIMING, times, threads, runtime.engine)


def _videos(data: Path, shape: tuple[int, ...], most: int) -> list[list[np.ndarray]]:
    import numpy as np

    from deltafine.video import open_dataset

    height, width, channels = shape
    videos: list[list[np.ndarray]] = []
    left = most
    for _, pieces in open_dataset(data).streams(None, size=(height, width), channels=channels):
        video: list[np.ndarray] = []
        for frames, _ in pieces:
            video += [np.asarray(frame, np.float32) for frame in frames[: left - len(video)]]
            if len(video) >= left:
                break
        left -= len(video)
        if len(video) > 1:
            videos.append(video)
        if left < 2:
            break
    if not videos:
        raise DeltafineError(f"No video in {data} has two frames: give longer ones.")
    return videos


def _keep(path: Path, times: dict[str, Any], threads: int, engine: str) -> None:
    """Write the figures into the run, beside those for other numbers of threads."""
    import json

    from deltafine.pipeline import versions
    from deltafine.runtime.kept import machine

    try:
        document = json.loads(path.read_text("utf-8")) if path.exists() else {}
        document[f"dense runtimes with {threads} threads"] = {
            "machine": machine(),
            "versions": versions().model_dump(mode="json"),
            "engine": engine,
            "milliseconds_per_frame": {
                name: {
                    "p50": taken.wall_percentile(50),
                    "p95": taken.wall_percentile(95),
                    "processor_p50": taken.processor_median,
                    "frames": len(taken.wall),
                }
                for name, taken in times.items()
            },
        }
        path.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    except (OSError, ValueError) as error:
        raise DeltafineError(f"Cannot write {path} ({error}): remove it, or check the folder's rights.") from error


def _show(times: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from deltafine.runtime.comparison import DELTA, fastest_dense

    table = Table("runtime", "median ms", "p95 ms", "CPU median ms", "deltafine is")
    ours = times[DELTA].processor_median
    for name, taken in times.items():
        table.add_row(
            name,
            f"{taken.wall_percentile(50):.2f}",
            f"{taken.wall_percentile(95):.2f}",
            f"{taken.processor_median:.2f}",
            "" if name == DELTA else f"{taken.processor_median / ours:.2f}x as fast",
        )
    Console().print(table)
    best = fastest_dense(times)
    typer.echo(
        f"Against the best dense runtime here ({best}): {times[best].processor_median / ours:.2f}x, in CPU time."
    )
