"""Settings: their limits, their names, and the way to a recipe and back."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltafine.errors import DeltafineError
from deltafine.refinement.run.directory import settings_of
from deltafine.settings import DECLARED, RefineSettings, assigned, checked, given_names, resolve
from deltafine.settings.settings_page import RENEW, page
from tests.old_defaults import as_before

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
rates = st.floats(1e-9, 10)
any_settings = st.fixed_dictionaries(
    {"model": text, "data": text},
    optional={
        "classes": st.lists(text, min_size=1, max_size=3).map(tuple),
        "at": st.lists(text, max_size=3).map(tuple),
        "rescale": st.sampled_from(["0..1", "-1..1"]),
        "rule": st.sampled_from(["send-on-delta", "quantize"]),
        "epochs": st.integers(0, 1000),
        "frames": st.integers(2, 1000),
        "seed": st.integers(0, 2**32 - 1),
        "learning_rate": rates,
        "penalty": rates,
        "validation": st.floats(0.01, 0.99),
        "start": st.sampled_from(["carried", "noise", "exact"]),
    },
)


@given(any_settings)
def test_settings_survive_the_way_to_a_recipe_and_back(values: dict[str, Any]) -> None:
    settings = resolve(**values)
    read = RefineSettings.model_validate(tomllib.loads(settings.to_toml()))
    assert read == settings
    assert read.hash() == settings.hash()


def test_values_given_directly_go_before_the_recipe_and_none_means_not_given(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('model = "a.keras"\ndata = "videos"\nepochs = 7\nframes = 16\n', "utf-8")
    settings = resolve(recipe, epochs=2, frames=None)
    assert (settings.model, settings.epochs, settings.frames) == ("a.keras", 2, 16)
    assert given_names(recipe, epochs=2, penalty=None) == {"model", "data", "epochs", "frames"}


def test_any_other_value_gives_another_hash() -> None:
    assert resolve(model="m", data="d").hash() != resolve(model="m", data="d", seed=1).hash()


def refusal(**values: Any) -> str:
    with pytest.raises(DeltafineError) as caught:
        resolve(**{"model": "m", "data": "d", **values})
    return str(caught.value)


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    assert refusal(epohcs=1) == "There is no setting named 'epohcs': did you mean epochs?"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("frames", 1),
        ("epochs", -1),
        ("penalty", float("nan")),
        ("learning_rate", float("inf")),
        ("learning_rate", 0),
        ("rule", "sometimes"),
        ("rescale", "0..2"),
        ("seed", 2**32),
        ("distill", -0.5),
    ],
)
def test_a_value_out_of_its_limits_is_refused_by_name(name: str, value: Any) -> None:
    sentence = refusal(**{name: value})
    assert sentence.startswith(f"The setting '{name}' is {value!r}, which cannot be used: ")
    assert "\n" not in sentence


def test_settings_that_do_not_go_together_are_refused_in_words() -> None:
    assert refusal(method="paper", granularity="pixel") == (
        "The settings do not go together: method 'paper' works on elements, not on granularity 'pixel'."
    )
    for how in ({"distill": 0.0}, {"method": "paper"}):
        assert refusal(mix=0.5, **how) == (
            "The settings do not go together: mix needs the original's answers, which nothing follows with distill 0."
        )


def test_a_missing_setting_is_named() -> None:
    with pytest.raises(DeltafineError, match="The setting 'data' is missing"):
        resolve(model="m")


@pytest.mark.parametrize(
    ("content", "words"), [(b"epochs = ", "is not valid TOML"), (b"\xff\xfe", "is not valid TOML")]
)
def test_a_broken_recipe_is_refused_by_its_path(tmp_path: Path, content: bytes, words: str) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_bytes(content)
    with pytest.raises(DeltafineError, match=words) as caught:
        resolve(recipe)
    assert str(recipe) in str(caught.value)


def test_a_missing_recipe_is_refused_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(DeltafineError, match=r"Cannot read the recipe .*nowhere\.toml: No such file"):
        resolve(tmp_path / "nowhere.toml")


def test_the_page_of_settings_is_made_from_their_declarations() -> None:
    written = (Path(__file__).parents[2] / "docs" / "settings.md").read_text("utf-8")
    assert written == page(), f"docs/settings.md is out of date: {RENEW}"


def test_every_setting_says_in_one_short_sentence_what_it_means() -> None:
    for setting in DECLARED.values():
        assert 0 < len(setting.brief) <= 80, setting.name
        assert not set("[]`") & set(setting.brief), setting.name


FRACTIONS = [name for name, setting in DECLARED.items() if setting.kind == "fraction"]


@pytest.mark.parametrize("name", FRACTIONS)
def test_a_fraction_is_a_number_or_a_percentage_wherever_it_is_given(name: str, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'model = "m"\ndata = "d"\n{name} = "7.5%"\n', "utf-8")
    as_number = resolve(model="m", data="d", **{name: 0.075})
    for settings in (
        resolve(recipe),
        resolve(model="m", data="d", **{name: "7.5%"}),
        resolve(model="m", data="d", **{name: "0.075"}),
        resolve(model="m", data="d", **{name: 7.5}),
        resolve(model="m", data="d", **{name: "7.5"}),
        resolve(model="m", data="d", **assigned([f"{name}=7.5%"])),
    ):
        assert getattr(settings, name) == 0.075
        assert settings.hash() == as_number.hash()


@pytest.mark.parametrize("name", FRACTIONS)
@pytest.mark.parametrize("value", [1, "1", "1.0"])
def test_a_fraction_of_1_could_be_two_things(name: str, value: Any, tmp_path: Path) -> None:
    sentence = f"The setting '{name}' is {value!r}, which could be 1% or 100%: write '1%' or '100%'."
    assert refusal(**{name: value}) == sentence
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'model = "m"\ndata = "d"\n{name} = {json.dumps(value)}\n', "utf-8")
    with pytest.raises(DeltafineError, match="could be 1% or 100%"):
        resolve(recipe)


def test_the_settings_of_a_run_mean_what_they_did(tmp_path: Path) -> None:
    for name in ("settings.toml", "copied.toml"):
        (tmp_path / name).write_text('model = "m"\ndata = "d"\ncrop = 1.0\ndistill = 1.0\n', "utf-8")
        read = resolve(tmp_path / name)
        assert (read.crop, read.distill) == (1.0, 1.0)
    (tmp_path / "settings.toml").write_text('model = "m"\ndata = "d"\nmax_accuracy_drop = 1.0\n', "utf-8")
    assert resolve(tmp_path / "settings.toml").max_accuracy_drop == 1.0
    assert "could be 1% or 100%" in refusal(max_accuracy_drop=1.0)


@pytest.mark.parametrize("value", ["%", "5%%", "five", "-1%", "101%", "101", 101])
def test_what_is_no_fraction_is_refused(value: Any) -> None:
    assert refusal(distill=value).startswith("The setting 'distill' is ")


def test_values_of_assignments_are_read_by_what_their_setting_takes() -> None:
    values = assigned(["early-stopping=3", 'at=["a,b", "c"]', "skip=x, y", "size=16x20", "flip=true", "penalty = 2"])
    settings = resolve(model="m", data="d", **values)
    assert (settings.early_stopping, settings.at, settings.skip) == (3, ("a,b", "c"), ("x", "y"))
    assert (settings.size, settings.flip, settings.penalty) == ("16x20", True, 2.0)


@pytest.mark.parametrize(
    ("assignments", "sentence"),
    [
        (["epohcs=1"], "There is no setting named 'epohcs': did you mean epochs?"),
        (["xyz=1"], "There is no setting named 'xyz': python -m deltafine.settings prints all of them."),
        (["epochs"], "--set epochs gives no value: write NAME=VALUE, such as --set warmup=5%."),
        (["epochs="], "--set epochs= gives no value: write NAME=VALUE, such as --set warmup=5%."),
        (
            ["unit=pixel", "granularity=pixel"],
            "The setting 'granularity' is given twice with --set: leave one out.",
        ),
    ],
)
def test_assignments_that_cannot_be_meant_are_refused(assignments: list[str], sentence: str) -> None:
    with pytest.raises(DeltafineError) as caught:
        assigned(assignments)
    assert str(caught.value) == sentence


def test_some_settings_are_checked_without_a_model_and_data() -> None:
    assert checked(epochs="3", seed=None) == {"epochs": 3}
    with pytest.raises(DeltafineError, match="'rule' is 'sometimes'"):
        checked(rule="sometimes")


def test_the_hash_of_settings_is_that_of_runs_made_before_settings_were_renamed() -> None:
    assert as_before().hash() == "8eec024ba09d4c02ed9b79c28b463e086c157548ab14be513284b78b741b0bc5"


@pytest.mark.parametrize(
    ("kept", "places"),
    [
        ("at = []\n", ("activations-only",)),
        ("", ("activations-only",)),
        ('at = ["default", "uncovered"]\n', ("activations-only", "uncovered")),
        ('at = ["relu*"]\n', ("relu*",)),
        ('at = ["worthwhile", "relu*"]\n', ("worthwhile", "relu*")),
    ],
)
def test_a_run_of_an_earlier_version_keeps_its_delta_layers(kept: str, places: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(f'model = "m"\ndata = "d"\n{kept}', "utf-8")
    assert resolve(tmp_path / "settings.toml").places == places


@pytest.mark.parametrize(
    ("at", "places"),
    [
        (None, ("worthwhile",)),
        ([], ("worthwhile",)),
        ("default", ("worthwhile",)),
        (["default", "sum*"], ("worthwhile", "sum*")),
        (["activations-only"], ("activations-only",)),
        (["relu*"], ("relu*",)),
    ],
)
def test_the_default_choice_is_written_down_as_what_it_is_today(
    at: Any, places: tuple[str, ...], tmp_path: Path
) -> None:
    settings = resolve(model="m", data="d", at=at)
    assert settings.places == places
    (tmp_path / "settings.toml").write_text(settings.to_toml(), "utf-8")
    assert resolve(tmp_path / "settings.toml").places == places
    if at is not None:
        (tmp_path / "by_hand.toml").write_text(f'model = "m"\ndata = "d"\nat = {json.dumps(at)}\n', "utf-8")
        assert resolve(tmp_path / "by_hand.toml").places == places


def test_a_run_is_resumed_with_the_words_that_started_it_whatever_they_mean_today(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text('model = "m"\ndata = "d"\nat = ["default", "sum*"]\n', "utf-8")
    wanted = resolve(model="m", data="d", at=["default", "sum*"])
    assert settings_of(tmp_path, wanted, {"at"}).places == ("activations-only", "sum*")
    with pytest.raises(DeltafineError, match="was started with at = "):
        settings_of(tmp_path, resolve(model="m", data="d", at=["sum*"]), {"at"})


def test_the_recipes_on_the_page_are_some() -> None:
    page = Path(__file__).parents[2] / "docs" / "refine.md"
    recipes = re.findall(r"^```toml\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    example, per_pixel = (resolve(model="m", data="d", **tomllib.loads(recipe)) for recipe in recipes)
    assert per_pixel.granularity == "pixel"
    assert per_pixel.carried  # which recalibration needs
    assert example.skip == ("*expand*",)


def test_per_pixel_the_rates_for_classes_need_mirrored_clips() -> None:
    def of_classes(**given: Any) -> tuple[float, float, bool]:
        settings = resolve(model="m", data="d", **given)
        return settings.first_penalty, settings.rate, settings.noisy

    assert of_classes() == of_classes(flip=True) == (60.0, 0.001, True)
    assert of_classes(granularity="pixel") == (2.0, 0.0005, True)
    assert of_classes(granularity="pixel", flip=True) == (20.0, 0.001, True)
    assert of_classes(granularity="pixel", flip=True, recalibrate=3) == (2.0, 0.0005, False)


def test_normalisation_is_kept_with_numbers_and_trained_with_classes_and_in_the_baselines() -> None:
    def kept(**given: Any) -> bool:
        return resolve(model="m", data="d", **given).freezes_batchnorm

    assert kept(task="regression")
    assert kept(task="distill")
    assert not kept()
    assert not kept(granularity="pixel")
    assert not kept(task="regression", method="l1")
    assert kept(freeze_batchnorm=True)
    assert not kept(task="regression", freeze_batchnorm=False)
