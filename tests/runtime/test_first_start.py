"""The first start on a machine: NumPy answers until the kernels are compiled, and they go on from where it stands."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from deltafine import DeltafineWarning, DeltaRuntime
from deltafine.runtime import first_start
from deltafine.runtime import runtime as runtime_module
from deltafine.runtime.plan import can_run_by_events
from tests.kept_plans import SIZE as SIDE
from tests.kept_plans import write_played_run
from tests.runtime.models import MODELS, frame_shape, refined, video


def on_its_first_start(model: object, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> DeltaRuntime:
    """A runtime that finds no kernels; those of this process are there as soon as it begins to compile."""
    monkeypatch.setattr(runtime_module, "kernels_are_kept", lambda precision: False)
    with pytest.warns(DeltafineWarning, match=r"compiled for this machine, once, .* NumPy answers meanwhile"):
        return DeltaRuntime(cast("Any", model), **settings)


def values_of(stream: object) -> list[np.ndarray]:
    return [stream.state.value(index) for index in range(len(stream._plan.tensors))]  # type: ignore[attr-defined]


@pytest.mark.parametrize("frames_before", [1, 9, 26])
@pytest.mark.parametrize("kind", [np.float32, np.uint8])
@pytest.mark.parametrize(("name", "rule"), [("convolutions", "identity"), ("sums", "quantize"), ("blocks", "identity")])
def test_without_memory_nothing_is_left_of_numpy_after_the_first_frame_of_the_kernels(
    name: str, rule: str, kind: type, frames_before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = refined(MODELS[name](), rule)
    runtime = on_its_first_start(model, monkeypatch)
    only_kernels, only_numpy = (DeltaRuntime(model, engine=engine) for engine in ("numba", "numpy"))
    monkeypatch.setattr(runtime._compiling, "begin", lambda: None)  # not before this test says so
    for number, frame in enumerate(video(frame_shape(MODELS[name]()), 34)):
        frame = frame.astype(kind)
        if number == frames_before:
            monkeypatch.undo()
            assert runtime._compiling is not None
            assert runtime._compiling.wait()
        expected = (only_kernels if number >= frames_before else only_numpy).stream()
        answer = runtime.step(frame)
        expected.step(frame)
        assert runtime.engine == ("numba" if number >= frames_before else "numpy")
        if number >= frames_before:
            for one, other in zip(values_of(runtime._stream), values_of(expected), strict=True):
                np.testing.assert_array_equal(one, other)
        assert np.allclose(answer, expected._of_sample(runtime.plan.outputs[0]), atol=1e-4)


@pytest.mark.parametrize("how", ["rows", "events"])
def test_with_memory_the_kernels_hold_what_numpy_has_sent(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = refined(MODELS["convolutions"](), "send-on-delta")
    runtime = on_its_first_start(model, monkeypatch)
    if how == "events":
        runtime._choose({o.name: 1.0 for o in runtime.plan.operations if can_run_by_events(o)})
    numpy_only = DeltaRuntime(model, engine="numpy")
    monkeypatch.setattr(runtime._compiling, "begin", lambda: None)
    frames = list(video(frame_shape(MODELS["convolutions"]()), 40))
    for frame in frames[:12]:
        np.testing.assert_array_equal(runtime.step(frame), numpy_only.step(frame))
    monkeypatch.undo()
    assert runtime._compiling is not None
    assert runtime._compiling.wait()
    before = runtime.sent()
    runtime.step(frames[11])  # once more: nothing changes, and nothing is sent
    assert runtime.engine == "numba"
    assert all(np.array_equal(sent, before[name]) for name, sent in runtime.sent().items())
    numpy_only.step(frames[11])
    for frame in frames[12:]:
        assert np.allclose(runtime.step(frame), numpy_only.step(frame), atol=0.05)
    assert runtime.counts is not None
    assert 0 < runtime.counts.total("executed_macs") < runtime.plan.dense_macs()


@pytest.mark.parametrize("name", ["convolutions", "blocks", "sums"])
def test_in_whole_numbers_nothing_tells_when_the_kernels_went_on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = refined(MODELS[name](), "send-on-delta")
    frames = [frame.astype(np.uint8) for frame in video(frame_shape(MODELS[name]()), 30)]
    runtime = on_its_first_start(model, monkeypatch, precision="int8")
    only_numpy = DeltaRuntime(model, precision="int8", engine="numpy")
    for one in (runtime, only_numpy):
        one.calibrate(frames)
    monkeypatch.setattr(runtime._compiling, "begin", lambda: None)
    for number, frame in enumerate(frames):
        if number == 11:
            monkeypatch.undo()
            assert runtime._compiling is not None
            assert runtime._compiling.wait()
        np.testing.assert_array_equal(runtime.step(frame), only_numpy.step(frame))
        assert runtime.engine == ("numba" if number >= 11 else "numpy")
        assert type(runtime._stream.state).__name__ == ("ByteState" if number >= 11 else "ByteNumpyState")


def test_each_stream_changes_over_by_itself_with_its_sensitivity_and_new_ones_begin_with_kernels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = refined(MODELS["plain"](), "send-on-delta")
    runtime = on_its_first_start(model, monkeypatch)
    frames = list(video(frame_shape(MODELS["plain"]()), 6))
    one, other = runtime.stream(), runtime.stream()
    other.sensitivity = 2.0
    assert runtime.compiling
    runtime.step_many({one: frames[0], other: frames[0]})
    runtime.step_many({one: frames[1]})  # begins to compile
    assert runtime._compiling is not None
    assert runtime._compiling.wait()
    assert not runtime.compiling
    alone = DeltaRuntime(model, engine="numba").stream()
    alone.sensitivity = 2.0
    alone.step(frames[0])
    answers = runtime.step_many({one: frames[2], other: frames[2]})
    assert np.allclose(answers[other], alone.step(frames[2]), atol=1e-4)
    assert other.sensitivity == 2.0
    assert type(one.state).__name__ == type(other.state).__name__ == "NumbaState"
    assert one.state.program is other.state.program is runtime.stream().state.program
    assert runtime.memory["weights"] == DeltaRuntime(model, engine="numba").memory["weights"]


def test_the_thread_that_compiles_outlives_the_program_whoever_begins_it(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = on_its_first_start(refined(MODELS["plain"](), "identity"), monkeypatch)
    daemons = []
    monkeypatch.setattr(first_start, "compile_kernels", lambda _: daemons.append(threading.current_thread().daemon))
    player = threading.Thread(
        target=lambda: [runtime.step(frame) for frame in video(frame_shape(MODELS["plain"]()), 3)], daemon=True
    )
    player.start()
    player.join()
    assert runtime._compiling is not None
    assert runtime._compiling.wait()
    assert daemons == [False]


def test_calibrating_waits_for_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    model = refined(MODELS["plain"](), "send-on-delta")
    runtime = on_its_first_start(model, monkeypatch)
    assert not runtime.calibrated
    runtime.calibrate(video(frame_shape(MODELS["plain"]()), 16))
    assert runtime.calibrated
    assert runtime.engine == "numba"


def test_kernels_that_cannot_be_compiled_leave_numpy_going(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(precision: str) -> None:
        raise MemoryError("none left")

    model = refined(MODELS["plain"](), "identity")
    runtime = on_its_first_start(model, monkeypatch)
    monkeypatch.setattr(first_start, "compile_kernels", breaks)
    expected = DeltaRuntime(model, engine="numpy")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for frame in video(frame_shape(MODELS["plain"]()), 5):
            np.testing.assert_array_equal(runtime.step(frame), expected.step(frame))
        assert runtime._compiling is not None
        assert not runtime._compiling.wait()
    assert any("NumPy goes on (MemoryError: none left)" in str(one.message) for one in said)
    assert runtime.engine == "numpy"


STARTING = """
import time
begin = time.perf_counter()
import sys, warnings
import numpy as np, deltafine
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    runtime = deltafine.DeltaRuntime(sys.argv[1])
runtime.step(np.zeros(runtime.plan.input_shape, np.uint8))
print(time.perf_counter() - begin, runtime.engine, len(said))
if len(sys.argv) > 2:
    frames = 1
    while runtime.engine == "numpy":
        runtime.step(np.full(runtime.plan.input_shape, frames % 256, np.uint8))
        frames += 1
    print(frames, runtime.engine)
from deltafine.runtime.first_start import _kernels
runtime.counts
runtime.step(np.zeros(runtime.plan.input_shape, np.float32))
if runtime.engine == "numba":
    assert all(len(function.signatures) == 1 for function, _ in _kernels("float32"))
"""


def started(run: Path, cache: Path, *more: str) -> list[list[str]]:
    """What a process of its own prints, whose kernels are kept in a folder."""
    done = subprocess.run(
        [sys.executable, "-c", STARTING, run, *more],
        env=os.environ | {"NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_on_a_fresh_machine_the_first_answer_is_numpys_and_the_next_start_has_kernels(tmp_path: Path) -> None:
    run = write_played_run(tmp_path / "run")
    (_, engine, said), (frames, later) = started(run, tmp_path / "kernels", "until compiled")
    assert (engine, said, later) == ("numpy", "1", "numba")
    assert int(frames) > 2
    ((_, engine, said),) = started(run, tmp_path / "kernels")
    assert (engine, said) == ("numba", "0")


@pytest.mark.slow
def test_a_short_program_ends_when_the_kernels_are_kept(tmp_path: Path) -> None:
    from tests.video.painted import write_video

    run = write_played_run(tmp_path / "run")
    film = write_video(tmp_path / "film.avi", 4, size=(SIDE, SIDE))
    command = [sys.executable, "-m", "deltafine", "run", run, film]
    root = Path(__file__).parents[2]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "kernels"), "PYTHONPATH": str(root)}
    begin = time.monotonic()
    first = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    took = time.monotonic() - begin
    assert "NumPy answers meanwhile" in first.stderr
    assert "the command ends when they are kept" in first.stderr
    assert "engine numpy" in first.stdout
    begin = time.monotonic()
    second = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "engine numba" in second.stdout
    assert time.monotonic() - begin < took
