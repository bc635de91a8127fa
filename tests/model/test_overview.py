from __future__ import annotations

import json

import keras
import pytest
from keras import layers

from deltafine.errors import DeltafineError
from deltafine.model import DeltaSettings, choose, find_activations, overview
from deltafine.model.custom_objects import import_objects
from deltafine.model.frame_size import frame_shape
from tests.model import small_models


def plan_of(model, settings=None, **patterns):
    return overview(model, choose(find_activations(model), **patterns), settings)


def bottleneck():
    """A linear bottleneck: no activation stands before the second convolution."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="first")(inputs)
    x = layers.BatchNormalization(name="linear")(layers.Conv2D(2, 1, name="squeeze")(x))
    x = layers.Conv2D(6, 3, name="expand", activation="relu")(layers.ZeroPadding2D(1)(x))
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(x)))


def test_a_plan_holds_the_figures_of_every_site_and_their_sums():
    model = small_models.plain()
    plan = plan_of(model)
    assert json.loads(json.dumps(plan)) == plan
    relu = next(site for site in plan["sites"] if site["name"] == "relu1")
    assert relu["fan_out"] == pytest.approx(4 * 3 * 9 * 4 * 6 / (12 * 10 * 4))
    assert relu["state_bytes"] == 4 * 12 * 10 * 4
    assert plan["totals"]["selected"] == plan["totals"]["steps"] == 3
    sums = 12 * 10 * 4 + 4 * 3 * 6 + 5
    assert plan["totals"]["state_bytes"] == 4 * (12 * 10 * 3 + 12 * 10 * 4 + 4 * 3 * 6 + sums)
    assert plan["totals"]["coverage"] == 1.0
    assert plan["model"]["dense_macs"] == sum(site["fan_out_macs"] for site in plan["sites"])


@pytest.mark.parametrize(("step_per", "steps"), [("layer", 1), ("channel", 4), ("neuron", 480)])
def test_the_number_of_steps_follows_the_settings(step_per, steps):
    plan = plan_of(small_models.plain(), DeltaSettings(step_per=step_per))
    assert next(site for site in plan["sites"] if site["name"] == "relu1")["steps"] == steps


def test_layers_behind_no_delta_layer_are_listed_and_can_be_added():
    model = bottleneck()
    assert [entry["layer"] for entry in plan_of(model)["not_behind"]] == ["expand"]
    plan = plan_of(model, at=["default", "uncovered"])
    assert [site["name"] for site in plan["sites"] if site["selected"]] == ["input", "first", "linear", "expand"]
    assert plan["not_behind"] == []
    assert plan["totals"]["coverage"] > 0.9


def test_adding_the_uncovered_leaves_gates_alone():
    sites = choose(find_activations(small_models.gated()), at=["default", "uncovered"])
    assert [site.name for site in sites if site.selected] == ["input", "stem", "after_sum", "swish"]


def test_layers_that_are_not_counted_are_listed():
    inputs = keras.Input((7, 5))
    x = layers.LSTM(4, name="recurrent")(layers.ReLU(name="relu")(inputs))
    plan = plan_of(keras.Model(inputs, layers.Dense(2, name="head")(x)))
    assert plan["not_counted"] == [
        {"layer": "recurrent", "type": "LSTM", "dense_macs": 7 * 4 * 4 * 9, "reason": "recurrent"}
    ]


def test_a_size_fills_in_what_the_model_leaves_open():
    model = keras.Model(inputs := keras.Input((None, None, 3)), layers.Conv2D(2, 3)(inputs))
    assert frame_shape(model, "24x32") == (24, 32, 3)
    assert frame_shape(model, None) is None
    with pytest.raises(DeltafineError, match="HEIGHTxWIDTH"):
        frame_shape(model, "24")
    with pytest.raises(DeltafineError, match="not one image input"):
        frame_shape(small_models.siamese(), "24x32")


def test_custom_objects_are_imported_by_name(tmp_path, monkeypatch):
    (tmp_path / "my_layers_of_test.py").write_text("class Swirl: pass\n")
    monkeypatch.chdir(tmp_path)
    found = import_objects(
        ["my_layers_of_test:Swirl", "my_layers_of_test:Swirl=Old", "lambda_1=my_layers_of_test:Swirl"]
    )
    assert set(found) == {"Swirl", "Old", "lambda_1"}
    for name, match in [
        ("Swirl", "module:name"),
        ("lambda_1=Swirl", "layer=module:function"),
        ("nowhere_at_all:x", "cannot be imported"),
        ("json:nope", "no 'nope'"),
    ]:
        with pytest.raises(DeltafineError, match=match):
            import_objects([name])
