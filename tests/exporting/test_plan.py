"""The exported plan: an interpreter that knows nothing of deltafine computes what the runtime computes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import jsonschema
import keras
import numpy as np
import pytest

import deltafine
from deltafine.errors import DeltafineError
from deltafine.exporting import FORMATS, Source
from deltafine.exporting.writing import write_export
from deltafine.model import DeltaSettings, find_activations, insert_deltas
from tests.exporting.plan_interpreter import Interpreter
from tests.layers.own_rules import Halfway
from tests.runtime import models

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "plan.schema.json").read_text("utf-8"))


def tiny(rule: str, granularity: str = "element", threshold_per: str = "layer") -> keras.Model:
    """A refined network whose weights, thresholds and sums are whole fractions: every order of adding is exact."""
    inputs = keras.Input((12, 10, 3), name="frame")
    x = keras.layers.Rescaling(1 / 256, name="scale")(inputs)
    x = keras.layers.Conv2D(6, 3, strides=2, padding="same", activation="relu", name="first")(x)
    x = keras.layers.DepthwiseConv2D(3, activation="relu", name="depthwise")(x)
    x = keras.layers.Conv2D(8, 1, activation="relu6", name="pointwise")(x)
    x = keras.layers.Dense(3, name="head")(keras.layers.Flatten()(x))
    model = keras.Model(inputs, x, name="tiny")
    generator = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(generator.integers(-8, 9, weight.shape) / 16)
    thresholds = {"input": 8.0, "first": 0.125, "depthwise": 0.125, "pointwise": 0.25}
    settings = DeltaSettings(
        rule=rule, granularity=granularity, threshold_per=threshold_per, initial_threshold=thresholds
    )
    return insert_deltas(model, find_activations(model), settings)


def video(frames: int, shape: tuple[int, int, int]) -> np.ndarray:
    return np.round(np.stack(list(models.video(shape, frames))))


def exported(refined: keras.Model, folder: Path) -> Path:
    write_export(refined, folder / "plan.json", "plan")
    return folder / "plan.json"


@pytest.mark.parametrize(
    ("rule", "granularity", "threshold_per"),
    [
        ("send-on-delta", "element", "layer"),
        ("send-on-delta", "element", "neuron"),
        ("send-on-delta", "pixel", "channel"),
        ("quantize", "element", "channel"),
        ("identity", "element", "layer"),
    ],
)
def test_an_interpreter_of_its_own_sends_exactly_the_events_of_the_runtime(rule, granularity, threshold_per, tmp_path):
    refined = tiny(rule, granularity, threshold_per)
    player = Interpreter(exported(refined, tmp_path))
    runtime = deltafine.DeltaRuntime(refined, cache=False, engine="numpy")
    sent = []
    for frame in video(80, (12, 10, 3)):
        (found,) = player.step(frame)
        np.testing.assert_allclose(found, runtime.step(frame), rtol=0, atol=1e-6)
        counts = runtime.counts
        assert player.events == {name: count for name, (count, _) in counts.events().items()}
        assert player.macs == counts.total("effective_macs")
        sent.append(sum(player.events.values()))
    whole = sum(delta["events_of"] for delta in player.plan["delta_layers"])
    if rule != "quantize":
        assert sent[0] == whole
    assert 0 < np.mean(sent[1:]) < whole


@pytest.mark.parametrize("name", ["convolutions", "depthwise", "pools", "sums", "nested", "shared_layer"])
def test_the_interpreter_computes_every_kind_of_operation(name, tmp_path):
    """Without thresholds, as last bits differ and the sums here are not exact."""
    refined = models.refined(models.MODELS[name](), "identity")
    player = Interpreter(exported(refined, tmp_path))
    runtime = deltafine.DeltaRuntime(refined, cache=False, engine="numpy")
    jsonschema.validate(player.plan, SCHEMA)
    for frame in video(4, runtime.plan.input_shape):
        (found,) = player.step(frame)
        np.testing.assert_allclose(found, runtime.step(frame), rtol=1e-4, atol=1e-4)


def test_a_new_stream_begins_with_a_first_frame(tmp_path):
    refined = tiny("send-on-delta")
    player, frames = Interpreter(exported(refined, tmp_path)), video(9, (12, 10, 3))
    first = [player.step(frame)[0] for frame in frames]
    again = player.step(frames[0])[0]
    player.reset()
    np.testing.assert_array_equal([player.step(frame)[0] for frame in frames], first)
    assert not np.array_equal(again, first[0])  # else there was nothing to reset


def test_the_file_is_as_its_schema_says_and_names_the_model_that_it_was_made_of(tmp_path):
    refined = tiny("send-on-delta", "pixel", "channel")
    refined.save(tmp_path / "refined.keras")
    write_export(refined, tmp_path / "plan.json", "plan", source=Source(tmp_path / "refined.keras"))
    document = json.loads((tmp_path / "plan.json").read_text())
    jsonschema.validate(document, SCHEMA)
    digest = hashlib.sha256((tmp_path / "refined.keras").read_bytes()).hexdigest()
    assert document["model"] == {"name": refined.name, "file": "refined.keras", "sha256": digest}
    assert document["input"] == {"tensor": 0, "shape": [12, 10, 3], "type": "float32"}
    arrays = dict(np.load(tmp_path / "plan.npz"))
    assert {name: list(array.shape) for name, array in arrays.items()} == {
        name: entry["shape"] for name, entry in document["arrays"]["shapes"].items()
    }
    deltas = {delta["name"]: delta for delta in document["delta_layers"]}
    assert list(deltas) == ["input_delta", "first_delta", "depthwise_delta", "pointwise_delta"]
    first = deltas["first_delta"]
    operations = document["operations"]
    assert (first["remembers"], first["first_frame"], first["events_of"]) == (True, "value", 6 * 5)
    assert [operations[place]["name"] for place in first["consumers"]] == ["depthwise"]
    for delta in deltas.values():
        assert operations[delta["operation"]]["output"] == delta["tensor"]
    for index, tensor in enumerate(document["tensors"]):
        assert operations[tensor["maker"]]["output"] == index
        assert all(index in operations[place]["inputs"] for place in tensor["consumers"])


@pytest.mark.parametrize("change", [{"version": 2}, {"outputs": []}, {"operations": [{"kind": "convolve"}]}])
def test_the_schema_holds_what_it_says(change, tmp_path):
    document = json.loads(exported(tiny("quantize"), tmp_path).read_text())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, **change}, SCHEMA)


def test_the_file_is_checked_frame_by_frame_against_the_refined_model(tmp_path):
    refined = tiny("send-on-delta")
    clips = video(40, (12, 10, 3)).reshape(2, 20, 12, 10, 3)
    agreement, _ = write_export(refined, tmp_path / "plan.json", "plan", real_frames=lambda wanted: clips)
    assert (agreement.frames, agreement.stream, agreement.same_class) == (40, True, 1)
    assert agreement.largest_difference < 1e-5
    other = FORMATS.get("plan").make(tiny("identity"))
    assert FORMATS.get("plan").check(other, tmp_path / "plan.json", clips).largest_difference > 1e-2


def test_arrays_of_another_plan_are_refused(tmp_path):
    plan, made = FORMATS.get("plan"), FORMATS.get("plan").make(tiny("quantize"))
    plan.write(made, tmp_path / "plan.json")
    np.savez(tmp_path / "plan.npz", **{name: array + 1 for name, array in made.arrays.items()})
    with pytest.raises(DeltafineError, match=r"is not the file that .* was written with"):
        plan.check(made, tmp_path / "plan.json", None)


def test_what_no_plan_holds_is_refused_by_its_name(tmp_path):
    unknown = models.refined(models.MODELS["with_unknown_layers"](), "quantize")
    with pytest.raises(DeltafineError, match=r"Layer 'sparse' \(Activation\) of model .* no plan holds it"):
        write_export(unknown, tmp_path / "a" / "plan.json", "plan")
    own = models.refined(models.MODELS["plain"](), Halfway())
    with pytest.raises(DeltafineError, match="has the rule 'halfway', which is code of your own"):
        write_export(own, tmp_path / "a" / "plan.json", "plan")
    assert list(tmp_path.iterdir()) == []
