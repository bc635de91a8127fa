"""What a stream keeps, what it computes again instead, and what streams share."""

from __future__ import annotations

import threading
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from deltafine import DeltaRuntime
from deltafine.runtime.array_sizes import owned_bytes
from deltafine.runtime.autotuning import choose
from deltafine.runtime.lowering.lower import compile_model
from deltafine.runtime.numba_stream import NumbaState, step_together
from deltafine.runtime.numpy_stream import NumpyState
from deltafine.runtime.packed_plan import Program
from deltafine.runtime.plan import MACS, Operation, Plan, can_run_by_events
from tests.benchmarks.runtime.memory import activations, small, states
from tests.benchmarks.runtime.memory import compiled as with_deltas
from tests.runtime.models import frame_shape, refined, video, weighted


def bottlenecks() -> Any:
    """Blocks that end in a short convolution and a sum, on lines of more than 64 positions."""
    inputs = keras.Input((9, 150, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(inputs)
    for filters, shortcut in ((16, True), (16, False), (24, True)):
        y = layers.Conv2D(4, 1, activation="relu")(x)
        y = layers.Conv2D(4, 3, padding="same", activation="relu")(y)
        y = layers.BatchNormalization()(layers.Conv2D(filters, 1)(y))
        x = layers.ReLU()(layers.Add()([layers.Conv2D(filters, 1)(x) if shortcut else x, y]))
    y = layers.Conv2D(24, 1, use_bias=False)(layers.Conv2D(6, 1, activation="relu")(x))
    x = layers.Conv2D(9, 3, padding="same", activation="relu")(layers.Add()([y, x]))  # a sum without an activation
    return weighted(keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)), name="bottlenecks"))


class Apart(Program):
    """Keeps every tensor."""

    def _sums_at_once(self) -> dict[int, Operation]:
        return {}


def plan_of(rule: str, granularity: str) -> Plan:
    return compile_model(refined(bottlenecks(), rule, granularity, 0.8)).plan


def assert_same(plan: Plan, one: NumbaState, other: NumbaState) -> None:
    for index, tensor in enumerate(plan.tensors):
        np.testing.assert_array_equal(one.value(index), other.value(index), tensor.name)
    ours, theirs = one.counts(), other.counts()
    np.testing.assert_array_equal(ours.effective_macs, theirs.effective_macs)
    assert ours.events() == theirs.events()
    assert ours.total("executed_macs") >= theirs.total("executed_macs")


@pytest.mark.parametrize("granularity", ["element", "pixel"])
@pytest.mark.parametrize("rule", ["send-on-delta", "quantize", "identity"])
def test_what_is_added_up_at_once_is_what_two_operations_give(rule: str, granularity: str) -> None:
    plan = plan_of(rule, granularity)
    program, apart = Program(plan), Apart(plan)
    assert len(program.part_of) == 4
    assert program.arena_size < 0.85 * apart.arena_size
    one, other = NumbaState(program, None), NumbaState(apart, None)
    several = [NumbaState(program, None) for _ in range(2)]
    more = 0
    for number, frame in enumerate(video(plan.input_shape, 30)):
        if number in (10, 20) and rule == "send-on-delta":
            for state in (one, other, *several):
                state.set_sensitivity(2.0 if number == 10 else 0.5, compare_all=number == 20)
        one.step(frame)
        other.step(frame)
        step_together(several, [frame, frame[::-1].copy()])
        assert_same(plan, one, other)
        assert_same(plan, several[0], other)
        np.testing.assert_array_equal(several[0].counters, one.counters)
        more += one.counts().total("executed_macs") > other.counts().total("executed_macs")
    assert more > 0  # somewhere only the other summand changed


def test_it_is_what_numpy_gives_and_kernels_go_on_from_there() -> None:
    plan = plan_of("send-on-delta", "element")
    theirs, ours = NumpyState(plan, None), NumbaState(Program(plan), None)
    frames = list(video(plan.input_shape, 12))
    for frame in frames[:6]:
        theirs.step(frame)
    ours.go_on_from([theirs.as_kept(index) for index in range(len(plan.tensors))])
    for frame in frames[6:]:
        ours.step(frame)
        theirs.step(frame)
        for index in range(len(plan.tensors)):
            assert np.abs(ours.value(index) - theirs.value(index)).max() < 1e-3


def sum_of(size: int, *, twice: bool = False, deltas: bool = True) -> Plan:
    """A sum of the input and a convolution of it, which ``twice`` another layer reads, too."""
    inputs = keras.Input((6, 6, 8))
    y = layers.Conv2D(8, size, padding="same")(inputs)
    x = layers.ReLU()(layers.Add()([inputs, y]))
    model = weighted(keras.Model(inputs, layers.Concatenate()([x, y]) if twice else layers.Conv2D(2, 1)(x)))
    return compile_model(refined(model, "send-on-delta") if deltas else model).plan


def test_what_is_read_elsewhere_or_costs_more_is_kept() -> None:
    plan = sum_of(1)
    assert len(Program(plan).part_of) == 1
    by_events = {operation.name: 1.0 for operation in plan.operations if can_run_by_events(operation)}
    assert not Program(plan, by_events).part_of  # its sums are kept anyway
    for other in (sum_of(3), sum_of(1, twice=True), sum_of(1, deltas=False)):
        assert not Program(other).part_of


def test_calibrating_times_both_ways_with_the_sum() -> None:
    plan = plan_of("send-on-delta", "element")
    chosen = choose(plan, video(plan.input_shape, 12), lambda *_: [])
    assert set(chosen) <= {operation.name for operation in plan.operations if operation.kind in MACS}


def test_a_state_takes_little_more_than_the_activations() -> None:
    # The small network holds its frame twice, as it was sent and rescaled.
    for model, most in ((small(), 1.45), (keras.applications.MobileNet((160, 160, 3), weights=None), 1.15)):
        plan = with_deltas(model)
        kept = states(plan)
        assert kept["float32"].memory <= most * activations(plan)
        assert kept["int8"].memory < 0.6 * kept["float32"].memory
    assert kept["int8"].memory <= most / 3 * activations(plan)


def test_streams_of_a_thread_share_their_working_space_and_those_of_two_do_not() -> None:
    model = bottlenecks()
    runtime = DeltaRuntime(refined(model, "send-on-delta"), engine="numba")
    assert runtime.memory["working"] == 0
    frames = list(video(frame_shape(model), 4))
    streams = [runtime.stream() for _ in range(3)]
    for frame in frames:
        for stream in streams:
            stream.step(frame)
    program = streams[0].state.program
    once = runtime.memory["working"]
    assert once == owned_bytes(program.working_arrays) > 0
    with program.working.lent(streams[0].state.table.copy()):  # as a thread does that is in the kernels
        thread = threading.Thread(target=streams[1].step, args=(frames[0],))
        thread.start()
        thread.join()
    assert runtime.memory["working"] == 2 * once
    expected = [stream.step(frames[1]) for stream in (streams[0], streams[2])]
    assert runtime.memory["working"] == 2 * once
    np.testing.assert_array_equal(expected[0], expected[1])


def test_frames_that_can_be_read_where_they_lie_take_no_buffer() -> None:
    inputs = keras.Input((4, 32, 3))
    runtime = DeltaRuntime(weighted(keras.Model(inputs, layers.Conv2D(2, 3)(inputs))), engine="numba")
    frames = np.random.default_rng(0).integers(0, 256, (2, 4, 32, 3), dtype=np.uint8)
    before = runtime.memory["state"]
    runtime.step(frames[0])
    assert runtime.memory["state"] == before
    as_it_is = runtime.step(frames[1])
    runtime.reset()
    runtime.step(frames[0])
    np.testing.assert_array_equal(runtime.step(np.repeat(frames[1], 2, axis=1)[:, ::2]), as_it_is)
    assert runtime.memory["state"] > before
