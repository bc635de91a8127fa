"""Refining with an event rule of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deltafine import DeltaRuntime, load_report, refine
from deltafine.errors import DeltafineError
from deltafine.model import delta_layers, load
from deltafine.settings import resolve
from tests.layers.own_rules import Forgetful, Hysteresis
from tests.small_runs import FAST, SIZE, write_small_model, write_small_videos

TEXT = "tests.layers.own_rules:Hysteresis(margin=0.4)"


def settled(**values: Any) -> Any:
    return resolve(model="m", data="d", **values)


def test_a_run_with_an_own_rule_trains_recalibrates_measures_and_is_resumed(tmp_path: Path) -> None:
    model, videos = write_small_model(tmp_path / "small.keras"), write_small_videos(tmp_path / "videos", per_class=3)
    settings: dict[str, Any] = {**FAST, "epochs": 1, "granularity": "pixel", "recalibrate": 1, "tensorboard": False}
    report = refine(model, videos, tmp_path / "run", rule=Hysteresis(0.4), **settings)
    deltas = report.models["refined"].streams.deltas
    assert {delta.rule for delta in deltas} == {"hysteresis"}
    assert all(delta.bits is not None for delta in deltas)
    assert f'rule = "{TEXT}"' in (tmp_path / "run" / "settings.toml").read_text("utf-8")
    refined = load(tmp_path / "run" / "refined.keras")
    assert {layer.rule.margin for layer in delta_layers(refined).values()} == {0.4}
    runtime = DeltaRuntime(tmp_path / "run")
    assert np.isfinite(runtime.step(np.zeros((SIZE, SIZE, 3), np.uint8))).all()
    again = refine(model, videos, tmp_path / "run", resume=True, rule=TEXT, **settings)
    assert again.models == report.models
    assert load_report(tmp_path / "run").settings["rule"] == TEXT
    with pytest.raises(DeltafineError, match="rule"):
        refine(model, videos, tmp_path / "run", resume=True, rule=Hysteresis(0.1), **settings)


def test_a_rule_is_given_as_an_instance_or_as_the_same_text() -> None:
    assert settled(rule=Hysteresis(0.4)).rule == TEXT
    assert settled(rule=Hysteresis(0.4)).hash() == settled(rule=TEXT).hash()
    assert settled(rule="quantize").rule == "quantize"


def test_clips_go_on_from_each_other_for_rules_with_memory() -> None:
    assert settled(rule=TEXT, granularity="pixel").carried
    assert not settled(rule="quantize", granularity="pixel").carried


@pytest.mark.parametrize("rule", ["sometimes", ":Rule", "module:", "module:Rule(", 3, "os:system; x"])
def test_what_is_no_rule_is_refused_by_the_name_of_the_setting(rule: Any) -> None:
    with pytest.raises(
        DeltafineError, match=r"The setting 'rule' is .*must be send-on-delta, quantize, or module:Name"
    ):
        settled(rule=rule)


def test_a_rule_that_would_lose_its_parameters_is_refused_in_one_sentence() -> None:
    with pytest.raises(DeltafineError, match=r"Forgetful has parameters \(margin\): give it a get_config"):
        settled(rule=Forgetful(0.4))


def test_a_recipe_alone_imports_no_rule(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'rule = "{TEXT}"\n', "utf-8")
    with pytest.raises(DeltafineError, match=r"asks for rule, which imports Python modules: .*give --rule as well"):
        settled(recipe=recipe)
    assert settled(recipe=recipe, rule=TEXT).rule == TEXT
    recipe.write_text('rule = "quantize"\n', "utf-8")
    assert settled(recipe=recipe).rule == "quantize"
