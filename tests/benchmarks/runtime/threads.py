"""One stream of the delta runtime on one thread and on several.

    python -m tests.benchmarks.runtime.threads                    # two threads, in float32
    python -m tests.benchmarks.runtime.threads --int8 --models MobileNetV1 MobileNetV2

Weights and changes are those of ``python -m tests.benchmarks.runtime``. One thread and several take turns, some frames
at a time; ratios are of medians of the time that passed. Each thread needs a processor that nobody else uses: turns in
which other processes computed on more than the processors that are left are left out, and done again for a while.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deltafine.jobs.frame_times import percentile
from deltafine.runtime.numba_stream import NumbaState
from deltafine.runtime.plan import Plan
from deltafine.runtime.plan_cache import available_cores, machine

DENSITIES = (0.01, 0.05, 0.10, 0.25, 0.50, 1.0)
TURN_SECONDS, LEAST_FRAMES = 0.4, 4
MOST_OF_OTHERS = 0.15
"""What others may take of the processors that this one computes on, as a share of one of them."""


def _busy_seconds() -> float:
    """Of all processors, since the machine was started; 0 where that is not known."""
    counts = Path("/proc/stat")
    if not counts.exists():
        return 0.0
    user, nice, system, _, _, *others = map(int, counts.read_text().splitlines()[0].split()[1:9])
    return (user + nice + system + sum(others)) / os.sysconf("SC_CLK_TCK")


def turn(state: NumbaState, frames: Sequence[np.ndarray]) -> tuple[list[float], float]:
    """Milliseconds of some frames, and the share of a processor that other processes had meanwhile."""
    for frame in frames[:2]:
        state.step(frame)
    times: list[float] = []
    busy, own, begin = _busy_seconds(), time.process_time(), time.perf_counter()
    while time.perf_counter() - begin < TURN_SECONDS or len(times) < LEAST_FRAMES:
        before = time.perf_counter()
        state.step(frames[len(times) % len(frames)])
        times.append(1e3 * (time.perf_counter() - before))
    others = (_busy_seconds() - busy) - (time.process_time() - own)
    return times, others / (time.perf_counter() - begin)


def compare(
    states: Sequence[NumbaState], threads: Sequence[int], frames: Sequence[np.ndarray], turns: int, seconds: float
) -> list[float]:
    """The median milliseconds of a frame of each state; NaN if it never had its processors for itself."""
    processors = available_cores()
    kept: list[list[float]] = [[] for _ in states]
    quiet = [0] * len(states)
    until = time.monotonic() + seconds
    while min(quiet) < turns and time.monotonic() < until:
        for place, state in enumerate(states):
            times, others = turn(state, frames)
            if others <= processors - threads[place] + MOST_OF_OTHERS:
                kept[place] += times
                quiet[place] += 1
    return [percentile(times, 50) if times else float("nan") for times in kept]


def states_of(plan: Plan, frames: Sequence[np.ndarray], density: float, threads: int, int8: bool) -> list[NumbaState]:
    """On one thread, and on several."""
    from deltafine.runtime.int8.byte_program import ByteProgram
    from deltafine.runtime.int8.byte_state import ByteState
    from deltafine.runtime.int8.quantise import in_bytes
    from deltafine.runtime.packed_plan import Program
    from deltafine.runtime.value_ranges import value_ranges
    from tests.benchmarks.runtime.__main__ import changing, sending_all

    changed = changing(plan, density)
    if not int8:
        return [NumbaState(Program(changed, threads=count), lambda *_: []) for count in (1, threads)]
    exact = sending_all(plan)
    bytes_of = in_bytes(changed, value_ranges(exact, NumbaState(Program(exact), lambda *_: []), frames))
    return [ByteState(ByteProgram(bytes_of, count), lambda *_: []) for count in (1, threads)]


def small(height: int, width: int) -> object:
    """Four convolutions, as networks on videos of low resolution have them."""
    import keras
    from keras import layers

    x = inputs = keras.Input((height, width, 3))
    for channels, stride in ((16, 1), (32, 2), (64, 2), (64, 1)):
        x = layers.Conv2D(channels, 3, strides=stride, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    own = ["small 48x64", "small 96x128"]
    parser.add_argument("--models", nargs="*", default=[*own, "MobileNetV1", "MobileNetV2", "ResNet50"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--int8", action="store_true", help="in 8-bit integers")
    parser.add_argument(
        "--densities", type=float, nargs="*", default=DENSITIES, help="shares of the pixels that change"
    )
    parser.add_argument("--turns", type=int, default=4, help="of each, with nothing else on the machine")
    parser.add_argument("--seconds", type=float, default=30.0, help="after which no more turns are waited for")
    given = parser.parse_args()
    import keras

    from tests.benchmarks.runtime.__main__ import MODELS, compiled

    keras.utils.set_random_seed(0)
    print(f"{machine()}; {'int8' if given.int8 else 'float32'}, {given.threads} threads against one")
    print("| network | " + " | ".join(f"{density:.0%}" for density in given.densities) + " |")
    print("|---|" + "---|" * len(given.densities))
    for name in given.models:
        height, _, width = name.removeprefix("small ").partition("x")
        plan = compiled(small(int(height), int(width)) if name in own else MODELS[name]())
        frames = list(np.random.default_rng(0).uniform(0, 255, (8, *plan.input_shape)).astype(np.float32))
        cells = []
        for density in given.densities:
            states = states_of(plan, frames, density, given.threads, given.int8)
            one, several = compare(states, (1, given.threads), frames, given.turns, given.seconds)
            for state in states:
                for frame in frames[:2]:
                    state.step(frame)
            assert all(np.array_equal(*(state.value(index) for state in states)) for index in plan.outputs)
            cells.append(f"{one / several:.2f} ({one:.2f} to {several:.2f} ms)")
            states[1].program.release_threads()
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
