"""Frames of every layout and type give the same, and one odd frame does not end what frames of bytes save."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from keras import layers

from deltafine import DeltaRuntime, find_activations, insert_deltas
from deltafine.model import DeltaSettings, delta_layers
from deltafine.runtime.lowering.lower import compile_model
from deltafine.runtime.numba_stream import NumbaState
from deltafine.runtime.packed_plan import Program
from tests.runtime.test_kernels import rules


def read_only(frame: np.ndarray) -> np.ndarray:
    """As ``np.asarray`` of a picture of Pillow is."""
    return np.frombuffer(frame.tobytes(), np.uint8).reshape(frame.shape)


def in_columns(frame: np.ndarray) -> np.ndarray:
    return np.asfortranarray(frame)


def cut_out(frame: np.ndarray) -> np.ndarray:
    return np.pad(frame, ((1, 1), (2, 1), (0, 0)))[1:-1, 2:-1]


def mirrored(frame: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(frame[:, ::-1])[:, ::-1]


def unaligned(frame: np.ndarray) -> np.ndarray:
    values = np.zeros(4 * frame.size + 1, np.uint8)[1:].view(np.float32)
    values[:] = frame.ravel()
    return values.reshape(frame.shape)


def fractions(frame: np.ndarray) -> np.ndarray:
    return frame.astype(np.float32) / np.float32(1.7) - 20


def of_type(name: str) -> Callable[[np.ndarray], np.ndarray]:
    return lambda frame: frame.astype(name)


BYTES = (read_only, in_columns, cut_out, mirrored)
NUMBERS = (unaligned, *map(of_type, ("float32", "float64", ">f4", "float16", "int64", "uint16", ">i2")))


def model_of(
    size: tuple[int, int], channels: int, rule: tuple[str, str], steps: list[float], rescale: Any = None
) -> Any:
    inputs = keras.Input((*size, channels))
    model = keras.Model(inputs, layers.GlobalMaxPooling2D()(layers.Conv2D(3, 1, activation="relu")(inputs)))
    deltas = DeltaSettings(rule=rule[0], granularity=rule[1], threshold_per="channel")
    clips = insert_deltas(model, find_activations(model), deltas, rescale=rescale, clip_output="per-frame")
    for layer in delta_layers(clips).values():
        layer.set_threshold(np.resize(np.float32(steps), layer.threshold.shape) * (1 if rescale is None else 1 / 255))
    return clips


def moving(size: tuple[int, int, int], generator: np.random.Generator, frames: int) -> list[np.ndarray]:
    """Bytes of which some change, a little or a lot."""
    frame = generator.integers(0, 256, size)
    video = []
    for _ in range(frames):
        some_of_it = generator.random(size) < generator.choice([0, 0.02, 0.5, 1])
        frame = np.clip(frame + some_of_it * generator.integers(-9, 10, size), 0, 255)
        video.append(frame.astype(np.uint8))
    return video


@settings(deadline=None, max_examples=60)
@given(
    size=some.tuples(some.integers(1, 5), some.sampled_from([1, 5, 16, 20, 33, 48])),
    channels=some.sampled_from([1, 2, 3, 4]),
    rule=rules,
    steps=some.lists(some.sampled_from([0.3, 1, 2, 7.5, 40]), min_size=1, max_size=3),
    rescale=some.sampled_from([None, "0..1"]),
    kinds=some.lists(some.sampled_from([np.copy, np.copy, np.copy, *BYTES, *NUMBERS, fractions]), min_size=4),
    seed=some.integers(0, 1000),
)
def test_frames_of_any_layout_and_type_give_what_plain_numbers_give(
    size: tuple[int, int], channels: int, rule: tuple[str, str], steps: list[float], rescale: str | None,
    kinds: list[Callable[[np.ndarray], np.ndarray]], seed: int,
) -> None:  # fmt: skip
    plan = compile_model(model_of(size, channels, rule, steps, rescale)).plan
    program = Program(plan)
    of_any, of_numbers = NumbaState(program, None), NumbaState(program, None)
    for kind, picture in zip(kinds, moving((*size, channels), np.random.default_rng(seed), len(kinds)), strict=True):
        frame = kind(picture)
        of_any.step(frame)
        of_numbers.step(frame.astype(np.float32))
        for index in range(len(plan.tensors)):
            np.testing.assert_array_equal(of_any.value(index), of_numbers.value(index))
        np.testing.assert_array_equal(of_any.counters, of_numbers.counters)
    assert np.array_equal(frame, kind(picture))  # a frame is only read


@pytest.mark.parametrize("rule", [("identity", "element"), ("quantize", "element"), ("send-on-delta", "element")])
@pytest.mark.parametrize("width", [16, 21])
def test_odd_frames_do_not_end_the_fast_path(rule: tuple[str, str], width: int) -> None:
    state = NumbaState(Program(compile_model(model_of((4, width), 3, rule, [2.0])).plan), None)
    video = moving((4, width, 3), np.random.default_rng(0), 200)
    odd = [other for one in NUMBERS for other in (np.copy, one)]
    for number, kind in enumerate([np.copy, *BYTES, *odd]):
        state.step(kind(video[number]))
        if kind not in NUMBERS:
            continue
        state.step(video[number])
        if rule[0] != "send-on-delta":  # these take up the frame before, once it was of bytes
            state.step(video[number])
        assert state._reader._in_bytes
    state.step(fractions(video[100]))
    for picture in video[101:]:
        state.step(picture)
    assert state._reader._in_bytes


def test_a_large_frame_that_may_not_be_written_is_read_where_it_lies() -> None:
    size = (160, 160, 3)
    program = Program(compile_model(model_of(size[:2], 3, ("identity", "element"), [1.0])).plan)
    of_bytes, of_numbers = NumbaState(program, None), NumbaState(program, None)
    for picture in moving(size, np.random.default_rng(0), 4):
        numbers = np.frombuffer(picture.astype(np.float32).tobytes(), np.float32).reshape(size)
        for state, frame in ((of_bytes, read_only(picture)), (of_numbers, numbers)):
            state.take_in(frame)
            held = state._reader.pixels if frame.dtype == np.uint8 else state._reader.numbers
            assert np.shares_memory(held, frame)
            state.step(frame)
            assert np.array_equal(state.value(program.plan.operations[0].output), picture)


def test_a_stream_holds_no_frame_of_the_caller() -> None:
    model = model_of((4, 16), 3, ("identity", "element"), [1.0])
    stream = DeltaRuntime(model, engine="numba").stream()
    frame = np.zeros((4, 16, 3), np.uint8)
    stream.step(frame)
    before = stream.step(frame)
    frame[:] = 255
    assert np.array_equal(stream._of_sample(stream._plan.outputs[0]), before)
    assert stream.state._reader.pixels.size == 0
