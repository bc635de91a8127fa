from __future__ import annotations

import io
import json
import re

import keras
import pytest
import tensorflow as tf
from keras import layers
from rich.console import Console

from deltafine.cli.inspect import show_plan
from deltafine.errors import DeltafineError
from deltafine.model import DeltaSettings, find_activations, preview_insertion, select_sites
from deltafine.model.custom_objects import import_objects
from deltafine.model.frame_size import frame_shape
from tests.model import small_models
from tests.model.test_uncovered import Filter


def plan_of(model, settings=None, **patterns):
    return preview_insertion(model, select_sites(find_activations(model), **patterns), settings)


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
    assert plan["totals"]["selected"] == plan["totals"]["thresholds"] == 3
    sums = 12 * 10 * 4 + 4 * 3 * 6 + 5
    assert plan["totals"]["state_bytes"] == 4 * (12 * 10 * 3 + 12 * 10 * 4 + 4 * 3 * 6 + sums)
    assert plan["totals"]["coverage"] == 1.0
    assert plan["model"]["dense_macs"] == sum(site["fan_out_macs"] for site in plan["sites"])


@pytest.mark.parametrize(("threshold_per", "thresholds"), [("layer", 1), ("channel", 4), ("neuron", 480)])
def test_the_number_of_steps_follows_the_settings(threshold_per, thresholds):
    plan = plan_of(small_models.plain(), DeltaSettings(threshold_per=threshold_per))
    assert next(site for site in plan["sites"] if site["name"] == "relu1")["thresholds"] == thresholds


def test_layers_behind_no_delta_layer_are_listed_and_can_be_added():
    model = bottleneck()
    assert [entry["layer"] for entry in plan_of(model, at=["activations-only"])["not_behind"]] == ["expand"]
    plan = plan_of(model, at=["activations-only", "uncovered"])
    assert [site["name"] for site in plan["sites"] if site["selected"]] == ["input", "first", "linear", "expand"]
    assert plan["not_behind"] == []
    assert plan["totals"]["coverage"] > 0.9


def test_adding_the_uncovered_leaves_gates_alone():
    sites = select_sites(find_activations(small_models.gated()), at=["activations-only", "uncovered"])
    assert [site.name for site in sites if site.selected] == ["input", "stem", "after_sum", "swish"]


def test_layers_that_count_as_a_whole_are_listed():
    inputs = keras.Input((7, 5))
    x = layers.RNN(layers.LSTMCell(4), name="cells")(layers.ReLU(name="relu")(inputs))
    plan = plan_of(keras.Model(inputs, layers.Dense(2, name="head")(x)))
    assert plan["not_counted"] == []
    assert plan["counted_whole"] == [
        {"layer": "cells", "type": "RNN", "dense_macs": 7 * 4 * 4 * 9, "reason": "recurrent"}
    ]


def two_recurrent_layers():
    """Of clips; nothing stands between the two recurrent layers."""
    inputs = keras.Input((6, 8, 8, 3))
    x = layers.TimeDistributed(layers.Conv2D(4, 3, activation="relu"), name="frames")(inputs)
    x = layers.LSTM(8, return_sequences=True, name="first")(layers.TimeDistributed(layers.Flatten(), name="flat")(x))
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.LSTM(8, name="second")(x)))


def inside_time_distributed():
    """A convolution without activation before another one, each wrapped by itself."""
    inputs = keras.Input((6, 8, 8, 3))
    x = layers.TimeDistributed(layers.Conv2D(4, 3), name="first")(inputs)
    x = layers.TimeDistributed(layers.Dropout(0.1), name="dropped")(x)
    x = layers.TimeDistributed(layers.Conv2D(4, 3, activation="relu"), name="second")(x)
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.GlobalAveragePooling3D()(x)))


PARTS = ("query", "key", "value", "dotproductattention", "attention_output")


@pytest.mark.parametrize(
    ("make", "apart", "added"),
    [
        (two_recurrent_layers, ["second", "head"], "first"),
        (inside_time_distributed, ["second", "head"], "first"),
        (bottleneck, ["expand"], "linear"),
        (lambda: tiny_transformer(), [f"attention/{part}" for part in PARTS] + ["into", "head"], "attention/key"),
    ],
)
def test_what_is_behind_a_delta_layer_and_what_is_not_are_all_there_is(make, apart, added):
    model = make()
    plan = plan_of(model, at=["activations-only"])
    behind = [entry["layer"] for entry in plan["not_behind"]]
    assert [name for name in behind if name != "head" and "/state" not in name] == [
        name for name in apart if name != "head"
    ]
    assert plan["totals"]["coverage"] + sum(entry["mac_share"] for entry in plan["not_behind"]) == pytest.approx(
        1, abs=0.08
    )
    assert added in plan["addable"]
    more = plan_of(model)
    assert more["addable"] == []
    assert [entry["layer"] for entry in more["not_behind"] if "/state" not in entry["layer"]] in ([], ["head"])
    assert more["totals"]["coverage"] > plan["totals"]["coverage"]
    assert {site["name"] for site in more["sites"] if site["selected"]} >= set(plan["addable"])


def tiny_transformer():
    inputs = keras.Input((8, 8, 3))
    x = layers.Reshape((16, 6))(layers.Conv2D(6, 2, 2, name="patches")(inputs))
    z = layers.LayerNormalization(name="norm")(x)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 3, name="attention")(z, z)])
    z = layers.Dense(12, activation="gelu", name="into")(layers.LayerNormalization(name="norm2")(x))
    x = layers.GlobalAveragePooling1D()(layers.Add()([x, layers.Dense(6, name="out")(z)]))
    return keras.Model(inputs, layers.Dense(2, name="head")(x))


def test_the_state_of_a_recurrent_layer_has_a_delta_layer_of_its_own():
    inputs = keras.Input((4, 8, 8, 3))
    x = layers.ConvLSTM2D(4, 3, name="steps")(inputs)
    model = keras.Model(inputs, layers.Dense(2, name="head")(layers.GlobalAveragePooling2D()(x)))
    of_input, of_state = 4 * 6 * 6 * 9 * 3 * 16, 4 * (16 * 9 + 16 * 6 + 4 * 4) * 4 * 16
    whole = of_input + of_state + 8
    plan = plan_of(model)
    assert plan["totals"]["coverage"] == pytest.approx((of_input + of_state) / whole)
    (state,) = (site for site in plan["sites"] if site["kind"] == "state")
    assert (state["name"], state["consumers"], state["fan_out_macs"]) == ("steps/state", ["steps"], of_state)
    assert state["shape"] == [4, 6, 6, 4]
    assert plan["addable"] == []
    plan = plan_of(model, skip=["steps/*"])
    assert plan["totals"]["coverage"] == pytest.approx(of_input / whole)
    assert [entry["layer"] for entry in plan["not_behind"]] == ["steps/state", "head"]


def test_recurrent_layers_that_do_not_go_from_frame_to_frame_have_no_state_to_hold():
    inputs = keras.Input((8, 6, 3))
    rows = layers.LSTM(4, name="rows")(layers.Reshape((8, 18))(inputs))
    of_frames = keras.Model(inputs, layers.Dense(2, name="head")(rows))
    assert [site.kind for site in find_activations(of_frames)] == ["input", "linear"]
    clips = keras.Input((3, 8, 6, 3))
    x = layers.TimeDistributed(keras.Model(inputs, rows), name="frames")(clips)
    found = find_activations(keras.Model(clips, layers.Dense(2, name="head")(layers.LSTM(4, name="steps")(x))))
    assert [site.name for site in found if site.kind == "state"] == ["steps/state"]
    masked = layers.LSTM(4, name="steps")(layers.Masking()(layers.TimeDistributed(layers.Flatten())(clips)))
    assert not any(site.kind == "state" for site in find_activations(keras.Model(clips, masked)))


def test_a_model_of_which_nothing_can_be_measured_is_refused_before_any_work():
    inputs = keras.Input((7, 5))
    model = keras.Model(inputs, Filter(name="own")(layers.ReLU(name="relu")(inputs)))
    with pytest.raises(DeltafineError, match=r"can be measured \('own': Filter is no graph"):
        find_activations(model)


def shown(model, **patterns):
    console = Console(width=200, record=True, file=io.StringIO())
    show_plan(plan_of(model, **patterns), console)
    return console.export_text()


def test_the_plan_in_words_adds_up_and_gives_advice_only_where_it_helps():
    text = shown(two_recurrent_layers(), at=["activations-only"])
    before, after = (float(found) for found in re.findall(r"([\d.]+)% of the MACs", text)[:2])
    assert before + after == pytest.approx(100, abs=0.11)
    assert "--at default" in text
    text = shown(two_recurrent_layers())
    assert "--at default" not in text
    assert "Not behind a delta layer" not in text
    assert re.search(r"first/state +state ", text)


def test_a_share_says_of_what_where_layers_have_unknown_macs():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    x = layers.Lambda(lambda x: tf.nn.conv2d(tf.convert_to_tensor(x), tf.ones((3, 3, 4, 4)), 1, "SAME"), name="own")(x)
    model = keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(x)))
    plan = plan_of(model)
    assert plan["model"]["layers_of_unknown_macs"] == 1
    text = shown(model)
    assert "without those of 1 layer, which are not known" in text
    assert "% of the known MACs" in text
    assert "own (Lambda)" in text


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
