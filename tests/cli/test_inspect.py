from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from deltafine.cli.inspect import inspect
from deltafine.errors import DeltafineError
from tests.model import small_models

app = typer.Typer()
app.command()(inspect)


@pytest.fixture
def saved(tmp_path):
    small_models.gated().save(tmp_path / "gated.keras")
    return str(tmp_path / "gated.keras")


def run(*arguments, columns="80"):
    return CliRunner(env={"COLUMNS": columns}).invoke(app, arguments)


def test_the_plan_fits_80_columns_and_gives_every_reason(saved):
    shown = run(saved)
    assert shown.exit_code == 0
    assert max(len(line) for line in shown.stdout.splitlines()) <= 80
    for text in ("after_sum", "gate: its result only scales another tensor", "reduce, expand", "head: no layer"):
        assert text in shown.stdout


def test_a_wide_terminal_names_the_layers_that_are_fed(saved):
    assert "project" not in run(saved).stdout
    assert "reduce, project" in run(saved, columns="160").stdout


def test_json_holds_the_same_plan(saved):
    plan = json.loads(run(saved, "--json", "--at", "stem").stdout)
    assert [site["name"] for site in plan["sites"] if site["selected"]] == ["stem"]


def test_bad_input_is_one_sentence(saved, tmp_path):
    for arguments, match in [
        ((str(tmp_path / "none.keras"),), "There is no model file"),
        ((saved, "--at", "nothing*"), "matches no layer"),
        ((saved, "--size", "8"), "HEIGHTxWIDTH"),
    ]:
        error = run(*arguments).exception
        assert isinstance(error, DeltafineError)
        assert match in str(error)
