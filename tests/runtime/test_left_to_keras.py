"""Layers that only Keras knows: neighbours run as one compiled function, and answer as in Keras."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from keras import layers, ops

from deltafine import DeltaRuntime
from deltafine.runtime.lowering.lower import compile_model
from tests.runtime.random_networks import Fragile
from tests.runtime.test_answers import ENGINES, assert_as_keras, keras_answer, model_of, pictures


class Noted(layers.Layer):
    """Notes how often Python computes it."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.times = 0

    def call(self, x: Any) -> Any:
        self.times += 1
        return ops.cumsum(x, axis=1) / 100.0


@pytest.mark.parametrize("engine", ENGINES)
def test_neighbours_are_computed_by_one_compiled_function_and_not_by_python_in_every_frame(engine: str) -> None:
    first, second = Noted(), Noted()
    model = model_of(lambda x: ops.flip(second(ops.roll(first(x), 1, axis=2)), axis=1))
    runtime = DeltaRuntime(model, engine=engine)
    frames = list(pictures(runtime.plan.input_shape, 6))
    runtime.step(frames[0])
    before = first.times, second.times
    answers = [runtime.step(frame) for frame in frames]
    assert (first.times, second.times) == before
    for frame, answer in zip(frames, answers, strict=True):
        np.testing.assert_allclose(answer, keras_answer(model, frame), rtol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_one_that_cannot_be_compiled_runs_as_it_stands_between_others(engine: str) -> None:
    assert_as_keras(model_of(lambda x: Noted()(Noted()(Fragile()(Noted()(Noted()(x)))))), engine)


def test_branches_are_ordered_so_that_neighbours_stand_side_by_side() -> None:
    def branches(x: Any) -> Any:
        first = Noted(name="first")(layers.Conv2D(3, 1)(x))
        own = layers.Conv2D(3, 1, activation="relu")(layers.Conv2D(3, 3, padding="same")(x))
        second = Noted(name="second")(layers.Conv2D(3, 1)(own))
        return layers.Add()([Noted(name="third")(first), second])

    model = model_of(branches)
    plan = compile_model(model).plan
    left = [last - first for first, last in plan.sections() if plan.operations[first].kind == "keras"]
    assert left == [3]
    assert_as_keras(model, "numpy")


ODD: dict[str, Callable[[Any], Any]] = {
    "integers between": lambda x: ops.cast(ops.cumsum(ops.cast(x, "int32") * 3, axis=1), "float32"),
    "several outputs": lambda x: ops.concatenate(
        layers.LSTM(3, return_state=True)(layers.Reshape((6, 21))(x)), axis=-1
    ),
    "truth values": lambda x: ops.where(ops.logical_and(x > 50.0, x < 200.0), x, -x),
    "half precision": lambda x: ops.cast(ops.cumsum(ops.cast(x / 256.0, "float16"), axis=2), "float32"),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ODD)
def test_what_goes_from_neighbour_to_neighbour_has_the_type_that_it_has_in_keras(name: str, engine: str) -> None:
    assert_as_keras(model_of(ODD[name]), engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_neighbour_whose_input_stands_still_counts_as_not_run(engine: str) -> None:
    def two(x: Any) -> Any:
        left = ops.cumsum(layers.Conv2DTranspose(2, 3, output_padding=0, name="left")(x[:, :3]), axis=1)
        right = ops.cumsum(layers.Conv2DTranspose(2, 3, output_padding=0, name="right")(x[:, 3:]), axis=1)
        return layers.Add()([left, right])

    runtime = DeltaRuntime(model_of(two), engine=engine)
    frame = next(pictures((6, 7, 3), 1))
    runtime.step(frame)
    frame = frame.copy()
    frame[5] = 0
    runtime.step(frame)
    ran = {op.name: runs for op, runs in zip(runtime.plan.operations, runtime.counts.needed_macs, strict=True)}
    assert ran["right"] > 0
    assert ran["left"] == 0
