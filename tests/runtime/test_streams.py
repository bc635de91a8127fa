"""A stream holds addresses of its own memory: no copies, one thread at a time, and what a fork may do."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from deltafine import DeltafineError, DeltaRuntime
from deltafine.runtime.plan import Plan
from tests.runtime.models import MODELS, SIZE, frame_shape, refined, video

ENGINES = ("numba", "numpy")


def copied(thing: Any) -> Any:
    return copy.copy(thing)


def pickled(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("how", [copied, copy.deepcopy, pickled])
@pytest.mark.parametrize(
    "what",
    [lambda runtime: runtime, lambda runtime: runtime.stream(), lambda runtime: runtime.stream().state,
     lambda runtime: [runtime.stream()], lambda runtime: runtime.stream().step],
    ids=["runtime", "stream", "state", "list", "method"],
)  # fmt: skip
def test_what_holds_addresses_is_not_copied_nor_pickled(
    engine: str, how: Callable[[Any], Any], what: Callable[[DeltaRuntime], Any]
) -> None:
    runtime = DeltaRuntime(MODELS["plain"](), engine=engine)
    frame = next(video(frame_shape(MODELS["plain"]()), 1))
    runtime.step(frame)
    thing = what(runtime)
    if how is not copied or not (isinstance(thing, list) or callable(thing)):  # these two have no memory of their own
        with pytest.raises(DeltafineError, match=r"cannot be copied, pickled or sent .* stream\(\)"):
            how(thing)
    assert np.array_equal(runtime.step(frame), runtime.stream().step(frame))


@pytest.mark.parametrize("how", [copied, copy.deepcopy, pickled])
def test_a_plan_holds_no_addresses_and_is_copied(how: Callable[[Any], Any]) -> None:
    plan = DeltaRuntime(MODELS["plain"](), engine="numpy").plan
    other = how(plan)
    assert isinstance(other, Plan)
    assert other.tensors == plan.tensors
    assert all(np.array_equal(array, other.arrays[name]) for name, array in plan.arrays.items())


class Waiting(layers.Layer):
    """Waits within a step for as long as a test needs. It looks at numbers, so that it is not compiled."""

    begun, go_on = threading.Event(), threading.Event()
    waits = False

    def compute_output_spec(self, x: Any) -> Any:
        return keras.KerasTensor(x.shape, dtype=x.dtype)

    def call(self, x: Any) -> Any:
        np.asarray(x)
        if Waiting.waits:
            Waiting.begun.set()
            assert Waiting.go_on.wait(30)
        return x * 1.0


@pytest.mark.parametrize("engine", ENGINES)
def test_a_second_thread_in_a_stream_is_refused_and_the_first_is_right(engine: str) -> None:
    inputs = keras.Input((6, 6, 3))
    model = keras.Model(inputs, layers.Conv2D(2, 3)(Waiting()(inputs)))
    runtime = DeltaRuntime(model, engine=engine)
    frames = list(video((6, 6, 3), 3))
    expected = [runtime.stream().step(frame) for frame in frames]
    runtime.step(frames[0])
    Waiting.begun.clear()
    Waiting.go_on.clear()
    Waiting.waits = True
    try:
        with ThreadPoolExecutor(1) as pool:
            stepping = pool.submit(runtime.step, frames[1])
            assert Waiting.begun.wait(30)
            for use in (
                lambda: runtime.step(frames[2]),
                runtime.reset,
                runtime.sent,
                lambda: runtime.counts,
            ):
                begun = time.monotonic()
                with pytest.raises(DeltafineError, match=r"in use by another thread: .* runtime\.stream\(\)"):
                    use()
                assert time.monotonic() - begun < 5  # it does not wait for the other
            Waiting.go_on.set()
            assert np.array_equal(stepping.result(30), expected[1])
    finally:
        Waiting.waits = False
        Waiting.go_on.set()
    assert np.array_equal(runtime.step(frames[2]), expected[2])


def test_threads_that_run_into_each_other_in_one_stream_get_right_answers_or_refusals() -> None:
    model = refined(MODELS["convolutions"](), "identity")  # answers do not depend on the frames before
    runtime = DeltaRuntime(model, engine="numba")
    frames = list(video(SIZE, 30))
    expected = [runtime.stream().step(frame) for frame in frames]

    def play(order: list[int]) -> tuple[int, int]:
        answers = refusals = 0
        for number in order:
            try:
                answer = runtime.step(frames[number])
            except DeltafineError:
                refusals += 1
            else:
                answers += 1
                assert np.array_equal(answer, expected[number])
        return answers, refusals

    order = list(range(30)) * 10
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(play, [order, order[::-1], order[7:], order[11:]]))
    answers, refusals = map(sum, zip(*done, strict=True))
    assert answers > 30
    assert refusals


def test_while_a_kernel_runs_other_threads_go_on() -> None:
    inputs = keras.Input((256, 256, 16))
    x = inputs
    for _ in range(12):
        x = layers.Conv2D(16, 5, padding="same", activation="relu")(x)
    runtime = DeltaRuntime(keras.Model(inputs, layers.GlobalAveragePooling2D()(x)), engine="numba")
    frames = np.random.default_rng(0).uniform(0, 1, (2, 256, 256, 16)).astype(np.float32)
    runtime.step(frames[0])
    running = threading.Event()

    def step() -> tuple[float, float]:
        running.set()
        begun = time.monotonic()
        runtime.step(frames[1])
        return begun, time.monotonic()

    with ThreadPoolExecutor(1) as pool:
        stepping = pool.submit(step)
        assert running.wait(10)
        ticks = []
        while not stepping.done():
            ticks.append(time.monotonic())
            time.sleep(0.001)
        begun, ended = stepping.result()
    assert sum(begun < tick < ended for tick in ticks) >= 3, ended - begun


FORKING = """
import os, sys
import numpy as np
import deltafine
frames = np.load(sys.argv[2])
runtime = deltafine.DeltaRuntime(sys.argv[1], engine=sys.argv[3])
other = runtime.stream()
for frame in frames[:5]:
    runtime.step(frame)
child = os.fork()
answers = [runtime.step(frame) for frame in frames[5:]]
np.save(sys.argv[4] + ("" if child else ".child"), answers)
if child:
    assert os.waitpid(child, 0)[1] == 0
else:
    os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
@pytest.mark.parametrize("engine", ENGINES)
def test_a_forked_process_goes_on_with_a_stream_as_its_parent_does(engine: str, tmp_path: Path) -> None:
    refined(MODELS["convolutions"](), "send-on-delta").save(tmp_path / "refined.keras")
    frames = np.stack(list(video(SIZE, 12)))
    np.save(tmp_path / "frames.npy", frames)
    runtime = DeltaRuntime(tmp_path, engine=engine)
    expected = [runtime.step(frame) for frame in frames][5:]
    command = [sys.executable, "-c", FORKING, tmp_path, tmp_path / "frames.npy", engine, tmp_path / "answers"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(tmp_path / "answers.npy"), expected)
    assert np.array_equal(np.load(tmp_path / "answers.child.npy"), expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_in_a_forked_process_layers_left_to_keras_are_refused_and_do_not_hang() -> None:
    inputs = keras.Input((6, 6, 3))
    runtime = DeltaRuntime(keras.Model(inputs, layers.Activation("sparsemax")(inputs)), engine="numpy")
    frame = next(video((6, 6, 3), 1))
    runtime.step(frame)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            runtime.step(255 - frame)
        except BaseException as error:
            os.write(write, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as said:
        sentence = said.read()
    os.waitpid(child, 0)
    assert sentence.startswith("DeltafineError: ")
    assert "forked process" in sentence
    assert np.array_equal(runtime.step(frame), runtime.stream().step(frame))


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_done_to_the_model_later_changes_no_answers(engine: str) -> None:
    inputs = keras.Input((8, 9, 3))
    x = layers.Conv2D(4, 3, activation="relu")(inputs)
    x = layers.LayerNormalization()(layers.Conv2DTranspose(5, 3)(x))
    x = layers.Activation("sparsemax")(layers.BatchNormalization(axis=1)(x))  # left to Keras
    x = layers.Bidirectional(layers.GRU(3))(layers.Reshape((2, 5))(layers.AveragePooling2D((4, 9))(x)))
    model = keras.Model(inputs, layers.Dense(2)(x))
    runtime = DeltaRuntime(model, engine=engine)
    frames = list(video((8, 9, 3), 6))
    before = [runtime.step(frame) for frame in frames]
    weights = model.get_weights()
    model.set_weights([weight + 1 for weight in weights])
    other = runtime.stream()
    assert all(np.array_equal(other.step(frame), answer) for frame, answer in zip(frames, before, strict=True))
    assert not np.allclose(DeltaRuntime(model, engine=engine).step(frames[0]), before[0])
    assert all(np.array_equal(weight + 1, now) for weight, now in zip(weights, model.get_weights(), strict=True))


class Counting(layers.Layer):
    """Knows how many calls there were before."""

    def build(self, shape: tuple[int, ...]) -> None:
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False, name="calls")

    def call(self, x: Any) -> Any:
        self.calls.assign_add(1.0)
        return x + self.calls


@pytest.mark.parametrize(
    "make",
    [lambda: Counting(name="own"), lambda: layers.GRU(3, stateful=True, name="own")],
    ids=["counting", "stateful"],
)
def test_a_layer_with_a_state_of_its_own_is_refused_and_the_model_left_as_it_is(make: Callable[[], Any]) -> None:
    inputs = keras.Input(batch_shape=(1, 4, 3))
    model = keras.Model(inputs, make()(inputs))
    before = model.layers[1].variables[-1].numpy()
    with pytest.raises(DeltafineError, match=r"Layer 'own' .*(keeps a state from one prediction|is stateful)"):
        DeltaRuntime(model, engine="numpy").step(np.ones((4, 3), np.float32))
    assert np.array_equal(model.layers[1].variables[-1].numpy(), before)
