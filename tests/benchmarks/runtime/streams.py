"""Several streams of MobileNetV1-224 in one process: computed together, and from cameras on loopback.

    python -m tests.benchmarks.runtime.streams                    # both
    python -m tests.benchmarks.runtime.streams --streams 64 --cameras 0
    python -m tests.benchmarks.runtime.streams --streams --cameras 32 --rate 15 --changed 0.05

Weights and changes are those of ``python -m tests.benchmarks.runtime``. Together and alone take turns, on one thread;
ratios are of medians of processor time.

The cameras send H.264 over RTSP, from a process of their own on the same machine: a square of noise on a picture that
stands still. A frame is on time if its answer is there within a frame's time after it was decoded; frames that were
skipped are not. The processor time of this process, everything included, says how many streams a core would carry.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from deltafine.jobs.frame_times import percentile
from deltafine.runtime.plan import Plan
from deltafine.runtime.plan_cache import available_cores, machine

SIDE = 224
WARM_UP, SECONDS = 8.0, 30.0


def compare(plan: Plan, count: int, density: float, rounds: int = 24) -> tuple[float, float]:
    """Milliseconds of processor time per frame: of ``count`` streams one after the other, and together."""
    from deltafine.runtime.numba_stream import NumbaState, step_together
    from deltafine.runtime.packed_plan import Program
    from tests.benchmarks.runtime.__main__ import changing

    program = Program(changing(plan, density))
    frames = np.random.default_rng(0).integers(0, 256, (8, SIDE, SIDE, 3), dtype=np.uint8)
    alone, together = ([NumbaState(program, lambda *_: []) for _ in range(count)] for _ in range(2))
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        due = [frames[(number + stream) % 8] for stream in range(count)]
        marks = [time.process_time()]
        for state, frame in zip(alone, due, strict=True):
            state.step(frame)
        marks.append(time.process_time())
        step_together(together, due)
        marks.append(time.process_time())
        for kept, taken in zip(times, np.diff(marks), strict=True):
            kept.append(1e3 * float(taken) / count)
    assert all(np.array_equal(one.counters, other.counters) for one, other in zip(alone, together, strict=True))
    one, other = (percentile(kept[2:], 50) for kept in times)
    return one, other


def packets(changed: float, rate: int, frames: int) -> list[bytes]:
    """H.264 of a picture in which a square of noise changes, each frame as the encoder gives it."""
    import av

    from tests.benchmarks.runtime.__main__ import square

    generator = np.random.default_rng(0)
    still = np.kron(generator.integers(0, 256, (14, 14, 3), dtype=np.uint8), np.ones((16, 16, 1), np.uint8))
    mask = square(SIDE, SIDE, changed)[:, :, None]
    context: Any = av.CodecContext.create("libx264", "w")
    context.width = context.height = SIDE
    context.pix_fmt, context.time_base = "yuv420p", Fraction(1, rate)
    context.options = {"tune": "zerolatency", "g": "30", "preset": "ultrafast"}
    found = []
    for number in range(frames):
        picture = np.where(mask, generator.integers(0, 256, still.shape, dtype=np.uint8), still)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
        frame.pts = number
        found += context.encode(frame)
    return [bytes(packet) for packet in [*found, *context.encode(None)]]


def serve(count: int, rate: int, changed: float) -> None:
    """Be so many cameras: print their addresses, and send until standard input is closed."""
    from tests.video.streaming import RtspServer

    pieces = packets(changed, rate, 60)
    with ExitStack() as running:
        servers = [running.enter_context(RtspServer(pieces, rate=rate)) for _ in range(count)]
        print(*(server.address for server in servers), flush=True)
        sys.stdin.read()


def watch(plan: Plan, count: int, rate: int, changed: float) -> None:
    """Play so many cameras, and print which frames were on time."""
    from deltafine.jobs.played import Played
    from deltafine.jobs.run import play
    from tests.benchmarks.runtime.__main__ import changing
    from tests.kept_plans import write_played_run

    command = [sys.executable, "-m", "tests.benchmarks.runtime.streams", "--serve"]
    command += ["--cameras", str(count), "--rate", str(rate), "--changed", str(changed)]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        run = write_played_run(Path(folder) / "run", changing(plan, changed))
        cameras = running.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        assert cameras.stdin is not None
        assert cameras.stdout is not None
        running.callback(cameras.stdin.close)
        addresses = cameras.stdout.readline().split()
        waits, network, macs = [], [], []
        with play(run, addresses) as playing:
            begin, counting = time.monotonic(), False
            for event in playing:
                if not counting and time.monotonic() - begin > WARM_UP:
                    counting, busy, skipped = True, time.process_time(), _skipped(playing)
                    began = time.monotonic()
                if counting and isinstance(event, Played):
                    waits.append(1e3 * (time.time() - event.arrived))
                    network.append(event.milliseconds)
                    macs.append(event.macs)
                if counting and time.monotonic() - began > SECONDS:
                    break
            seconds = time.monotonic() - began
            busy, skipped = time.process_time() - busy, _skipped(playing) - skipped
    offered = len(waits) + skipped
    late = skipped + sum(wait > 1e3 / rate for wait in waits)
    print(f"\n{count} cameras at {rate} frames a second, {changed:.0%} changed, {seconds:.0f} s:")
    print(f"on time {1 - late / offered:.2%} of {offered} frames ({offered / seconds / count:.1f} a second each)")
    print(f"skipped {skipped}; from decoded to answered: " + _shown(waits))
    print("in the network, a frame's share: " + _shown(network))
    print(f"MACs {np.mean(macs) / plan.dense_macs():.3f} of dense")
    each = 1e3 * busy / len(waits)
    print(f"processor time, all included: {each:.2f} ms a frame; a core carries {1e3 / rate / each:.1f} such streams")


def _shown(times: list[float]) -> str:
    return ", ".join(f"{percent:g}% within {percentile(times, percent):.1f} ms" for percent in (50, 95, 99))


def _skipped(playing: Any) -> int:
    return sum(feed.skipped for feed in playing._feeds.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="*", default=[4, 16, 64], help="how many are computed together")
    parser.add_argument("--cameras", type=int, default=32)
    parser.add_argument("--rate", type=int, default=15, help="frames a second of a camera")
    parser.add_argument("--changed", type=float, default=0.05, help="share of the pixels of a camera's picture")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.cameras, given.rate, given.changed)
        return
    import keras

    from tests.benchmarks.runtime.__main__ import MODELS, compiled

    keras.utils.set_random_seed(0)
    plan = compiled(MODELS["MobileNetV1"]())
    print(f"{machine()}, {available_cores()} of them for this process; load {os.getloadavg()[0]:.1f}")
    for count in given.streams:
        print(f"\n| {count} streams | ms alone | ms together | times as fast | frames a second of a core |")
        print("|---|---|---|---|---|")
        for density in (0.01, 0.02, 0.05, 0.10, 0.25):
            alone, together = compare(plan, count, density)
            print(f"| {density:.0%} | {alone:.2f} | {together:.2f} | {alone / together:.2f} | {1e3 / together:.0f} |")
    if given.cameras:
        watch(plan, given.cameras, given.rate, given.changed)


if __name__ == "__main__":
    main()
