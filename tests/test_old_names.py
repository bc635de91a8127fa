"""What was named otherwise before is still understood: settings, options, layers, reports, runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from deltafine.cli import main
from deltafine.errors import DeltafineError, DeltafineWarning
from deltafine.report import load_report
from deltafine.settings import RENAMED, resolve
from tests.old_defaults import as_before
from tests.small_runs import write_small_model

OLD = {"unit": "pixel", "step_per": "channel", "relative_step": 0.5, "step_learning_rate": 0.1, "head": "last"}
NEW = {RENAMED[name]: value for name, value in OLD.items()}
REPORT = Path(__file__).parent / "report" / "report-v1.json"


def test_a_recipe_and_a_call_with_old_names_give_the_settings_and_say_so(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in OLD.items()))
    expected = resolve(model="m", data="d", **NEW)
    with pytest.warns(DeltafineWarning, match=r"r\.toml uses old names .*'unit' is called 'granularity' now"):
        assert resolve(recipe, model="m", data="d") == expected
    with pytest.warns(DeltafineWarning, match="The call uses old names"):
        assert resolve(model="m", data="d", **OLD) == expected


def test_both_names_of_a_setting_at_once_are_refused() -> None:
    with pytest.raises(DeltafineError, match="'granularity' and 'unit', which is its old name"):
        resolve(model="m", data="d", unit="pixel", granularity="element")


@pytest.mark.parametrize(
    ("values", "digest"),
    [
        ({}, "8eec024ba09d4c02ed9b79c28b463e086c157548ab14be513284b78b741b0bc5"),
        (NEW, "f0bf55bc6489c7353bde13f1cad30823dfed4a4bac7dde00f94af63e91ddc938"),
    ],
)
def test_a_run_from_before_has_the_hash_that_its_checkpoints_hold(values: dict[str, object], digest: str) -> None:
    """Both as version 0.1.0 computed them before the renaming."""
    assert as_before(**values).hash() == digest


def called(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["deltafine", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_the_command_line_takes_an_old_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_small_model(tmp_path / "m.keras")
    assert called(monkeypatch, "inspect", model, "--step-per", "channel", "--json") == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["totals"]["thresholds"] > len(json.loads(said.out)["sites"])
    assert "--step-per is an old name: use --threshold-per" in said.err


def test_every_renamed_setting_has_its_old_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_small_model(tmp_path / "m.keras")
    options = [f"--{old.replace('_', '-')}={value}" for old, value in OLD.items()]
    assert called(monkeypatch, "refine", model, "--data", "d", "--out", "o", "--dry-run", *options) == 0
    said = " ".join(capsys.readouterr().err.split())
    for old, new in RENAMED.items():
        assert f"--{old} is an old name: use --{new}.".replace("_", "-") in said


def test_an_option_by_both_names_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_small_model(tmp_path / "m.keras")
    assert called(monkeypatch, "inspect", model, "--step-per=channel", "--threshold-per=layer") == 2
    assert "--step-per is an old name of --threshold-per, which is given as well" in capsys.readouterr().err


def test_a_layer_that_was_saved_with_old_names_is_made_again() -> None:
    from deltafine.layers import DeltaActivation

    layer = DeltaActivation(granularity="pixel", threshold_per="channel", initial_threshold=[0.5, 2.0], name="a")
    old = {new: old for old, new in RENAMED.items()} | {
        "initial_threshold": "initial_step",
        "train_threshold": "train_step",
    }
    config = {old.get(name, name): value for name, value in layer.get_config().items()}
    assert "unit" in config
    again = DeltaActivation.from_config(config)
    again.build((None, None, 3, 3, 2))
    assert again.get_config() == layer.get_config()
    np.testing.assert_allclose(again.threshold, [0.5, 2.0])


def test_a_report_of_version_1_has_its_figures_under_their_names_of_today() -> None:
    old = json.loads(REPORT.read_text())
    assert old["version"] == 1
    name, before = next(
        (name, m["streams"]["deltas"][0]) for name, m in old["models"].items() if m["streams"]["deltas"]
    )
    now = load_report(REPORT).models[name].streams.deltas[0]
    assert (now.granularity, now.threshold_median) == (before["unit"], before["step_median"])
