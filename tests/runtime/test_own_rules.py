"""Event rules without a kernel: run through NumPy, whichever engine runs the rest, as Keras runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from deltafine import DeltaRuntime, find_activations, insert_deltas
from deltafine.errors import DeltafineError
from deltafine.layers import EventRule
from deltafine.measurement.probe import Probe
from deltafine.model import DeltaSettings, delta_layers
from deltafine.runtime.lowering.lower import compile_model
from deltafine.runtime.numba_stream import NumbaState
from deltafine.runtime.numpy_stream import NumpyState
from deltafine.runtime.packed_plan import Program
from deltafine.runtime.plan import Plan
from tests.layers.own_rules import Halfway, Hysteresis, Summed, Truncated
from tests.runtime.models import MODELS, frame_shape, refined
from tests.runtime.test_exactness import compare_from_the_same_state

ENGINES = ["numba", "numpy"]


@pytest.mark.parametrize(
    ("name", "rule", "granularity", "threshold_per", "engine"),
    [
        ("convolutions", Hysteresis(), "element", "layer", "numba"),
        ("convolutions", Halfway(), "pixel", "neuron", "numba"),
        ("sums", Hysteresis(0.4), "pixel", "channel", "numba"),
        ("convolutions", Halfway(), "element", "layer", "numpy"),
        ("with_unknown_layers", Truncated(), "element", "neuron", "numpy"),
    ],
)
def test_from_the_same_state_every_delta_layer_sends_what_keras_sends(
    name: str, rule: EventRule, granularity: str, threshold_per: str, engine: str
) -> None:
    compare_from_the_same_state(name, rule, granularity, threshold_per, engine, frames=30)


def in_whole_numbers(rule: EventRule) -> Any:
    """A clip model in which every number is exact in single precision."""
    inputs = keras.Input((6, 5, 2))
    x = keras.layers.Conv2D(3, 3, activation="relu", padding="same", name="first")(inputs)
    outputs = keras.layers.Conv2D(2, 3, strides=2, name="second")(x)
    model = keras.Model(inputs, outputs)
    generator = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(generator.integers(-2, 3, weight.shape))
    return insert_deltas(
        model, find_activations(model), DeltaSettings(rule=rule, initial_threshold=4.0), clip_output="per-frame"
    )


def _halves(shape: tuple[int, ...], frames: int) -> np.ndarray:
    """Frames that stand still for a while, and jump."""
    steps = (
        np.random.default_rng(1).integers(-8, 9, (frames, *shape)) * (np.arange(frames) % 4 == 0)[:, None, None, None]
    )
    return np.cumsum(steps, axis=0).astype(np.float32)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("rule", [Hysteresis(), Halfway(), Truncated()])
def test_frame_by_frame_predictions_and_counts_are_those_of_the_report_to_the_last_one(
    rule: EventRule, engine: str
) -> None:
    model, frames = in_whole_numbers(rule), _halves((6, 5, 2), 24)
    expected = model.predict(frames[None], verbose=0)[0]
    probe = Probe(model)
    piece = probe.run(frames[None])
    macs = [counts.macs_delta[0] for counts in piece.counts[: len(probe.layers)]]
    events = {
        place.name: counts.changed[0]
        for place, counts in zip(probe.deltas, piece.counts[len(probe.layers) :], strict=True)
    }
    runtime = DeltaRuntime(model, engine=engine)
    for number, frame in enumerate(frames):
        np.testing.assert_array_equal(runtime.step(frame), expected[number])
        if number:
            assert runtime.counts.total("effective_macs") == sum(counts[number] for counts in macs)
            assert {name: sent for name, (sent, _) in runtime.counts.events().items()} == {
                name: counts[number] for name, counts in events.items()
            }


@pytest.mark.parametrize("engine", ENGINES)
def test_a_rule_may_go_on_sending_while_its_input_stands_still(engine: str) -> None:
    runtime = DeltaRuntime(in_whole_numbers(Halfway()), engine=engine)
    runtime.step(np.zeros((6, 5, 2), np.float32))
    frame = np.full((6, 5, 2), 64, np.float32)
    seen = [runtime.step(frame) for _ in range(3)]
    assert not np.array_equal(seen[1], seen[0])
    assert not np.array_equal(seen[2], seen[1])


def test_the_plan_says_what_has_no_kernel() -> None:
    whole = compile_model(refined(MODELS["plain"](), Hysteresis())).plan
    count = len(whole.own_rules)
    assert whole.notes() == [f"The rule 'hysteresis' of {count} delta layers has no kernel, and runs through NumPy"]
    assert compile_model(refined(MODELS["plain"](), "quantize")).plan.notes() == []


def test_calibrating_a_runtime_works_and_changes_nothing() -> None:
    model = in_whole_numbers(Hysteresis())
    runtime, frames = DeltaRuntime(model, engine="numba"), _halves((6, 5, 2), 12)
    before = [runtime.step(frame) for frame in frames]
    runtime.calibrate(frames)
    np.testing.assert_array_equal([runtime.step(frame) for frame in frames], before)


def test_a_plan_with_own_rules_is_not_kept_and_says_so_when_it_is_read_by_hand(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    model = in_whole_numbers(Hysteresis())
    model.save(run / "refined.keras")
    frames = _halves((6, 5, 2), 4)
    for _ in range(2):
        runtime = DeltaRuntime(run)
        assert [layer.margin for layer in runtime.plan.own_rules.values()] == [0.25] * len(delta_layers(model))
        np.testing.assert_array_equal(runtime.step(frames[0]), model.predict(frames[None, :1], verbose=0)[0, 0])
    assert not (run / "runtime").exists()
    runtime.plan.save(tmp_path / "plan")
    document = json.loads((tmp_path / "plan" / "plan.json").read_text("utf-8"))
    assert "own_rules" not in document
    plan = Plan.load(tmp_path / "plan")
    for make in (lambda: NumpyState(plan, None), lambda: NumbaState(Program(plan), None)):
        with pytest.raises(DeltafineError, match=r"has the rule 'hysteresis', whose code no file of a plan holds"):
            make()


@pytest.mark.parametrize("engine", ENGINES)
def test_values_of_another_shape_are_refused(engine: str) -> None:
    model = in_whole_numbers(Halfway())
    runtime = DeltaRuntime(model, engine=engine)
    runtime.step(np.zeros((6, 5, 2), np.float32))
    for name in runtime.plan.own_rules:
        runtime.plan.own_rules[name] = Summed()
    with pytest.raises(DeltafineError, match=r"gives values of shape \(1, 6, 5\) for frames of shape \(1, 6, 5, 2\)"):
        runtime.step(np.ones((6, 5, 2), np.float32))


def test_streams_of_one_model_do_not_share_what_a_rule_remembers() -> None:
    runtime = DeltaRuntime(in_whole_numbers(Halfway()))
    frames = _halves(frame_shape(in_whole_numbers(Halfway()))[1:], 8)
    alone = [runtime.step(frame) for frame in frames]
    one, other = runtime.stream(), runtime.stream()
    together = []
    for frame in frames:
        together.append(one.step(frame))
        other.step(-frame)
    np.testing.assert_array_equal(together, alone)
