"""Inputs beside the frames, frame by frame: answers, counts, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deltafine import DeltaRuntime
from deltafine.errors import DeltafineError
from deltafine.measurement.probe import Probe
from deltafine.model import DeltaSettings, find_activations, insert_deltas
from deltafine.runtime.lowering.lower import compile_model
from deltafine.runtime.plan import Plan
from deltafine.video.further_values import packed
from tests.model.drivers import drive, driver, given, in_order

ENGINES = ["numpy", "numba"]


def beside(values: np.ndarray) -> dict[str, Any]:
    """What comes with a frame, as a user writes it."""
    return {"speed": float(values[0]), "command": int(values[1]), "goal": values[2:]}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("form", ["list", "last", "dict"])
@pytest.mark.parametrize("kind", ["frames", "clips"])
def test_each_frame_is_answered_as_keras_does(engine: str, form: str, kind: str) -> None:
    model = driver(form)
    settings = DeltaSettings(initial_threshold=1e-30)
    runs = model if kind == "frames" else insert_deltas(model, find_activations(model), settings)
    pictures, values = drive(12)
    runtime = DeltaRuntime(runs, engine=engine)
    answers = [runtime.step(*both) for both in zip(pictures, map(beside, values), strict=True)]
    expected = model.predict(given(pictures, values, form), verbose=0)
    np.testing.assert_allclose(answers, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_thresholds_send_and_count_as_the_measurement_does(engine: str) -> None:
    model = driver("last")
    clip_model = insert_deltas(model, find_activations(model), DeltaSettings(initial_threshold=0.1))
    pictures, values = drive(12)
    probe = Probe(clip_model)
    piece = probe.run(packed(pictures, in_order(model, values))[None])
    runtime = DeltaRuntime(clip_model, engine=engine)
    for number, (picture, numbers) in enumerate(zip(pictures, values, strict=True)):
        answer = runtime.step(picture, beside(numbers))
        np.testing.assert_allclose(answer, piece.predictions[0, number], rtol=1e-4, atol=1e-5)
        counts = dict(
            zip([one.name for one in runtime.plan.operations], runtime.counts.effective_macs.tolist(), strict=True)
        )
        for place, of_place in zip(probe.layers, piece.counts, strict=False):
            if number:
                assert counts[place.name] == of_place.macs_delta[0, number], place.name


@pytest.mark.parametrize("engine", ENGINES)
def test_where_the_picture_stands_still_a_speed_reaches_its_own_layers_alone(engine: str) -> None:
    model = driver()
    pictures, values = drive(1)
    runtime = DeltaRuntime(model, engine=engine)
    runtime.step(pictures[0], beside(values[0]))
    runtime.step(pictures[0], beside(values[0]))
    assert runtime.counts.total("effective_macs") == 0
    values[0, 0] += 1
    answer = runtime.step(pictures[0], beside(values[0]))
    counts = zip(runtime.plan.operations, runtime.counts.effective_macs.tolist(), strict=True)
    needed = {operation.name: macs for operation, macs in counts if macs}
    assert needed.keys() == {"pace", "hidden", "answer"}
    assert needed["pace"] == 6
    np.testing.assert_allclose(answer, model(given(pictures, values, "list"))[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_streams_at_once_have_their_own_inputs(engine: str) -> None:
    model = driver()
    runtime = DeltaRuntime(model, engine=engine)
    drives = [drive(6, seed) for seed in (0, 1)]
    streams = [runtime.stream() for _ in drives]
    for number in range(6):
        answers = runtime.step_many(
            {stream: pictures[number] for stream, (pictures, _) in zip(streams, drives, strict=True)},
            {stream: beside(values[number]) for stream, (_, values) in zip(streams, drives, strict=True)},
        )
        for stream, (pictures, values) in zip(streams, drives, strict=True):
            one = slice(number, number + 1)
            expected = model(given(pictures[one], values[one], "list"))[0]
            np.testing.assert_allclose(answers[stream], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"speed": None}, "takes 'speed' beside its frames, and it was not given"),
        ({"pace": 1.0}, "has no input 'pace': it takes 'speed', 'command', 'goal' beside its frames"),
        ({"goal": 1.0}, "takes numbers of shape (2,) for a frame"),
        ({"speed": "fast"}, "takes numbers of shape (1,)"),
        ({"speed": float("nan")}, "is no finite number"),
        ({"command": 1.5}, "is no whole number"),
        ({"command": 3}, "is not from 0 to 2"),
    ],
)
def test_what_cannot_be_given_leaves_the_frame_out(engine: str, wrong: dict[str, Any], words: str) -> None:
    model = driver()
    pictures, values = drive(3)
    runtime = DeltaRuntime(model, engine=engine)
    runtime.step(pictures[0], beside(values[0]))
    mistaken = {name: value for name, value in (beside(values[1]) | wrong).items() if value is not None}
    with pytest.raises(DeltafineError) as refusal:
        runtime.step(pictures[1], mistaken)
    assert words in str(refusal.value)
    answer = runtime.step(pictures[2], beside(values[2]))
    np.testing.assert_allclose(answer, model(given(pictures, values, "list"))[2], rtol=1e-4, atol=1e-6)


def test_a_frame_that_is_held_needs_nothing_beside_it() -> None:
    pictures, values = drive(3)
    runtime = DeltaRuntime(driver(), engine="numpy", every=2)
    first = runtime.step(pictures[0], beside(values[0]))
    np.testing.assert_array_equal(runtime.step(pictures[1]), first)
    with pytest.raises(DeltafineError, match="was not given"):
        runtime.step(pictures[2])


def test_a_model_of_frames_alone_takes_nothing_else() -> None:
    from tests.runtime.models import MODELS

    runtime = DeltaRuntime(MODELS["plain"](), engine="numpy")
    with pytest.raises(DeltafineError, match="has no input 'speed': it takes its frames alone"):
        runtime.step(np.zeros(runtime.plan.input_shape), {"speed": 1.0})


def test_a_kept_plan_has_its_inputs(tmp_path: Path) -> None:
    model = driver("last", embedded=False)
    plan = compile_model(model).plan
    plan.save(tmp_path / "plan")
    for one in (plan, Plan.load(tmp_path / "plan")):
        assert [(of.name, of.whole, one.tensors[of.output].sample_shape) for of in one.further] == [
            ("speed", False, (1,)),
            ("command", True, ()),
            ("goal", False, (2,)),
        ]
    model.save(tmp_path / "model.keras")
    pictures, values = drive(4)
    for _ in range(2):  # the second one reads what the first has kept
        runtime = DeltaRuntime(tmp_path / "model.keras", engine="numpy")
        answers = [runtime.step(*both) for both in zip(pictures, map(beside, values), strict=True)]
        expected = model.predict(given(pictures, values, "last"), verbose=0)
        np.testing.assert_allclose(answers, expected, rtol=1e-4, atol=1e-6)
    assert any((tmp_path / "cache").rglob("plan.json"))


def test_int8_is_refused() -> None:
    with pytest.raises(DeltafineError, match=r"takes 'speed', 'command', 'goal' beside its frames, which int8"):
        DeltaRuntime(driver(), engine="numpy", precision="int8")
