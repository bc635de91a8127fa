"""One stream on several threads: the same bits as on one, whatever the threads do, and none of them left behind."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from deltafine import DeltafineError, DeltaRuntime
from deltafine.runtime import helpers
from deltafine.runtime.int8.byte_program import ByteProgram
from deltafine.runtime.int8.byte_state import ByteState
from deltafine.runtime.kernels import sharing
from deltafine.runtime.lowering.lower import compile_model
from deltafine.runtime.numba_stream import NumbaState
from deltafine.runtime.packed_plan import Program
from tests.runtime.int8.plans import byte_plan, no_keras, random_plan
from tests.runtime.int8.plans import video as video_of_any
from tests.runtime.models import MODELS, frame_shape, refined, video, weighted
from tests.runtime.random_networks import Fragile

NAME = "deltafine-helper"


def helping() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == NAME]


def left_after(seconds: float, before: int) -> int:
    """How many helpers more than before are there, once they had time to leave."""
    until = time.monotonic() + seconds
    while len(helping()) > before and time.monotonic() < until:
        time.sleep(0.01)
    return len(helping()) - before


@pytest.fixture(params=[2, 1000], ids=["by rows", "by panels"])
def everything_shared(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """However little there is to do, it is shared; by rows, or where it can be, by panels of weights."""
    share_all = partial(helpers.TeamSettings, least=0, looks=200_000, short=request.param)
    monkeypatch.setattr(helpers, "TeamSettings", share_all)
    monkeypatch.setattr(helpers, "WORTH_WAKING", 0)


def same_memory(one: NumbaState, other: NumbaState) -> None:
    for name in ("masks", "changed", "counters"):
        ours, theirs = getattr(one.memory_arrays, name), getattr(other.memory_arrays, name)
        assert np.array_equal(ours, theirs), name
    ours, theirs = (state.memory_arrays.arena.view(np.uint32) for state in (one, other))
    assert np.array_equal(ours, theirs)


@pytest.mark.usefixtures("everything_shared")
@pytest.mark.parametrize("rule", ["identity", "quantize", "send-on-delta"])
@pytest.mark.parametrize("name", MODELS)
def test_all_networks_give_the_same_bits_on_two_and_three_threads(name: str, rule: str) -> None:
    plan = compile_model(refined(MODELS[name](), rule)).plan
    if any(plan.runs_in_python(operation) for operation in plan.operations):
        pytest.skip("layers are left to Keras")
    alone, *shared = (NumbaState(Program(plan, threads=threads), no_keras) for threads in (1, 2, 3))
    for frame in video(frame_shape(MODELS[name]()), 12):
        alone.step(frame)
        for state in shared:
            state.step(frame)
            same_memory(alone, state)


@pytest.mark.usefixtures("everything_shared")
@pytest.mark.parametrize("channels", [1, 2, 3, 5, 8, 11, 16, 17, 33])
def test_rows_that_do_not_fill_vectors_do_not_disturb_those_of_other_threads(channels: int) -> None:
    inputs = keras.Input((23, 29, 3))
    x = layers.ReLU()(layers.Conv2D(channels, 3, padding="same")(inputs))
    x = layers.ReLU()(layers.DepthwiseConv2D(3, padding="same")(x))
    x = layers.MaxPooling2D(2, strides=1)(x)
    x = layers.ReLU()(layers.Add()([layers.Conv2D(channels, 1)(x), x]))
    plan = compile_model(refined(weighted(keras.Model(inputs, x)), "send-on-delta", relative_threshold=0.2)).plan
    alone, shared = (NumbaState(Program(plan, threads=threads), no_keras) for threads in (1, 4))
    generator = np.random.default_rng(channels)
    for _ in range(40):
        frame = generator.uniform(0, 2, (23, 29, 3)).astype(np.float32)
        alone.step(frame)
        shared.step(frame)
        same_memory(alone, shared)


@pytest.mark.usefixtures("everything_shared")
@pytest.mark.parametrize("seed", range(12))
def test_int8_gives_the_same_bytes_on_several_threads(seed: int) -> None:
    plan = random_plan(seed)
    frames = list(video_of_any(plan.input_shape, 12, seed))
    plan = byte_plan(plan, frames[:6])
    alone, *shared = (ByteState(ByteProgram(plan, threads), no_keras) for threads in (1, 2, 4))
    for frame in frames:
        alone.step(frame)
        for state in shared:
            state.step(frame)
            same_memory(alone, state)
            assert np.array_equal(alone._bytes.levels, state._bytes.levels)


@pytest.mark.usefixtures("everything_shared")
def test_helpers_that_are_gone_change_no_answer() -> None:
    plan = compile_model(refined(MODELS["convolutions"](), "send-on-delta")).plan
    program = Program(plan, threads=2)
    alone, shared = NumbaState(Program(plan), no_keras), NumbaState(program, no_keras)
    for number, frame in enumerate(video(frame_shape(MODELS["convolutions"]()), 12)):
        if number == 4:
            (team,) = program.helpers._free
            team.leave()  # and is lent all the same
            assert not any(thread.is_alive() for thread in team._threads)
        alone.step(frame)
        shared.step(frame)
        same_memory(alone, shared)


def large() -> keras.Model:
    """A network of which a frame takes some milliseconds."""
    inputs = keras.Input((64, 64, 3))
    x = layers.ReLU()(layers.Conv2D(48, 3, padding="same")(inputs))
    x = layers.ReLU()(layers.Conv2D(64, 3, padding="same")(x))
    return weighted(keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling2D()(x))))


def noise(count: int, size: tuple[int, ...] = (64, 64, 3)) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, *size), dtype=np.uint8))


def on_threads(model: object, threads: int = 2) -> DeltaRuntime:
    """A runtime with so many threads, on machines with fewer processors, too."""
    runtime = DeltaRuntime(model, engine="numba")  # type: ignore[arg-type]
    runtime.threads = threads
    runtime._choose({})
    return runtime


def test_a_helper_does_a_part_of_the_work() -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("there is one processor")
    runtime = DeltaRuntime(large(), engine="numba", threads=2)
    before = set(helping())
    for frame in noise(20):
        runtime.step(frame)
    (helper,) = set(helping()) - before
    assert helper.ident is not None
    clock = time.pthread_getcpuclockid(helper.ident)
    for _ in range(20):  # until the machine has a processor left for it
        begin = time.clock_gettime(clock)
        for frame in noise(20):
            runtime.step(frame)
        words = runtime._own.state.program.helpers._free[0].words  # type: ignore[union-attr]
        if time.clock_gettime(clock) > begin:
            break
    assert words[sharing.OFFER] >> sharing.LEFT_BITS >= 40  # frames of two convolutions that were offered
    assert time.clock_gettime(clock) > begin


def test_threads_end_with_the_runtime() -> None:
    gc.collect()
    before = len(helping())
    with on_threads(large()) as runtime:
        first = [runtime.step(frame) for frame in noise(3)]
        assert len(helping()) == before + 1
    assert left_after(5, before) == 0
    assert np.array_equal([runtime.step(frame) for frame in noise(3)], first)  # others come
    assert len(helping()) == before + 1
    del runtime
    gc.collect()
    assert left_after(5, before) == 0


def test_streams_in_two_threads_have_helpers_of_their_own() -> None:
    runtime = on_threads(refined(large(), "send-on-delta"))
    videos = [noise(30), noise(60)[30:]]

    def answers(frames: list[np.ndarray]) -> list[np.ndarray]:
        stream = runtime.stream()
        return [stream.step(frame) for frame in frames]

    alone = DeltaRuntime(refined(large(), "send-on-delta"), engine="numba")
    expected = []
    for frames in videos:
        stream = alone.stream()
        expected.append([stream.step(frame) for frame in frames])
    with ThreadPoolExecutor(2) as pool:
        assert np.array_equal(list(pool.map(answers, videos)), expected)


def test_one_stream_of_step_many_is_shared_and_several_are_not() -> None:
    runtime, alone = on_threads(large()), DeltaRuntime(large(), engine="numba")
    frames = noise(6)
    one, other, expected = runtime.stream(), runtime.stream(), alone.stream()
    before = len(helping())
    for frame in frames[:3]:
        assert np.array_equal(runtime.step_many({one: frame, other: frame})[one], expected.step(frame))
    assert len(helping()) == before
    for frame in frames[3:]:
        assert np.array_equal(runtime.step_many({one: frame})[one], expected.step(frame))
    assert len(helping()) == before + 1


@pytest.mark.parametrize("breaks", [KeyboardInterrupt, ValueError])
def test_a_step_that_breaks_off_leaves_helpers_that_go_on(
    breaks: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = keras.Input((64, 64, 3))
    x = layers.ReLU()(layers.Conv2D(48, 3, padding="same")(inputs))
    x = layers.ReLU()(layers.Conv2D(16, 3, padding="same")(Fragile()(x)))
    model = weighted(keras.Model(inputs, x))
    runtime, expected = on_threads(model), DeltaRuntime(model, engine="numba")
    frames = noise(6)
    for frame in frames[:3]:
        runtime.step(frame)
    before = len(helping())
    monkeypatch.setattr(Fragile, "breaks", breaks)
    with pytest.raises(breaks):
        runtime.step(frames[3])
    monkeypatch.setattr(Fragile, "breaks", None)
    for frame in frames[4:]:  # it begins anew
        assert np.array_equal(runtime.step(frame), expected.step(frame))
    assert len(helping()) == before


FORKING = """
import os, sys, threading
import numpy as np
from tests.runtime.test_threads import large, noise, on_threads
runtime = on_threads(large())
frames = noise(8)
for frame in frames[:4]:
    runtime.step(frame)
child = os.fork()
answers = [runtime.step(frame) for frame in frames[4:]]
np.save(sys.argv[1] + ("" if child else ".child"), answers)
assert sum(thread.name == "deltafine-helper" for thread in threading.enumerate()) == 1
if child:
    assert os.waitpid(child, 0)[1] == 0
else:
    os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_forked_process_gets_helpers_of_its_own(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORKING, str(tmp_path / "answers")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    expected = [DeltaRuntime(large(), engine="numba")] * 8
    answers = [runtime.step(frame) for runtime, frame in zip(expected, noise(8), strict=True)][4:]
    assert np.array_equal(np.load(tmp_path / "answers.npy"), answers)
    assert np.array_equal(np.load(tmp_path / "answers.child.npy"), answers)


def test_a_process_ends_with_helpers_awake() -> None:
    code = (
        "from tests.runtime.test_threads import large, noise, on_threads\n"
        "runtime = on_threads(large())\n"
        "for frame in noise(5): runtime.step(frame)\n"
        "print('over')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (0, "over\n"), done.stderr


@pytest.mark.parametrize("make", [lambda: DeltaRuntime(large(), engine="numba", threads=0)])
def test_no_threads_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(DeltafineError, match="threads is 0: give a whole number from 1 on"):
        make()


def test_there_are_no_more_threads_than_processors() -> None:
    assert DeltaRuntime(large(), engine="numba", threads=1000).threads == len(os.sched_getaffinity(0))


def test_what_helpers_work_in_counts_as_memory() -> None:
    one, two = DeltaRuntime(large(), engine="numba"), on_threads(large())
    for runtime in (one, two):
        runtime.step(noise(1)[0])
    assert one.memory["working"] < two.memory["working"] < 3 * one.memory["working"]
    assert one.memory["state"] == two.memory["state"]
