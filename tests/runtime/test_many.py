"""Several streams advanced at once are, bit by bit, what each of them is alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from deltafine import DeltafineError, DeltaRuntime
from deltafine.runtime.delta_stream import DeltaStream
from deltafine.runtime.plan import can_run_by_events
from tests.runtime.models import MODELS, frame_shape, refined, video

ENGINES = ("numba", "numpy")


def runtime_of(model: Any, how: str, **settings: Any) -> DeltaRuntime:
    """By rows, by events wherever that is possible, or in NumPy."""
    runtime = DeltaRuntime(model, engine="numpy" if how == "numpy" else "numba", **settings)
    if how == "events":
        runtime._choose({o.name: 1.0 for o in runtime.plan.operations if can_run_by_events(o)})
    return runtime


def videos(shape: tuple[int, ...]) -> list[list[np.ndarray]]:
    """Of different lengths, with cuts and black frames; bytes, numbers, and read-only frames."""
    first = list(video(shape, 44, seed=1))
    return [
        first,
        [frame.astype(np.uint8) for frame in video(shape, 12, seed=2)],
        [frame.astype(np.uint8) if number % 3 else frame for number, frame in enumerate(video(shape, 36, seed=3))],
        [np.broadcast_to(frame.astype(np.uint8), shape) for frame in video(shape, 20, seed=4)],
        [first[0]] * 9,
    ]


BEGINS = 0, 7, 3, 0, 15


def rounds(films: list[list[np.ndarray]]) -> Iterator[dict[int, np.ndarray]]:
    """Frames by the number of their video, of those that have one: they begin at different times, and some stall."""
    left = [list(film) for film in films]
    for number in range(200):
        due = [which for which, begin in enumerate(BEGINS) if number >= begin and (number + which) % 5 and left[which]]
        if any(left):
            yield {which: left[which].pop(0) for which in due}


def assert_same(one: DeltaStream, other: DeltaStream) -> None:
    """What two streams hold, and what their last frame took."""
    for index in range(len(one._plan.tensors)):
        np.testing.assert_array_equal(one.state.value(index), other.state.value(index))
    assert (one.counts is None) == (other.counts is None)
    if one.counts is not None and other.counts is not None:
        np.testing.assert_array_equal(one.counts.arrays[0], other.counts.arrays[0])


def assert_together_as_alone(runtime: DeltaRuntime, films: list[list[np.ndarray]]) -> int:
    """Play the films both ways; returns how many frames went together with others."""
    alone, together = ([runtime.stream() for _ in films] for _ in range(2))
    met = 0
    for frames in rounds(films):
        answers = runtime.step_many({together[which]: frame for which, frame in frames.items()})
        assert list(answers) == [together[which] for which in frames]
        for which, frame in frames.items():
            np.testing.assert_array_equal(answers[together[which]], alone[which].step(frame))
        for one, other in zip(alone, together, strict=True):
            assert_same(one, other)
        met += len(frames) if len(frames) > 1 else 0
    for one, other in zip(alone, together, strict=True):  # and alone they go on
        np.testing.assert_array_equal(one.step(films[0][3]), other.step(films[0][3]))
        assert_same(one, other)
    return met


@pytest.mark.parametrize("how", ["rows", "events", "numpy"])
@pytest.mark.parametrize("name", ["convolutions", "depthwise", "pools", "blocks"])
def test_streams_together_are_bit_by_bit_what_they_are_alone(name: str, how: str) -> None:
    model = refined(MODELS[name](), "send-on-delta", "pixel" if name == "pools" else "element")
    runtime = runtime_of(model, how)
    assert assert_together_as_alone(runtime, videos(frame_shape(MODELS[name]()))) > 60


@pytest.mark.parametrize("how", ["rows", "numpy"])
@pytest.mark.parametrize("rule", ["identity", "quantize"])
def test_rules_without_memory_together_as_alone(rule: str, how: str) -> None:
    model = MODELS["convolutions"]()
    assert_together_as_alone(runtime_of(refined(model, rule), how), videos(frame_shape(model)))


@pytest.mark.parametrize("how", ENGINES)
def test_layers_left_to_keras_together_as_alone(how: str) -> None:
    model = MODELS["with_unknown_layers"]()
    runtime = runtime_of(refined(model, "send-on-delta"), how)
    assert runtime.plan.unknown
    assert_together_as_alone(runtime, [film[:8] for film in videos(frame_shape(model))])


def test_more_rows_than_fit_a_piece_together_as_alone() -> None:
    inputs = keras.Input((40, 40, 3))
    x = layers.Conv2D(64, 3, activation="relu", padding="same")(inputs)
    x = layers.Conv2D(300, 1, activation="relu")(x)
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    runtime = runtime_of(refined(model, "send-on-delta"), "rows")
    assert_together_as_alone(runtime, [film[:12] for film in videos((40, 40, 3))])


@pytest.mark.parametrize("how", ENGINES)
def test_each_stream_keeps_its_own_sensitivity_and_budget(how: str) -> None:
    model = refined(MODELS["convolutions"](), "send-on-delta")
    shape = frame_shape(MODELS["convolutions"]())
    films = [list(video(shape, 24, seed=seed)) for seed in range(3)]
    runtime = runtime_of(model, how)
    kept = runtime_of(model, how, budget_macs=0.2)
    for number, frames in enumerate(zip(*films, strict=True)):
        if number == 0:
            alone, together = ([runtime.stream() for _ in films] for _ in range(2))
            own, shared = ([kept.stream() for _ in films] for _ in range(2))
        if number in (6, 15):
            for stream in (alone[1], together[1]):
                stream.sensitivity = 3.0 if number == 6 else 0.5  # the latter compares what stands still, too
        runtime.step_many(dict(zip(together, frames, strict=True)))
        kept.step_many(dict(zip(shared, frames, strict=True)))
        for streams, others in ((alone, together), (own, shared)):
            for one, other, frame in zip(streams, others, frames, strict=True):
                one.step(frame)
                assert_same(one, other)
                assert one.sensitivity == other.sensitivity
    assert len({stream.sensitivity for stream in shared}) > 1


@pytest.mark.parametrize("how", ENGINES)
def test_held_frames_and_new_choices_together_as_alone(how: str) -> None:
    model = refined(MODELS["plain"](), "send-on-delta")
    films = [list(video(frame_shape(MODELS["plain"]()), 14, seed=seed)) for seed in range(3)]
    runtime = runtime_of(model, how, every=3)
    alone, together = ([runtime.stream() for _ in range(2)] for _ in range(2))
    if how == "numba":
        runtime._choose({o.name: 1.0 for o in runtime.plan.operations if can_run_by_events(o)})
    alone, together = [*alone, runtime.stream()], [*together, runtime.stream()]
    for number, frames in enumerate(zip(*films, strict=True)):
        some = slice(0, 3 if number % 4 else 2)  # the third is now at another place of its three
        answers = runtime.step_many(dict(zip(together[some], frames[some], strict=True)))
        for one, other, frame in zip(alone[some], together[some], frames[some], strict=True):
            np.testing.assert_array_equal(one.step(frame), answers[other])
            assert_same(one, other)


@pytest.mark.parametrize("how", ENGINES)
def test_one_frame_that_cannot_be_used_leaves_all_streams_as_they_were(how: str) -> None:
    model = refined(MODELS["plain"](), "send-on-delta")
    frames = list(video(frame_shape(MODELS["plain"]()), 4))
    runtime = runtime_of(model, how)
    one, other, untouched = runtime.stream(), runtime.stream(), runtime.stream()
    runtime.step_many({one: frames[0], other: frames[1]})
    before = one.sent(), other.sent()
    for broken, why in ((np.full(frames[0].shape, np.nan), "not finite"), (frames[0][1:], "resize it first")):
        with pytest.raises(DeltafineError, match=why):
            runtime.step_many({one: frames[2], other: broken})
    for sent, now in zip(before, (one.sent(), other.sent()), strict=True):
        assert all(np.array_equal(sent[name], now[name]) for name in sent)
    untouched.step(frames[0])
    untouched.step(frames[2])
    np.testing.assert_array_equal(runtime.step_many({one: frames[2]})[one], untouched.step(frames[2]))
    assert runtime.step_many({}) == {}


def test_what_is_no_stream_of_this_runtime_is_refused() -> None:
    model = MODELS["plain"]()
    frame = next(video(frame_shape(model), 1))
    runtime = DeltaRuntime(model, engine="numpy")
    with pytest.raises(DeltafineError, match="of this runtime"):
        runtime.step_many({DeltaRuntime(model, engine="numpy").stream(): frame})
    with pytest.raises(DeltafineError, match="by stream"):
        runtime.step_many([frame])  # type: ignore[arg-type]


def test_a_stream_in_use_elsewhere_is_refused_and_no_other_is_advanced() -> None:
    model = refined(MODELS["plain"](), "send-on-delta")
    frames = list(video(frame_shape(MODELS["plain"]()), 3))
    runtime = DeltaRuntime(model, engine="numba")
    one, other, alone = runtime.stream(), runtime.stream(), runtime.stream()
    runtime.step_many({one: frames[0], other: frames[0]})
    with other._guard, pytest.raises(DeltafineError, match="in use by another thread"):
        runtime.step_many({one: frames[1], other: frames[1]})
    alone.step(frames[0])
    np.testing.assert_array_equal(runtime.step_many({one: frames[2]})[one], alone.step(frames[2]))


def test_groups_of_streams_go_side_by_side_in_threads() -> None:
    model = refined(MODELS["convolutions"](), "send-on-delta")
    frames = list(video(frame_shape(MODELS["convolutions"]()), 20))
    runtime = DeltaRuntime(model, engine="numba")
    alone = runtime.stream()
    expected = [alone.step(frame) for frame in frames]
    groups = [[runtime.stream() for _ in range(3)] for _ in range(3)]
    together = threading.Barrier(len(groups))

    def play(group: list[DeltaStream]) -> None:
        together.wait(30)
        for number, frame in enumerate(frames):
            for answer in runtime.step_many(dict.fromkeys(group, frame)).values():
                np.testing.assert_array_equal(answer, expected[number])

    with ThreadPoolExecutor(len(groups)) as pool:
        list(pool.map(play, groups))
