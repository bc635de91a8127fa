"""One number that multiplies all thresholds of a stream while it runs, and a budget that moves it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest

from deltafine import DeltafineError, DeltaRuntime, find_activations, insert_deltas
from deltafine.measurement.probe import Probe
from deltafine.model import DeltaSettings, delta_layers
from deltafine.runtime.controller import LEAST, MOST, Controller
from deltafine.runtime.delta_stream import DeltaStream
from deltafine.runtime.event_rules import follows_sensitivity
from deltafine.runtime.lowering.lower import compile_model
from deltafine.runtime.numba_stream import NumbaState
from deltafine.runtime.numpy_stream import NumpyState
from deltafine.runtime.packed_plan import Program
from deltafine.runtime.plan import Plan
from tests.layers.own_rules import Halfway, Hysteresis
from tests.runtime.models import MODELS, frame_shape, refined, video

ENGINES = ("numba", "numpy")


def stream_of(plan: Plan, engine: str) -> DeltaStream:
    return DeltaStream(plan, NumbaState(Program(plan), _none) if engine == "numba" else NumpyState(plan, _none))


def _none(*_: Any) -> Any:
    raise AssertionError


def multiplied(plan: Plan, factor: float) -> Plan:
    """The same plan with other thresholds."""
    names = {o.finish.delta.threshold for o in plan.operations if o.finish.delta and follows_sensitivity(plan, o)}
    arrays = {name: a * np.float32(factor) if name in names else a for name, a in plan.arrays.items()}
    return replace(plan, arrays=arrays)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("name", "granularity", "threshold_per"),
    [("convolutions", "element", "channel"), ("sums", "pixel", "layer"), ("depthwise", "pixel", "neuron")],
)
@pytest.mark.parametrize("bytewise", [False, True])
def test_a_stream_plays_as_a_model_whose_thresholds_are_multiplied_to_the_last_bit(
    name: str, granularity: str, threshold_per: str, engine: str, bytewise: bool
) -> None:
    model = refined(MODELS[name](), "send-on-delta", granularity, threshold_per=threshold_per)
    plan = compile_model(model).plan
    expected, found = stream_of(multiplied(plan, 1.7), engine), stream_of(plan, engine)
    found.sensitivity = 1.7
    for frame in video(frame_shape(MODELS[name]()), 12):
        given = frame.astype(np.uint8) if bytewise else frame
        np.testing.assert_array_equal(found.step(given), expected.step(given))
        assert found.counts is not None
        assert expected.counts is not None
        np.testing.assert_array_equal(found.counts.arrays[0], expected.counts.arrays[0])


def in_whole_numbers() -> Any:
    """A clip model in which every number is exact in single precision, and no change is a whole threshold."""
    inputs = keras.Input((8, 7, 3))
    x = keras.layers.Conv2D(3, 3, activation="relu", padding="same", name="first")(inputs)
    x = keras.layers.DepthwiseConv2D(3, activation="relu", name="second")(x)
    model = keras.Model(inputs, keras.layers.Conv2D(2, 1, name="third")(x))
    generator = np.random.default_rng(3)
    for weight in model.weights:
        weight.assign(generator.integers(-2, 3, weight.shape))
    return insert_deltas(
        model, find_activations(model), DeltaSettings(initial_threshold=3.3), clip_output="per-frame"
    )  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("factors", [(2.0, 1.0), (1.0, 5.0, 0.5)])
@pytest.mark.parametrize("still", [False, True])
def test_set_between_frames_it_holds_from_the_next_frame_on_as_in_keras(
    engine: str, factors: tuple[float, ...], still: bool
) -> None:
    model = in_whole_numbers()
    plan, probe = compile_model(model).plan, Probe(model)
    generator = np.random.default_rng(0)
    frames = np.cumsum(generator.integers(-3, 4, (6 * len(factors), 8, 7, 3)), axis=0).astype(np.float32)
    if still:  # where nothing moves, only values that were held may be sent
        frames[5::6] = frames[4::6]
        for begin in range(6, len(frames), 6):
            frames[begin] = frames[begin - 1]
    state, held = None, stream_of(plan, engine)
    for number, factor in enumerate(factors):
        piece = frames[6 * number : 6 * number + 6]
        for layer in delta_layers(model).values():
            layer.set_threshold(3.3 * factor)
        expected = probe.run(piece[None], state)
        state = expected.state
        held.sensitivity = factor
        assert held.sensitivity == factor
        for frame, answer in zip(piece, expected.predictions[0], strict=True):
            np.testing.assert_array_equal(held.step(frame), answer)


@pytest.mark.parametrize("engine", ENGINES)
def test_streams_have_a_number_of_their_own_and_new_ones_begin_with_that_of_the_runtime(engine: str) -> None:
    model = refined(MODELS["plain"](), "send-on-delta")
    frames = list(video(frame_shape(MODELS["plain"]()), 8))
    alone = DeltaRuntime(model, engine=engine)
    as_it_is = [alone.step(frame) for frame in frames]
    runtime = DeltaRuntime(model, engine=engine)
    other = runtime.stream()
    runtime.sensitivity = 4.0
    third = runtime.stream()
    assert (runtime.sensitivity, other.sensitivity, third.sensitivity) == (4.0, 1.0, 4.0)
    for frame, expected in zip(frames, as_it_is, strict=True):
        np.testing.assert_array_equal(other.step(frame), expected)
        np.testing.assert_array_equal(third.step(frame), runtime.step(frame))
    assert sum(sent for sent, _ in runtime.counts.events().values()) < sum(  # type: ignore[union-attr]
        sent
        for sent, _ in alone.counts.events().values()  # type: ignore[union-attr]
    )
    runtime.reset()
    assert runtime.sensitivity == 4.0


def test_only_thresholds_of_rules_with_memory_that_do_not_quantise_are_multiplied() -> None:
    plan = compile_model(refined(MODELS["plain"](), Halfway())).plan
    found, expected = stream_of(plan, "numpy"), stream_of(multiplied(plan, 2.0), "numpy")
    found.sensitivity = 2.0
    for frame in video(frame_shape(MODELS["plain"]()), 6):
        np.testing.assert_array_equal(found.step(frame), expected.step(frame))
    for rule in ("quantize", "identity", Hysteresis()):
        runtime = DeltaRuntime(refined(MODELS["plain"](), rule), engine="numpy")
        runtime.sensitivity = 1.0
        with pytest.raises(DeltafineError, match=r"has no thresholds that can be multiplied .* rule"):
            runtime.sensitivity = 2.0
    with pytest.raises(DeltafineError, match="it has no delta layers"):
        DeltaRuntime(MODELS["plain"](), engine="numpy", budget_macs=0.1)


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, True, "2", 1e9])
def test_what_no_threshold_can_be_multiplied_with_is_refused(value: Any) -> None:
    runtime = DeltaRuntime(refined(MODELS["plain"](), "send-on-delta"), engine="numpy")
    with pytest.raises(DeltafineError, match=r"sensitivity is .*: give a number from"):
        runtime.sensitivity = value
    assert runtime.sensitivity == 1


@pytest.mark.parametrize(
    ("budgets", "said"),
    [
        ({"budget_ms": 1.0, "budget_macs": 0.1}, "cannot both be kept"),
        ({"budget_ms": 0.0}, "budget_ms is 0"),
        ({"budget_macs": 5.0}, "budget_macs is 5"),
    ],
)
def test_budgets_that_cannot_be_kept_are_refused(budgets: dict[str, float], said: str) -> None:
    with pytest.raises(DeltafineError, match=said):
        DeltaRuntime(refined(MODELS["plain"](), "send-on-delta"), engine="numpy", **budgets)


@pytest.mark.parametrize(("level", "slope"), [(3.0, 1.0), (0.5, 1.0), (2.0, 0.4)])
def test_a_controller_keeps_the_mean_cost_at_the_budget(level: float, slope: float) -> None:
    generator, controller = np.random.default_rng(0), Controller(10.0)
    costs = []
    for _ in range(600):
        cost = 10.0 * level * generator.exponential() / controller.sensitivity**slope
        controller.saw(cost)
        costs.append(cost)
    assert np.mean(costs) == pytest.approx(10.0, rel=0.15)
    assert controller.sensitivity == pytest.approx(level ** (1 / slope), rel=0.8)


def test_a_controller_stops_where_more_would_gain_nothing() -> None:
    dear, cheap = Controller(1.0), Controller(1.0)
    for _ in range(2000):
        dear.saw(50.0)
        cheap.saw(0.0)
    assert (dear.sensitivity, cheap.sensitivity) == (pytest.approx(MOST), pytest.approx(LEAST))
    for _ in range(100):
        cheap.saw(2.0)
    assert cheap.sensitivity > 1  # what was saved before does not have to be spent first


@pytest.mark.parametrize("engine", ENGINES)
def test_streams_keep_a_budget_of_macs_each_for_itself(engine: str) -> None:
    model = refined(MODELS["plain"](), "send-on-delta", relative_threshold=0.1)
    runtime = DeltaRuntime(model, engine=engine, budget_macs=0.15)
    dense = runtime.plan.dense_macs()
    shape = frame_shape(MODELS["plain"]())
    generator = np.random.default_rng(1)
    reached = []
    for noise in (25.0, 60.0):
        stream, picture, spent = runtime.stream(), generator.uniform(0, 255, shape), []
        for _ in range(160):
            stream.step(np.clip(picture + generator.normal(0, noise, shape), 0, 255))
            assert stream.counts is not None
            spent.append(stream.counts.total("needed_macs") / dense)
        assert np.mean(spent[60:]) == pytest.approx(0.15, rel=0.15)
        reached.append(stream.sensitivity)
    assert 1 < reached[0] < reached[1]
    with pytest.raises(DeltafineError, match="A budget moves the sensitivity"):
        stream.sensitivity = 2.0


def test_a_budget_of_milliseconds_moves_the_number_as_far_as_it_takes() -> None:
    model = refined(MODELS["plain"](), "send-on-delta")
    frames = list(video(frame_shape(MODELS["plain"]()), 10)) * 12
    found = []
    for budget in (1e-4, 1e4):
        runtime = DeltaRuntime(model, engine="numpy", budget_ms=budget)
        for frame in frames:
            runtime.step(frame)
        found.append(runtime.sensitivity)
    assert found == [pytest.approx(MOST), pytest.approx(LEAST)]
