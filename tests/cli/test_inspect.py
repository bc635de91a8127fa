from __future__ import annotations

import json

import keras
import pytest
from typer.testing import CliRunner

from deltafine import inspect_model
from deltafine.cli import app
from deltafine.errors import DeltafineError
from tests.model import small_models


@pytest.fixture
def saved(tmp_path):
    small_models.gated().save(tmp_path / "gated.keras")
    return str(tmp_path / "gated.keras")


def run(*arguments, columns="80", command="inspect"):
    return CliRunner(env={"COLUMNS": columns}).invoke(app, [command, *arguments])


def test_the_plan_fits_80_columns_and_gives_every_reason(saved):
    shown = run(saved)
    assert shown.exit_code == 0
    assert max(len(line) for line in shown.stdout.splitlines()) <= 80
    for text in ("after_sum", "gate: its result only scales another tensor", "reduce, expand", "head: no layer"):
        assert text in shown.stdout


def test_a_wide_terminal_names_the_layers_that_are_fed(saved):
    assert "project" not in run(saved).stdout
    assert "reduce, project" in run(saved, "--at", "stem", columns="160").stdout


def test_the_plan_says_what_the_delta_layers_cost_and_what_that_can_save(saved):
    plan = json.loads(run(saved, "--json").stdout)
    compared = plan["totals"]["comparisons"]
    assert compared == 12 * 10 * 3 + 2 * 12 * 10 * 4 + 10 * 8 * 4
    each = plan["totals"]["coverage"] * plan["model"]["dense_macs"] / compared
    shown = " ".join(run(saved).stdout.split())
    assert f"They compare 1.64 k values per frame; each of these can save {each:.3g} MACs on average" in shown
    assert "Skipped, costs more than it saves" in shown


def test_json_holds_the_same_plan(saved):
    plan = json.loads(run(saved, "--json", "--at", "stem").stdout)
    assert [site["name"] for site in plan["sites"] if site["selected"]] == ["stem"]


def test_python_gets_the_same_plan(saved):
    printed = run(saved, "--json", "--at", "stem", "--threshold-per", "channel").stdout
    assert inspect_model(saved, at="stem", threshold_per="channel") == json.loads(printed)


def test_bad_input_is_one_sentence(saved, tmp_path):
    for arguments, match in [
        ((str(tmp_path / "none.keras"),), "There is no model at"),
        ((saved, "--at", "nothing*"), "matches no layer"),
        ((saved, "--size", "8"), "HEIGHTxWIDTH"),
        ((saved, "--threshold-per", "model"), "'layer', 'channel' or 'neuron'"),
    ]:
        error = run(*arguments).exception
        assert isinstance(error, DeltafineError)
        assert match in str(error)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_sequential_model_has_the_plan_of_the_same_functional_model(suffix, tmp_path):
    sequential = small_models.sequential()
    functional = keras.Model(sequential.inputs, sequential.outputs, name=sequential.name)
    plans = []
    for name, model in (("sequential", sequential), ("functional", functional)):
        model.save(tmp_path / f"{name}{suffix}")
        for arguments in ((), ("--dry-run", "--data", str(tmp_path), "--out", str(tmp_path / "out"))):
            command = "refine" if arguments else "inspect"
            plans.append(run(str(tmp_path / f"{name}{suffix}"), *arguments, command=command).stdout)
    assert "stack: 12x10x3 in, 5 out" in plans[0]
    assert len(set(plans)) == 1


def test_a_sequential_model_of_clips_has_a_plan(tmp_path):
    model = keras.Sequential(
        [keras.Input((4, 12, 10, 3)), keras.layers.Conv3D(2, 3, activation="relu"), keras.layers.Flatten()]
    )
    model.save(tmp_path / "clips.keras")
    assert "4x12x10x3 in, 320 out" in run(str(tmp_path / "clips.keras")).stdout
