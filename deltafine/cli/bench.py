"""`deltafine bench`: the delta runtime beside dense ones, on the same frames."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from deltafine.cli.given_paths import refuse_missing_run, refuse_missing_videos
from deltafine.cli.options import as_arguments, takes_settings
from deltafine.settings import GivenSettings


@takes_settings("bench", without_default=["cache"])
def bench(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, or a model file.")],
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Videos to run on (default: the streams of RUN, or its videos).")
    ] = None,
    frames: Annotated[int, typer.Option(min=2, metavar="N", help="Frames in all.")] = 200,
    threads: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Threads of each runtime (default one, then all)."),
    ] = None,
    every: Annotated[
        int, typer.Option(min=1, metavar="K", help="Let all runtimes run on every K-th frame of the videos.")
    ] = 1,
    precision: Annotated[
        str, typer.Option(metavar="TYPE", help="Of the delta runtime: float32, or int8, beside which float32 is timed.")
    ] = "float32",
    **settings: Any,
) -> None:
    """Time a refined model frame by frame against dense runtimes, in 32 bits and in int8."""
    from deltafine.runtime.plan_cache import available_cores

    refuse_missing_run(run)
    if data is None:
        from deltafine.jobs.origin import videos_of

        data = videos_of(run)
    refuse_missing_videos(data)
    how = {"frames": frames, "every": every, "precision": precision}
    _bench(run, data, threads or 1, how, settings)
    if threads is not None:
        return
    if (cores := available_cores()) > 1:
        # TensorFlow's number of threads is fixed once it has computed anything, hence another process.
        command = ["bench", str(run), "--data", str(data), "--threads", str(cores)]
        command += [text for name, value in how.items() for text in (f"--{name}", str(value))]
        sys.stdout.flush()
        done = subprocess.run([sys.executable, "-m", "deltafine", *command, *as_arguments(settings)], check=False)
        if done.returncode:
            raise typer.Exit(done.returncode)


def _bench(run: Path, data: Path, threads: int, how: dict[str, Any], settings: GivenSettings) -> None:
    from rich.console import Console

    from deltafine.cli.console import Talk, load_tensorflow, print_text, quiet_standard_error
    from deltafine.report.terminal import show_timing
    from deltafine.report.text import counted

    load_tensorflow()
    from deltafine.jobs.bench import bench as run_bench

    with Talk(aside=True) as talk:
        done = run_bench(run, data, threads=threads, quietly=quiet_standard_error, listener=talk, **how, **settings)
    left_out = (f"{name} left out: {reason}" for name, reason in done.left_out.items())
    by_events = f"{counted(done.by_events, 'convolution')} of deltafine may run by events here"
    notes = [*([by_events] if done.timing.precision == "float32" else []), *left_out, *done.notes]
    print_text("\n".join(notes))
    show_timing(done.timing, Console())
    print_text(f"Against the best dense runtime here ({done.fastest}): {done.ratio:.2f}x, in CPU time.")
    if done.ratio_int8 is not None:
        print_text(f"Against the best one in int8 ({done.fastest_int8}): {done.ratio_int8:.2f}x.")
