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
from deltafine.settings import RefineSettings, given_names, resolve

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
        ("distill", 1.5),
    ],
)
def test_a_value_out_of_its_limits_is_refused_by_name(name: str, value: Any) -> None:
    sentence = refusal(**{name: value})
    assert sentence.startswith(f"The setting '{name}' is {value!r}, which does not do: ")
    assert "\n" not in sentence


def test_settings_that_do_not_go_together_are_refused_in_words() -> None:
    assert refusal(method="paper", granularity="pixel") == (
        "The settings do not go together: method 'paper' works on elements, not on granularity 'pixel'."
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


def default_in_words(name: str) -> str:
    field = RefineSettings.model_fields[name]
    if field.is_required():
        return "required"
    if field.default is None or isinstance(field.default, str):
        return field.default or "none"
    return json.dumps(field.default)


def test_the_page_describes_every_setting_in_order_with_its_default() -> None:
    page = Path(__file__).parents[2] / "docs" / "refine.md"
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*?) \| .+ \|$", page.read_text("utf-8"), re.MULTILINE)
    known = [(name, default) for name, default in rows if name in RefineSettings.model_fields]
    assert known == [(name, default_in_words(name)) for name in RefineSettings.model_fields]


def test_the_recipes_on_the_page_are_some() -> None:
    page = Path(__file__).parents[2] / "docs" / "refine.md"
    recipes = re.findall(r"^```toml\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    example, by_pixels = (resolve(model="m", data="d", **tomllib.loads(recipe)) for recipe in recipes)
    assert by_pixels.granularity == "pixel"
    assert by_pixels.carried  # which finding steps anew takes
    assert example.skip == ("*expand*",)
