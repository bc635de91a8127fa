"""`deltafine bench`: the delta runtime beside dense ones, on the same frames."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deltafine.cli.model_options import CustomObjects, Size, UnsafeLambda, frame_size_of, trust_in
from deltafine.errors import DeltafineError
from deltafine.storage import run_files

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from deltafine.document.report import Timing
    from deltafine.jobs.timing import Times

    _Frame = tuple[np.ndarray, np.ndarray]

_CALIBRATION_FRAMES = 20


def bench(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, or a model file.")],
    data: Annotated[Path, typer.Option(metavar="DIR", help="Videos to run on.")],
    frames: Annotated[int, typer.Option(min=2, help="Frames in all.")] = 200,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the dense runtimes; one, then all, if not given.")
    ] = None,
    size: Size = None,
    custom_objects: CustomObjects = None,
    unsafe_lambda: UnsafeLambda = False,
) -> None:
    """Time a refined model frame by frame against TensorFlow, ONNX Runtime and OpenVINO."""
    from deltafine.runtime.plan_cache import available_cores

    _bench(run, data, frames, threads or 1, size, custom_objects, unsafe_lambda)
    if threads is not None:
        return
    if (cores := available_cores()) > 1:
        # TensorFlow's number of threads is fixed once it has computed anything, hence another process.
        command = ["bench", str(run), "--data", str(data), "--frames", str(frames), "--threads", str(cores)]
        command += [part for name in custom_objects or () for part in ("--custom-objects", name)]
        command += (["--size", size] if size else []) + ["--unsafe-lambda"] * unsafe_lambda
        sys.stdout.flush()
        done = subprocess.run([sys.executable, "-m", "deltafine", *command], check=False)
        if done.returncode:
            raise typer.Exit(done.returncode)


def _bench(
    run: Path,
    data: Path,
    frames: int,
    threads: int,
    size: str | None,
    custom_objects: list[str] | None,
    unsafe_lambda: bool,
) -> None:
    from deltafine.cli.console import load_tensorflow, printable, quiet_standard_error

    load_tensorflow()
    from rich.console import Console

    from deltafine.jobs.dense_runtimes import dense_runtimes, per_frame, set_threads
    from deltafine.jobs.timing import DELTA, merged, take_turns
    from deltafine.model import load
    from deltafine.report.terminal import show_timing
    from deltafine.runtime.runtime import DeltaRuntime

    set_threads(threads)
    trust = trust_in(custom_objects, unsafe_lambda)  # the user's own code may compute something
    runtime = DeltaRuntime(run, frame_size=frame_size_of(size), **trust)
    videos = _videos(data, runtime.plan.input_shape, frames)
    with quiet_standard_error():
        model = load(run / run_files.REFINED if run.is_dir() else run, **trust)
        dense, missing = dense_runtimes(per_frame(model), threads)
    first = [pixels for pixels, _ in videos[0][:_CALIBRATION_FRAMES]]
    by_events = runtime.calibrate(first) if len(first) == _CALIBRATION_FRAMES else {}
    runs: dict[str, Callable[[_Frame], object]] = {DELTA: lambda frame: runtime.step(frame[0])}
    for name, dense_run in dense.items():
        runs[name] = lambda frame, run=dense_run: run(frame[1])  # type: ignore[misc]
    times = merged(take_turns(runs, video, runtime.reset) for video in videos)
    timing = _timing(times, threads, runtime.engine, data, len(videos))
    notes = [
        f"{len(by_events)} layers by events",
        *(f"{name} left out: {reason}" for name, reason in missing.items()),
        *runtime.plan.notes(),
    ]
    typer.echo(printable("\n".join(notes)))
    show_timing(timing, Console())
    typer.echo(_conclusion(times))
    if run.is_dir():
        _keep(run, timing)


def _videos(data: Path, shape: tuple[int, ...], most: int) -> list[list[_Frame]]:
    """Frames as each runtime takes them: bytes as decoded, and 32-bit floating point, whose making is not timed."""
    import numpy as np

    from deltafine.video import open_for_frames

    height, width, channels = shape
    videos: list[list[_Frame]] = []
    left = most
    for _, pieces in open_for_frames(data).streams(None, size=(height, width), channels=channels):
        video: list[_Frame] = []
        for frames, _ in pieces:
            video += [(np.array(frame), np.asarray(frame, np.float32)) for frame in frames[: left - len(video)]]
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


def _timing(times: dict[str, Times], threads: int, engine: str, data: Path, videos: int) -> Timing:
    """The figures as the report holds them, the delta runtime first."""
    from datetime import UTC, datetime

    from deltafine.document.report import RuntimeTimes, Timing
    from deltafine.jobs.facts import versions
    from deltafine.jobs.timing import DELTA
    from deltafine.runtime.plan_cache import machine

    return Timing(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=machine(),
        versions=versions(),
        threads=threads,
        engine=engine,
        data=str(data),
        videos=videos,
        frames=len(times[DELTA].wall),
        runtimes=[
            RuntimeTimes(
                name=name,
                p50=taken.wall_percentile(50),
                p95=taken.wall_percentile(95),
                processor_p50=taken.processor_median,
            )
            for name, taken in times.items()
        ],
    )


def _keep(run: Path, timing: Timing) -> None:
    """Write the figures into the report of the run, beside those for other numbers of threads."""
    from deltafine.report import load_report, write_report
    from deltafine.report.store import load_pictures

    if not (run / run_files.REPORT).exists():
        return
    report = load_report(run)
    pictures = load_pictures(run, report)
    timings = [timing, *(one for one in report.timings if one.threads != timing.threads)]
    report = report.model_copy(
        update={
            "timings": sorted(timings, key=lambda one: one.threads),
            "pictures": [picture for picture in report.pictures if picture.file in pictures],
        }
    )
    write_report(report, run, pictures)


def _conclusion(times: dict[str, Times]) -> str:
    from deltafine.jobs.timing import DELTA, fastest_dense

    best = fastest_dense(times)
    ratio = times[best].processor_median / times[DELTA].processor_median
    return f"Against the best dense runtime here ({best}): {ratio:.2f}x, in CPU time."
