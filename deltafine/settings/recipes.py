"""Settings from a recipe, from Python and from the command line: read, checked, refused in one sentence."""

from __future__ import annotations

import difflib
import tomllib
import warnings
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from deltafine.errors import DeltafineError, DeltafineWarning
from deltafine.settings.declaring import is_ambiguous
from deltafine.settings.refine_settings import DECLARED, RENAMED, TODAYS_DEFAULT, RefineSettings
from deltafine.storage import run_files
from deltafine.storage.files import read_small

GivenSettings = dict[str, Any]
"""Values of settings by their names, as they were given."""
MOST_BYTES = 1 << 20
"""Of a recipe."""
TRUSTING = {
    "unsafe_lambda": "which runs Python code stored in the model file",
    "custom_objects": "which imports Python modules",
    "rule": "which imports Python modules",
    "score": "which imports Python modules",
    "allow_outside": "which opens files outside the data folder",
}
"""What no recipe can allow by itself, since recipes come from others."""


def resolve(recipe: str | Path | None = None, *, trusted: Collection[str] = (), **values: Any) -> RefineSettings:
    """Settings from a recipe file, overridden by values given directly (None means not given).

    Args:
        recipe: path of a TOML file.
        trusted: which of ``TRUSTING`` the recipe may ask for, beside those that are given directly.
        values: of the settings.

    Raises:
        DeltafineError: the recipe cannot be read, a name is unknown or a value out of its limits.
    """
    try:
        return RefineSettings.model_validate(_given(recipe, values, trusted))
    except ValidationError as error:
        raise DeltafineError(_one_sentence(error)) from error


def checked(**values: Any) -> GivenSettings:
    """Some settings, checked as those of a run are, without a model and data (None means not given).

    Returns:
        The values by today's names, each in its type.

    Raises:
        DeltafineError: a name is unknown or a value out of its limits.
    """
    settings = resolve(**{"model": "", "data": "", **values})
    return {name: getattr(settings, name) for name in given_names(**values)}


def assigned(assignments: Iterable[str]) -> GivenSettings:
    """Settings given as ``name=value``, as ``--set`` takes them, not checked yet.

    A value is plain text (``frames=16``, ``warmup=5%``, ``skip=a,b``), or a string or a list as in TOML.

    Raises:
        DeltafineError: there is no ``=`` or no such setting, or one is given twice.
    """
    found: GivenSettings = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not value.strip():
            raise DeltafineError(f"--set {assignment} gives no value: write NAME=VALUE, such as --set warmup=5%.")
        if name not in DECLARED and name not in RENAMED:
            raise DeltafineError(unknown(name))
        if RENAMED.get(name, name) in {RENAMED.get(other, other) for other in found}:
            raise DeltafineError(f"The setting '{name}' is given twice with --set: leave one out.")
        found[name] = _as_toml(value.strip())
    return found


def _as_toml(text: str) -> Any:
    """A list or a string as TOML writes it; any other text as it is, to be read by what its setting takes."""
    try:
        read = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return read["value"] if len(read) == 1 and isinstance(read["value"], list | str) else text


def unknown(name: str) -> str:
    """What to say of a name that is no setting's."""
    near = difflib.get_close_matches(name, DECLARED, n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else "python -m deltafine.settings prints all of them."
    return f"There is no setting named '{name}': {hint}"


def given_names(recipe: str | Path | None = None, *, trusted: Collection[str] = (), **values: Any) -> set[str]:
    """Names of the settings that a recipe or the values give, as opposed to those left at their defaults."""
    return set(_given(recipe, values, trusted))


def _given(recipe: str | Path | None, values: GivenSettings, trusted: Collection[str] = ()) -> GivenSettings:
    read = _by_new_names(_read_recipe(Path(recipe)), f"The recipe {recipe}") if recipe is not None else {}
    given = _by_new_names({name: value for name, value in values.items() if value is not None}, "The call")
    for name, value in (*(read.items() if not _kept_by_a_run(recipe) else ()), *given.items()):
        _refuse_one(name, value)
    # A run always says it: where it does not, that is older than the default of today.
    read = {"at": [], **read} if _kept_by_a_run(recipe) else _with_todays_default(read)
    given = _with_todays_default(given)
    for name, what in TRUSTING.items():
        asked = ":" in str(read.get(name)) if name in ("rule", "score") else read.get(name)
        if asked and not given.get(name) and name not in trusted:
            raise DeltafineError(
                f"The recipe {recipe} asks for {name}, {what}: only if you trust whoever wrote it, give "
                f"--{name.replace('_', '-')} as well."
            )
    return {**read, **given}


def _with_todays_default(values: GivenSettings) -> GivenSettings:
    """The values with the word ``default``, and no word, written as what they mean today."""
    at = values.get("at")
    if isinstance(at, str):
        at = [word.strip() for word in at.split(",")]
    if not isinstance(at, list | tuple):
        return values
    return {**values, "at": [TODAYS_DEFAULT if word == "default" else word for word in at] or [TODAYS_DEFAULT]}


def _kept_by_a_run(recipe: str | Path | None) -> bool:
    """Whether a recipe is what a run has written: its values mean what they did."""
    return recipe is not None and Path(recipe).name == run_files.SETTINGS


def _refuse_one(name: str, value: Any) -> None:
    """Refuse a share of 1, which one user means as 1% and another as 100%.

    Raises:
        DeltafineError: it is.
    """
    if name not in DECLARED or DECLARED[name].kind != "fraction":
        return
    # The whole accuracy is nothing that anybody allows to be lost.
    if is_ambiguous(value) or (name == "max_accuracy_drop" and value == 1 and not isinstance(value, str)):
        raise DeltafineError(f"The setting '{name}' is {value!r}, which could be 1% or 100%: write '1%' or '100%'.")


def _by_new_names(values: GivenSettings, where: str) -> GivenSettings:
    """The values by the names that settings have today; old ones are said, but not of what a run has kept itself.

    Raises:
        DeltafineError: A setting is given by both of its names.
    """
    if both := [(old, new) for old, new in RENAMED.items() if old in values and new in values]:
        old, new = both[0]
        raise DeltafineError(f"{where} gives '{new}' and '{old}', which is its old name: leave '{old}' out.")
    old_names = [name for name in values if name in RENAMED]
    if old_names and not where.endswith(run_files.SETTINGS):
        said = ", ".join(f"'{old}' is called '{RENAMED[old]}' now" for old in old_names)
        warnings.warn(f"{where} uses old names of settings: {said}.", DeltafineWarning, stacklevel=2)
    return {RENAMED.get(name, name): value for name, value in values.items()}


def _read_recipe(path: Path) -> GivenSettings:
    try:
        return tomllib.loads(read_small(path, MOST_BYTES).decode("utf-8"))
    except OSError as error:
        raise DeltafineError(f"Cannot read the recipe {path}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DeltafineError(f"The recipe {path} is not valid TOML: {reason}.") from error


def _one_sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    name = ".".join(str(key) for key in first["loc"]) or "settings"
    if first["type"] == "extra_forbidden":
        return unknown(name)
    if first["type"] == "missing":
        return f"The setting '{name}' is missing: give it."
    if first["type"] == "value_error" and first["loc"]:
        return f"The setting '{name}' cannot be used: {first['ctx']['error']}."
    if first["type"] == "value_error":
        return f"The settings do not go together: {first['ctx']['error']}."
    value = repr(first["input"])
    shown = value if len(value) < 100 else f"{value[:100]}..."
    reason = first["msg"] if first["type"] in ("rule", "score") else first["msg"].lower()  # which names a class
    return f"The setting '{name}' is {shown}, which cannot be used: {reason}."
