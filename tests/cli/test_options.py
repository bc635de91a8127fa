"""Options that are made from the declarations of settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer.main

from deltafine import load_report
from deltafine.cli import app
from deltafine.cli.options import as_arguments
from deltafine.settings import DECLARED, RENAMED, TAKES
from tests.cli.running import Command

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands
FAST = ("--frames", 4, "--batch", 4, "--relative-threshold", 0.5, "--epochs", 0)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_fits_a_terminal(
    name: str, deltafine: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = deltafine(name, "--help").output
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown


@pytest.mark.parametrize("width", [40, 60, 71, 72, 120])
def test_the_help_cuts_no_option_and_no_sentence_at_any_width(
    width: int, deltafine: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for arguments in ([], *([name] for name in COMMANDS)):
        shown = deltafine(*arguments, "--help").output
        assert "…" not in shown
        for notation in ("COMMAND [ARGS]...", "A,B,...", "HOST:PORT,...", "{VIDEO...}...", "VIDEO...", "rtsp://..."):
            shown = shown.replace(notation, "")
        assert "..." not in shown
        options = [one for one in COMMANDS[arguments[0]].params if not one.hidden] if arguments else []
        assert all(name in shown for one in options for name in one.opts if name.startswith("--"))


@pytest.mark.parametrize("name", TAKES)
def test_the_help_of_a_command_shows_what_it_takes_as_it_is_declared(
    name: str, deltafine: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = deltafine(name, "--help").output
    for setting in (DECLARED[taken] for taken in TAKES[name]):
        listed = setting.common or name != "refine"
        assert any(f" {setting.option} " in line and setting.brief in line for line in shown.splitlines()) == listed
        if listed and setting.choices:
            assert setting.metavar in shown
    assert not [old for old in RENAMED if f"--{old.replace('_', '-')} " in shown]


def test_the_help_of_refine_shows_defaults_and_says_what_overrides_the_recipe(
    deltafine: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = deltafine("refine", "--help").output
    for words in (
        "0 only calibrates (default as many as take 1500 steps).",
        "(default send-on-delta).",
        "(default the model's, or 8).",
    ):
        assert words in shown
    assert "Options and --set override the recipe." in " ".join(shown.split())


def test_options_assignments_and_old_names_are_all_settings_of_the_run(
    deltafine: Command, model: Path, videos: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('warmup = "50%"\nseed = 1\nweight_decay = 0.5\n', "utf-8")
    given = ("--set", "warmup=5%", "--seed", 2, "--set", "skip=conv2,nothing*", "--validation", "40%")
    arguments = ("refine", model, "--data", videos, "--out", tmp_path / "run", "--recipe", recipe, *FAST, *given)
    assert "matches no layer" in deltafine(*arguments).refusal
    done = deltafine(*(str(one).replace(",nothing*", "") for one in arguments), "--unit", "pixel", "--clip-stride", 2)
    assert done.code == 0, done.errors
    settings = load_report(tmp_path / "run").settings
    assert {name: settings[name] for name in ("warmup", "seed", "weight_decay", "skip", "validation")} == {
        "warmup": 0.05,
        "seed": 2,
        "weight_decay": 0.5,
        "skip": ["conv2"],
        "validation": 0.4,
    }
    assert (settings["granularity"], settings["clip_stride"]) == ("pixel", 2)
    assert "--unit is an old name: use --granularity" in done.errors


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--set", "epohcs=1"], "There is no setting named 'epohcs': did you mean epochs?"),
        (["--set", "seed=1", "--seed", "2"], "The setting 'seed' is given twice: leave --set seed=... out."),
        (["--set", "data=elsewhere"], "The setting 'data' is given twice: leave --set data=... out."),
        (["--epochs", "many"], "The setting 'epochs' is 'many', which cannot be used"),
        (["--rule", "sometimes"], "it must be send-on-delta, quantize, or module:Name of a rule of your own"),
        (["--target-macs", "150%"], "The setting 'target_macs' is '150%', which cannot be used"),
        (["--validation", "0"], "a run needs videos to train on and to validate on"),
        (
            ["--unit", "pixel", "--granularity", "pixel"],
            "--unit is an old name of --granularity, which is given as well",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_sentence(
    options: list[str], sentence: str, deltafine: Command, model: Path, videos: Path, tmp_path: Path
) -> None:
    done = deltafine("refine", model, "--data", videos, "--out", tmp_path / "run", *options)
    assert sentence in done.refusal
    assert not (tmp_path / "run").exists()


def test_settings_of_a_command_are_the_same_for_another_process() -> None:
    settings = {"size": "16x20", "unsafe_lambda": True, "custom_objects": ("a:b", "c:d"), "classes": ("x", "y")}
    assert as_arguments(settings) == [
        "--size=16x20",
        "--unsafe-lambda",
        "--custom-objects=a:b",
        "--custom-objects=c:d",
        "--classes=x,y",
    ]
