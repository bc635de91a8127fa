"""Rules of the user's own in delta layers: what stands for them, and how they are saved."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from deltafine import find_activations, insert_deltas
from deltafine.errors import DeltafineError
from deltafine.layers import RULES, DeltaActivation, EventRule
from deltafine.layers.rules import rule_of
from deltafine.layers.rules.changes import UNROLL_LIMIT
from deltafine.layers.rules.send_on_delta import SendOnDelta
from deltafine.model import DeltaSettings, delta_layers, load
from deltafine.model.custom_objects import import_rule
from tests.layers.own_rules import Forgetful, Halfway, Hysteresis, Summed, Truncated, loose
from tests.model.small_models import clips, plain


def refined(rule: Any, **settings: Any) -> Any:
    model = plain()
    return insert_deltas(model, find_activations(model), DeltaSettings(rule=rule, initial_threshold=0.1, **settings))


def by_hand(x: np.ndarray, step: float, margin: float) -> np.ndarray:
    """Levels held by hysteresis, value by value, of x (batch, time, ...)."""
    held = np.empty_like(x)
    for place in np.ndindex(x.shape[0], *x.shape[2:]):
        level = None
        for frame in range(x.shape[1]):
            value = x[(place[0], frame, *place[1:])]
            if level is None or abs(value - level * step) >= (0.5 + margin) * step:
                level = round(float(value / step))
            held[(place[0], frame, *place[1:])] = level * step
    return held


@pytest.mark.parametrize("frames", [5, UNROLL_LIMIT + 3])
def test_a_delta_layer_sends_what_its_own_rule_says(frames):
    eighths = np.random.default_rng(0).integers(-24, 24, (2, frames, 4, 3)) / np.float32(8)
    layer = DeltaActivation(rule=Hysteresis(0.125), initial_threshold=0.5)
    np.testing.assert_array_equal(layer(tf.constant(eighths)), by_hand(eighths, 0.5, 0.125))


def test_gradients_and_penalty_need_nothing_of_a_rule():
    layer = DeltaActivation(rule=Hysteresis(), initial_threshold=0.5, penalty=1.0)
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 6, 4, 3)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(tf.square(layer(x, training=True))) + layer.losses[0]
    for gradient in tape.gradient(loss, [x, layer.log_threshold]):
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 0


def test_training_starts_from_levels_that_the_rule_can_hold():
    layer = DeltaActivation(rule=Hysteresis(), initial_threshold=0.5)
    levels = layer(tf.random.normal((2, 6, 4, 3), seed=0), training=True).numpy() / 0.5
    np.testing.assert_array_equal(levels, levels.round())


def test_a_saved_model_holds_the_rule_and_its_parameters(tmp_path):
    model = refined(Hysteresis(0.4))
    for suffix in (".keras", ".h5"):
        model.save(tmp_path / f"model{suffix}")
        again = load(tmp_path / f"model{suffix}")
        assert {layer.rule.margin for layer in delta_layers(again).values()} == {0.4}
        np.testing.assert_array_equal(again.predict(clips(), verbose=0), model.predict(clips(), verbose=0))


@pytest.mark.parametrize("rule", RULES)
def test_a_built_in_rule_is_saved_by_its_name_however_it_was_given(rule, tmp_path):
    configs = [DeltaActivation(rule=given, name="x").get_config() for given in (rule, RULES[rule], type(RULES[rule])())]
    assert [config["rule"] for config in configs] == [rule] * 3


def _registered_as(path: Path, name: str) -> None:
    """Make a saved model say that its rule was registered under another name."""
    with zipfile.ZipFile(path) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    members["config.json"] = members["config.json"].replace(b"tests.layers.own_rules>Hysteresis", name.encode())
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)


def test_a_rule_whose_module_has_moved_is_found_by_its_class(tmp_path):
    path = tmp_path / "model.keras"
    refined(Hysteresis(0.4)).save(path)
    _registered_as(path, "__main__>Hysteresis")
    again = load(path, custom_objects={"Hysteresis": Hysteresis})
    assert {layer.rule.margin for layer in delta_layers(again).values()} == {0.4}
    with pytest.raises(DeltafineError, match=r"uses? the event rule '__main__>Hysteresis', a class that is not known"):
        load(path)


def test_elsewhere_a_model_says_which_class_it_misses_and_loads_with_it(tmp_path):
    path = tmp_path / "model.keras"
    refined(Hysteresis(0.4)).save(path)

    def ran(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "deltafine", "inspect", str(path), *options]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    without = ran()
    assert without.returncode == 2
    said = " ".join(without.stderr.split())
    assert "--custom-objects tests.layers.own_rules:Hysteresis" in said.replace(": Hysteresis", ":Hysteresis")
    assert "Traceback" not in without.stderr
    assert "not known" not in ran("--custom-objects", "tests.layers.own_rules:Hysteresis").stderr


def test_a_model_cannot_name_a_class_that_is_no_rule():
    stored = {"class_name": "Dense", "registered_name": "Dense", "module": "keras.layers", "config": {"units": 1}}
    with pytest.raises(DeltafineError, match="not known here"):
        DeltaActivation(rule=stored)


def test_a_rule_that_would_lose_its_parameters_is_not_saved():
    with pytest.raises(DeltafineError, match=r"Forgetful has parameters \(margin\): give it a get_config"):
        DeltaActivation(rule=Forgetful(0.4)).get_config()


def test_parameters_that_the_class_does_not_take_are_said():
    config = DeltaActivation(rule=Hysteresis(), name="x").get_config()
    config["rule"]["config"] = {"slack": 0.4}
    with pytest.raises(DeltafineError, match=r"cannot be made again from {'slack': 0.4}: .*slack"):
        DeltaActivation.from_config(config)


def test_no_rule_of_ones_own_hides_behind_a_built_in_name():
    class Mine(SendOnDelta):
        pass

    class Nameless(Halfway):
        name = ""

    with pytest.raises(ValueError, match="name of a built-in rule, 'send-on-delta': give it its own"):
        DeltaActivation(rule=Mine())
    with pytest.raises(ValueError, match="Nameless needs a name"):
        DeltaActivation(rule=Nameless())
    with pytest.raises(ValueError, match=r"rule must be one of send-on-delta, .*, or an instance of an EventRule"):
        DeltaActivation(rule="sometimes")


def test_a_rule_needs_advance():
    class Empty(EventRule):
        name = "empty"

    with pytest.raises(TypeError, match="advance"):
        Empty()


@pytest.mark.parametrize("frames", [3, UNROLL_LIMIT + 1])
def test_values_of_another_shape_are_refused(frames):
    with pytest.raises(
        DeltafineError, match=r"'summed' gives values of shape \(2, 4\) for frames of shape \(2, 4, 3\)"
    ):
        DeltaActivation(rule=Summed())(tf.zeros((2, frames, 4, 3)))


OWN = "tests.layers.own_rules"


@pytest.mark.parametrize("rule", [Hysteresis(0.4), Hysteresis(), Halfway(), Truncated()])
def test_the_reference_of_a_rule_makes_it_again(rule):
    again = import_rule(rule.reference)
    assert type(again) is type(rule)
    assert again.get_config() == rule.get_config()


def test_a_rule_is_imported_by_its_module():
    assert import_rule(f"{OWN}:loose") is loose
    assert import_rule(f"{OWN}:Hysteresis").margin == 0.25
    assert import_rule("quantize") is rule_of("quantize")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sometimes", "one of send-on-delta, .* or module:Name, not 'sometimes'"),
        (f"{OWN}:Missing", f"Module {OWN} has no 'Missing', which the rule {OWN}:Missing asks for"),
        ("no_such_module:Rule", "The module of the rule no_such_module:Rule cannot be imported"),
        ("json:dumps", "cannot be used: it is a function, not a deltafine.layers.EventRule"),
        (f"{OWN}:Hysteresis(slack=1)", "cannot be used: .*slack"),
        (f"{OWN}:Hysteresis(print(1))", r"arguments must be given as \(name=value, ...\)"),
        (f"{OWN}:Hysteresis(margin=print(1))", "cannot be used: "),
        (f"{OWN}:Hysteresis(margin=", "cannot be used: "),
    ],
)
def test_what_is_no_rule_is_said_in_one_sentence(text, message):
    with pytest.raises(DeltafineError, match=message):
        import_rule(text)


def test_a_copy_of_a_layer_has_its_rule():
    layer = DeltaActivation(rule=Hysteresis(0.4), name="x")
    config = json.loads(json.dumps(layer.get_config()))
    assert DeltaActivation.from_config(config).rule.margin == 0.4
    model = refined(Hysteresis(0.4))
    copy = keras.models.clone_model(model)
    assert {one.rule.margin for one in delta_layers(copy).values()} == {0.4}
