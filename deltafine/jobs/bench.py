"""The delta runtime beside dense ones, on the same frames."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deltafine.errors import DeltafineError
from deltafine.jobs.model_files import frame_size_of, trust_in
from deltafine.jobs.refine import Quiet
from deltafine.jobs.timing import DELTA, Times, fastest_dense, merged, take_turns
from deltafine.report.text import counted
from deltafine.settings import GivenSettings, checked
from deltafine.storage import run_files

if TYPE_CHECKING:
    from deltafine.document.report import Timing
    from deltafine.jobs.agreement import RuntimeAgreement
    from deltafine.refinement.listener import Listener
    from deltafine.runtime.plan import Plan
    from deltafine.runtime.runtime import DeltaRuntime

CALIBRATION_FRAMES = 20

_Frame = tuple[np.ndarray, np.ndarray, int, dict[str, np.ndarray]]
"""Bytes as decoded, the same in 32-bit floating point (with the lines of further values, if any), the label, -1 where
there is none, and what comes with the frame beside it."""


@dataclass(frozen=True)
class Benchmark:
    """What was timed.

    Attributes:
        timing: the figures, as the report holds them.
        by_events: how many layers the delta runtime computes by events.
        left_out: dense runtimes that were not timed, and why.
        notes: what the delta runtime leaves to Keras, and labels that are not used.
        fastest: the dense runtime in 32 bits with the smallest processor time.
        ratio: its median processor time per frame, divided by that of the delta runtime.
        fastest_int8, ratio_int8: the same of those in 8 bits; "" and None where there is none.
    """

    timing: Timing
    by_events: int
    left_out: dict[str, str]
    notes: tuple[str, ...]
    fastest: str
    ratio: float
    fastest_int8: str = ""
    ratio_int8: float | None = None


def bench(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    frames: int = 200,
    threads: int | None = 1,
    every: int = 1,
    precision: str = "float32",
    quietly: Callable[[], AbstractContextManager[None]] = nullcontext,
    listener: Listener | None = None,
    **settings: Any,
) -> Benchmark:
    """Time a refined model frame by frame beside dense runtimes, where installed.

    TensorFlow, ONNX Runtime and OpenVINO in 32 bits; ONNX Runtime, OpenVINO and LiteRT in 8 bits, calibrated on some of
    the frames.

    Args:
        run: a run directory, into whose report the figures go; or a model file.
        data: path of the videos.
        frames: that the runtimes run on in all, 2 or more.
        threads: that each runtime may use; None for what TensorFlow uses in this process. That is fixed once it has
            computed anything: give another number in another process.
        every: let all runtimes run on every k-th frame of a video; the times are of the frames that they run on.
        precision: of the delta runtime: ``"float32"``, or ``"int8"``, calibrated on the same frames as the dense
            runtimes in 8 bits; the delta runtime in float32 is then timed as well.
        quietly: entered while the dense runtimes are made, as they write to standard error.
        listener: told how far reading is.
        settings: the fields of ``deltafine.settings.RefineSettings`` that say how the model is loaded and how
            the videos are read.

    Raises:
        DeltafineError: the model or the videos cannot be used as they are, TensorFlow has other threads already, or
            numba cannot be used.

    Examples:
        >>> timed = deltafine.bench("run/", "videos/", frames=20, threads=None)
        >>> timed.timing.runtimes[0].name, timed.timing.frames > 0
        ('deltafine', True)
    """
    from deltafine.runtime.numba_there import MEND_NUMBA, why_no_numba

    if why := why_no_numba():
        raise DeltafineError(
            f"The delta runtime is timed with numba, which cannot be used ({why}); in NumPy it is slower than any "
            f"dense runtime: {MEND_NUMBA}."
        )
    from deltafine.jobs.agreement import RuntimeAgreement, answers_by_label
    from deltafine.jobs.answers import outputs_of
    from deltafine.jobs.dense_runtimes import dense_runtimes, per_frame
    from deltafine.jobs.int8_runtimes import int8_runtimes, some_of
    from deltafine.model import load
    from deltafine.report.equal_time import IN_FLOAT32
    from deltafine.runtime.runtime import DeltaRuntime

    if frames < 2:
        raise DeltafineError(f"frames is {frames}: give 2 or more, since the first frame of a video is not timed.")
    if threads is not None and threads < 1:
        raise DeltafineError(f"threads is {threads}: give a whole number from 1 on.")
    if every < 1:
        raise DeltafineError(f"every is {every}: give a whole number from 1 on.")
    run, data, given = Path(run), Path(data), checked(**settings)
    threads = _threads_of_tensorflow(threads)
    trust = trust_in(given)  # the user's own code may compute something
    how: Any = {"engine": "numba", "frame_size": frame_size_of(given), "threads": threads} | trust
    runtime = exact = DeltaRuntime(run, precision=precision, **how)
    if runtime.plan.delays:
        raise DeltafineError(
            f"Model '{runtime.plan.name}' takes clips, and dense runtimes would run on a whole clip for each frame: "
            "time models of single frames. deltafine run shows the milliseconds of this one."
        )
    if precision != "float32":
        exact = DeltaRuntime(run, **how)
    classes, videos = _videos(data, runtime.plan, frames, every, given, listener or Quiet())
    with quietly():
        model = load(run / run_files.REFINED if run.is_dir() else run, **trust)
        plain = per_frame(model)
        dense, left_out = dense_runtimes(plain, threads)
        int8, not_int8 = int8_runtimes(plain, threads, [frame for video in videos for _, frame, *_ in video])
    first = [pixels for pixels, *_ in videos[0][:CALIBRATION_FRAMES]]
    by_events = exact.calibrate(first) if len(first) == CALIBRATION_FRAMES else {}
    if runtime is not exact:
        runtime.calibrate(some_of([pixels for video in videos for pixels, *_ in video]))
    runs: dict[str, Callable[[_Frame], object]] = {DELTA: lambda frame: runtime.step(frame[0], frame[3])}
    if runtime is not exact:
        runs[IN_FLOAT32] = lambda frame: exact.step(frame[0], frame[3])
    for name, dense_run in (dense | int8).items():
        runs[name] = lambda frame, run=dense_run: run(frame[1])  # type: ignore[misc]
    outputs = outputs_of(runtime.plan, run)
    of_classes = outputs[0].kind != "numbers"
    asked = answers_by_label(classes, outputs[0], runtime.plan.tensors[runtime.plan.outputs[0]].sample_shape[-1])
    labels = [None if label < 0 else asked[label] for video in videos for _, _, label, _ in video]
    several = len(outputs) > 1
    unused = sum(label >= 0 and (several or asked[label] is None) for video in videos for _, _, label, _ in video)
    agreement = RuntimeAgreement(runs, next(iter(dense)), of_classes=of_classes, labels=labels)
    heard = _nobody_hears if several else agreement.heard

    def reset() -> None:
        runtime.reset()
        exact.reset()

    times = merged(take_turns(runs, video, reset, heard) for video in videos)
    timing = _timing(times, agreement, threads, every, runtime, data, len(videos))
    if run.is_dir():
        _keep(run, timing)

    def ratio(name: str) -> float:
        return times[name].processor_median / times[DELTA].processor_median

    best = fastest_dense({name: times[name] for name in dense})
    best_int8 = fastest_dense({name: times[name] for name in int8}) if int8 else ""
    return Benchmark(
        timing,
        len(by_events),
        left_out | not_int8,
        (*runtime.plan.notes(), *([_labels_left_out(unused)] if unused else [])),
        best,
        ratio(best),
        best_int8,
        ratio(best_int8) if best_int8 else None,
    )


def _labels_left_out(count: int) -> str:
    return f"The labels of {counted(count, 'frame')} are not used, since they are no answers of the model."


def _nobody_hears(name: str, answer: object) -> None:
    """Of several outputs, some runtimes give one alone."""


def _threads_of_tensorflow(wanted: int | None) -> int:
    """Let TensorFlow compute with so many threads; what it computes with, if none are wanted."""
    import tensorflow as tf

    from deltafine.jobs.dense_runtimes import set_threads
    from deltafine.runtime.plan_cache import available_cores

    if wanted is None:
        return tf.config.threading.get_intra_op_parallelism_threads() or available_cores()
    try:
        set_threads(wanted)
    except RuntimeError as error:
        raise DeltafineError(
            f"TensorFlow has computed something already, and not with {counted(wanted, 'thread')}: time in a "
            "process of its own."
        ) from error
    return wanted


def _videos(
    data: Path, plan: Plan, most: int, every: int, settings: GivenSettings, listener: Listener
) -> tuple[Sequence[str], list[list[_Frame]]]:
    """The classes of the data, and frames as each runtime takes them; making them is not timed."""
    from deltafine.jobs.opened_videos import frames_of_videos
    from deltafine.runtime.given_values import wanted_by
    from deltafine.video.further_values import by_input, unpacked

    height, width, channels = plan.input_shape
    wanted = wanted_by(plan)
    videos: list[list[_Frame]] = []
    left = most
    how: Any = {"size": (height, width), "channels": channels, "wanted": wanted}
    opened, streams = frames_of_videos(data, settings, listener, **how)
    for _, pieces in streams:
        video: list[_Frame] = []
        seen = 0
        for frames, labels in pieces:
            taken = slice(-seen % every, None, every)
            seen += len(frames)
            known = np.full(len(frames), -1) if labels is None else labels
            some = list(zip(frames[taken], known[taken].tolist(), strict=True))[: left - len(video)]
            for frame, label in some:
                pixels, values = unpacked(frame, height, len(wanted))
                beside = by_input(wanted, values)
                video.append((np.array(pixels), np.asarray(frame, np.float32), label, beside))
            if len(video) >= left:
                break
        left -= len(video)
        if len(video) > 1:
            videos.append(video)
        if left < 2:
            break
    if not videos:
        needed = f"{every + 1} frames, which --every {every} needs" if every > 1 else "two frames"
        raise DeltafineError(f"No video in {data} has {needed}: give longer ones.")
    return opened.classes, videos


def _timing(
    times: Mapping[str, Times],
    agreement: RuntimeAgreement,
    threads: int,
    every: int,
    runtime: DeltaRuntime,
    data: Path,
    videos: int,
) -> Timing:
    """The figures as the report holds them, the delta runtime first."""
    from deltafine.document.report import RuntimeTimes, Timing
    from deltafine.jobs.facts import versions
    from deltafine.runtime.plan_cache import machine

    return Timing(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=machine(),
        versions=versions(),
        threads=threads,
        delta_threads=runtime.threads,
        every=every,
        engine=runtime.engine,
        precision=runtime.precision,
        data=str(data),
        videos=videos,
        frames=len(times[DELTA].wall),
        runtimes=[
            RuntimeTimes(
                name=name,
                p50=taken.wall_percentile(50),
                p95=taken.wall_percentile(95),
                processor_p50=taken.processor_median,
                fidelity=agreement.fidelity(name),
                relative_error=agreement.error(name),
                accuracy=agreement.accuracy(name),
                label_error=agreement.label_error(name),
            )
            for name, taken in times.items()
        ],
    )


def _how(timing: Timing) -> tuple[int, int, str]:
    return timing.every, timing.threads, timing.precision


def _keep(run: Path, timing: Timing) -> None:
    """Write the figures into the report of the run, beside those for other threads, frames held, or precision."""
    from deltafine.report import load_report, write_report
    from deltafine.report.store import load_pictures

    if not (run / run_files.REPORT).exists():
        return
    report = load_report(run)
    pictures = load_pictures(run, report)
    others = [one for one in report.timings if _how(one) != _how(timing)]
    report = report.model_copy(
        update={
            "timings": sorted([timing, *others], key=_how),
            "pictures": [picture for picture in report.pictures if picture.file in pictures],
        }
    )
    write_report(report, run, pictures)
