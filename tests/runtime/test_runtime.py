"""The public face: sources, refusals, the kept plan, the commands."""

from __future__ import annotations

import gc
import json
import os
import platform
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

import deltafine
from deltafine import DeltafineError, DeltaRuntime
from deltafine.model import DeltaSettings
from deltafine.report import load_report, write_report
from deltafine.runtime.plan import Plan
from tests.cli.running import Command
from tests.report.builders import make_report, timing
from tests.runtime.models import MODELS, SIZE, refined, video, with_unknown_layers
from tests.small_runs import write_small_model, write_small_video
from tests.video.test_exact_frames import write_image


@pytest.fixture
def deltafine_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(capsys, monkeypatch)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with a refined model in it."""
    folder = tmp_path_factory.mktemp("run")
    refined(MODELS["convolutions"](), "send-on-delta").save(folder / "refined.keras")
    return folder


def test_a_kept_plan_starts_without_tensorflow_and_predicts_the_same(run: Path) -> None:
    frames = list(video(SIZE, 5))
    first = DeltaRuntime(run)
    expected = [first.step(frame) for frame in frames]
    assert (run / "runtime" / "plan.json").exists()
    np.save(run / "frames.npy", np.stack(frames))
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, numpy as np, deltafine\n"
            f"with deltafine.DeltaRuntime({str(run)!r}) as runtime:\n"
            f"    predictions = [runtime.step(frame) for frame in np.load({str(run / 'frames.npy')!r})]\n"
            f"np.save({str(run / 'predictions.npy')!r}, predictions)\n"
            "print('tensorflow' in sys.modules)",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "False", done.stderr
    assert np.array_equal(np.load(run / "predictions.npy"), expected)


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="another kind of vectors")
def test_with_the_vectors_of_older_processors_it_predicts_the_same(run: Path, tmp_path: Path) -> None:
    frames = np.stack(list(video(SIZE, 30)))
    with DeltaRuntime(run) as runtime:
        expected = [runtime.step(frame) for frame in frames]
    np.save(tmp_path / "frames.npy", frames)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import numpy as np, deltafine\n"
            "from deltafine.runtime.kernels.vectors import LANES\n"
            f"runtime = deltafine.DeltaRuntime({str(run)!r}, engine='numba')\n"
            f"predictions = [runtime.step(frame) for frame in np.load({str(tmp_path / 'frames.npy')!r})]\n"
            f"np.save({str(tmp_path / 'predictions.npy')!r}, predictions)\n"
            "print(LANES)",
        ],
        env=os.environ
        | {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma", "NUMBA_CACHE_DIR": str(tmp_path / "numba")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "8", done.stderr
    assert np.allclose(np.load(tmp_path / "predictions.npy"), expected, rtol=1e-5, atol=1e-6)


def test_the_kept_plan_is_plain_json_and_arrays(run: Path) -> None:
    DeltaRuntime(run)
    document = json.loads((run / "runtime" / "plan.json").read_text("utf-8"))
    assert [operation["kind"] for operation in document["operations"]][:3] == ["input", "identity", "conv"]
    with np.load(run / "runtime" / "plan.npz") as arrays:
        assert {operation["weights"] for operation in document["operations"]} - {""} <= set(arrays.files)
    assert Plan.load(run / "runtime").input_shape == SIZE


def test_another_model_in_its_place_is_compiled_anew(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    DeltaRuntime(copy)
    frame = next(video(SIZE, 1))
    refined(MODELS["sums"](), "send-on-delta").save(copy / "refined.keras")
    other = DeltaRuntime(copy)
    assert np.array_equal(other.step(frame), DeltaRuntime(copy, cache=False).step(frame))
    (copy / "runtime" / "plan.npz").write_bytes(b"damaged")
    assert np.array_equal(other.step(frame), DeltaRuntime(copy).step(frame))


def _arrays(start: object, without: set[int] = frozenset()) -> dict[int, np.ndarray]:  # type: ignore[assignment]
    """All arrays that own memory and can be reached from an object, by identity."""
    found, seen, left = {}, set(without), [start]
    while left:
        thing = left.pop()
        if id(thing) in seen or isinstance(thing, type | types.ModuleType | types.FunctionType):
            continue
        seen.add(id(thing))
        if isinstance(thing, np.ndarray) and thing.base is None:
            found[id(thing)] = thing
        left += [thing.base] if isinstance(thing, np.ndarray) else gc.get_referents(thing)
    return found


@pytest.mark.parametrize("engine", ["numba", "numpy"])
@pytest.mark.parametrize("rule", ["send-on-delta", "identity"])
def test_memory_is_that_of_all_arrays_of_the_model_and_of_a_stream(engine: str, rule: str) -> None:
    runtime = DeltaRuntime(refined(MODELS["convolutions"](), rule), engine=engine)
    if engine == "numba":  # sums that events are added to take memory, too
        runtime._choose({operation.name: 1.0 for operation in runtime.plan.operations if operation.kind == "conv"})
    for frame in video(SIZE, 3):
        runtime.step(frame)
    stream = runtime._stream
    program = getattr(stream.state, "program", None)
    of_kernels = _arrays(getattr(program, "working", None))
    of_model = _arrays([runtime.plan, program, getattr(stream.state, "_weights", None)], set(of_kernels))
    of_stream = _arrays(stream, {*of_model, *of_kernels})
    assert runtime.memory == {
        "weights": sum(array.nbytes for array in of_model.values()),
        "state": sum(array.nbytes for array in of_stream.values()),
        "working": sum(array.nbytes for array in of_kernels.values()),
    }
    assert bool(of_kernels) == (engine == "numba")
    other = runtime.stream()
    for frame in video(SIZE, 1):
        other.step(frame)
    assert stream.memory == other.memory
    assert sum(array.nbytes for array in of_kernels.values()) == runtime.memory["working"]  # they share it


def test_memory_counts_the_weights_of_layers_left_to_keras() -> None:
    inputs = keras.Input((4, 4, 3))
    here = keras.Model(inputs, keras.layers.Conv2D(8, 1)(inputs))
    there = keras.Model(
        inputs, keras.layers.Conv2D(8, 1)(keras.layers.Conv2DTranspose(100, 5, activation="sparsemax")(inputs))
    )
    gained = DeltaRuntime(there).memory["weights"] - DeltaRuntime(here).memory["weights"]
    assert gained >= 4 * (25 * 3 * 100 + 100)


def test_numpy_with_a_kept_plan_loads_neither_tensorflow_nor_keras_nor_numba(tmp_path: Path) -> None:
    for rule in ("send-on-delta", "quantize", "identity"):
        run = tmp_path / rule
        run.mkdir()
        refined(MODELS["convolutions"](), rule, "pixel").save(run / "refined.keras")
        frames = list(video(SIZE, 6))
        runtime = DeltaRuntime(run, engine="numpy")
        np.savez(run / "video.npz", frames=frames, expected=[runtime.step(frame) for frame in frames])
    program = (
        "import sys, pathlib, numpy as np, deltafine\n"
        "for run in pathlib.Path(sys.argv[1]).iterdir():\n"
        "    video = np.load(run / 'video.npz')\n"
        "    runtime = deltafine.DeltaRuntime(run, engine='numpy')\n"
        "    assert runtime.calibrated and runtime.calibrate([]) == {}\n"
        "    for frame, expected in zip(video['frames'], video['expected']):\n"
        "        assert np.array_equal(runtime.step(frame), expected)\n"
        "    runtime.counts, runtime.sent(), runtime.memory, runtime.reset()\n"
        "print([name for name in ('tensorflow', 'keras', 'numba', 'h5py') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_layers_that_only_keras_knows_are_named() -> None:
    runtime = DeltaRuntime(with_unknown_layers())
    assert {operation.layer for operation in runtime.plan.unknown} >= {"Activation", "Conv2DTranspose", "Cumsum"}


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda tmp: DeltaRuntime(tmp / "nothing"), "no model"),
        (lambda tmp: DeltaRuntime(MODELS["plain"](), engine="fast"), "engine"),
        (lambda tmp: DeltaRuntime(MODELS["plain"]()).step(np.zeros((3, 3, 3))), "(12, 10, 3)"),
        (lambda tmp: DeltaRuntime(MODELS["plain"]()).step(np.full((12, 10, 3), "x")), "numbers"),
        (lambda tmp: DeltaRuntime(keras.Sequential([keras.Input((None, None, 3)), keras.layers.ReLU()])), "frame size"),
        (lambda tmp: DeltaRuntime(_with_two_inputs()), "2 inputs"),
        (lambda tmp: DeltaRuntime(_of_clips()), "several frames at once"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(use: Callable[[Path], object], words: str, tmp_path: Path) -> None:
    with pytest.raises(DeltafineError) as refusal:
        use(tmp_path)
    assert words in str(refusal.value)


def _with_two_inputs() -> keras.Model:
    a, b = keras.Input((4, 4, 3)), keras.Input((4, 4, 3))
    return keras.Model([a, b], keras.layers.Add()([a, b]))


def _of_clips() -> keras.Model:
    clip = keras.Input((5, 8, 8, 3))
    return keras.Model(clip, keras.layers.GlobalAveragePooling3D()(keras.layers.Conv3D(2, 3)(clip)))


def test_numba_and_numpy_give_the_same() -> None:
    model = refined(MODELS["depthwise"](), "send-on-delta", "pixel")
    one, other = DeltaRuntime(model, engine="numba"), DeltaRuntime(model, engine="numpy")
    for frame in video(SIZE, 30):
        assert np.allclose(one.step(frame), other.step(frame), rtol=1e-4, atol=1e-5)
        assert one.counts.total("effective_macs") == other.counts.total("effective_macs")


def test_run_says_predictions_events_and_times(deltafine_command: Command, tmp_path: Path) -> None:
    model = write_small_model(tmp_path / "small.keras")
    film = write_small_video(tmp_path / "film.avi", light=True, seed=0, frames=24)
    done = deltafine_command("run", model, film)
    assert done.code == 0, done
    lines = done.output.strip().splitlines()
    assert lines[0].startswith("frame 0: class ")
    assert lines[23].startswith("frame 23: ")
    assert lines[23].endswith(" ms")
    assert "24 frames: median" in lines[-1]
    assert deltafine_command("run", model, tmp_path / "none.avi").refusal.startswith("There is no video")


def test_run_names_layers_left_to_keras_and_counts_them_whole(deltafine_command: Command, tmp_path: Path) -> None:
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 1, activation="relu", name="stem")(inputs)
    x = keras.layers.Conv2DTranspose(4, 3, activation="sparsemax", name="up")(x)
    keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x)).save(tmp_path / "small.keras")
    folder = tmp_path / "frames"
    for number in range(4):
        picture = np.full((16, 16, 3), 90, np.uint8)
        picture[2, 2] = 200 if number == 2 else 90
        write_image(folder / f"frame{number}.png", picture)
    done = deltafine_command("run", tmp_path / "small.keras", folder)
    assert done.code == 0, done
    note, *lines = done.output.strip().splitlines()
    assert note == "'up' (Conv2DTranspose) runs densely through Keras, with 92.3% of the MACs"
    shares = [line.partition("MACs ")[2].split(",")[0] for line in lines[:4]]
    assert shares == ["100.0%", "0.0%", "92.3%", "92.3%"]
    assert "MACs after the first 61.6% of dense" in lines[-1]


def test_run_reads_a_folder_of_frames_in_order(deltafine_command: Command, tmp_path: Path) -> None:
    model = write_small_model(tmp_path / "small.keras")
    folder = tmp_path / "frames"
    for number in range(12):  # 10 comes before 2 in the alphabet
        write_image(folder / f"frame{number}.png", np.full((16, 16, 3), 20 * number, np.uint8))
    done = deltafine_command("run", model, folder, "--no-calibrate")
    assert done.code == 0, done
    runtime = DeltaRuntime(model)
    for number, line in enumerate(done.output.splitlines()[:12]):
        expected = runtime.step(np.full((16, 16, 3), 20 * number, np.float32))
        assert line.startswith(f"frame {number}: class {expected.argmax()} ({expected.max():.3g})"), line


def test_a_camera_that_is_not_there_is_refused_in_a_sentence(deltafine_command: Command, tmp_path: Path) -> None:
    model = write_small_model(tmp_path / "small.keras")
    assert "Camera" in deltafine_command("run", model, "97").refusal


@pytest.mark.slow
def test_bench_times_the_same_frames_with_one_thread_and_all_and_the_report_keeps_the_times(
    deltafine_command: Command, tmp_path: Path
) -> None:
    run, films = tmp_path / "run", tmp_path / "films"
    write_small_model(run / "refined.keras")
    write_report(make_report(timings=[timing(threads=1), timing(threads=64)]), run)
    write_small_video(films / "film.avi", light=True, seed=0, frames=24)
    command = [sys.executable, "-m", "deltafine", "bench", str(run), "--data", str(films), "--frames", "24"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Against the best dense runtime here" in done.stdout
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    timings = {one.threads: one for one in load_report(run).timings}
    assert set(timings) == {1, cores, 64}
    assert timings[64] == timing(threads=64)
    for threads in {1, cores}:  # in two turns of up to 16 frames, the first of each not timed
        assert (timings[threads].frames, timings[threads].videos) == (22, 1)
        assert timings[threads].runtimes[0].name == "deltafine"
        assert any(one.name.startswith("TensorFlow ") for one in timings[threads].runtimes)
        assert all(0 < one.p50 <= one.p95 for one in timings[threads].runtimes)
    assert "Milliseconds per frame, 64 threads" in deltafine_command("report", run).output


@pytest.mark.parametrize("scaling", ["caffe", "torch"])
@pytest.mark.parametrize("engine", ["numpy", "numba"])
def test_scalings_of_colours_are_those_of_the_model(scaling: str, engine: str) -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 10, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    network = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x)))
    settings = DeltaSettings(initial_threshold=0.1)
    sites = deltafine.find_activations(network)
    model = deltafine.insert_deltas(network, sites, settings, rescale=scaling, clip_output="per-frame")
    clip = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 1, 8, 10, 3)), 4, axis=1).astype(np.uint8)
    clip[:, 2:, 3:5] = 9
    runtime = DeltaRuntime(model, engine=engine)
    answers = np.stack([runtime.step(frame) for frame in clip[0]])
    np.testing.assert_allclose(answers, model.predict(clip, verbose=0)[0], rtol=1e-4, atol=1e-4)


def test_the_name_is_public() -> None:
    assert "DeltaRuntime" in deltafine.__all__
