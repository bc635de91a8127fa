"""Options made from the declarations of settings."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from deltafine.cli.completion import completing, offering
from deltafine.errors import DeltafineError, DeltafineWarning
from deltafine.settings import DECLARED, RENAMED, TAKES, Declared, GivenSettings, choices_shown
from deltafine.settings.rule_names import BUILT_IN_RULES
from deltafine.settings.score_names import BUILT_IN_SCORES


def takes_settings(
    command: str, *, panel: str | None = None, defaults: bool = True, without_default: Collection[str] = ()
) -> Callable[[Any], Any]:
    """Give a command the options of the settings it takes, after its own; ``**settings`` gets those that are given.

    Args:
        command: a name in ``TAKES``.
        panel: the heading that they stand under; those of `refine` have headings of their own.
        defaults: whether their defaults are shown; not where they come from somewhere else.
        without_default: settings that are not looked at unless they are given.
    """
    declared = [DECLARED[name] for name in TAKES[command]]
    everything = command == "refine"
    names = {one.name for one in declared}
    made = [
        _option(
            one,
            one.panel if everything else panel,
            defaults=defaults and one.name not in without_default,
            listed=one.common or not everything,
        )
        for one in declared
    ]
    made += [_old_option(old, DECLARED[new]) for old, new in RENAMED.items() if new in names]

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(function, include_extras=True)
        own = [
            parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
            for name, parameter in inspect.signature(function).parameters.items()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        known = [parameter.name for parameter in own]

        def called(**values: Any) -> None:
            given = {
                name: value for name, value in values.items() if name not in known and value not in (None, False, [])
            }
            settings = {name: _as_given(name, value) for name, value in _by_new_names(given).items()}
            function(**{name: values[name] for name in known if name in values}, **settings)

        parameters = [*own, *made]
        called.__name__, called.__doc__ = function.__name__, function.__doc__
        called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return called

    return decorate


def format_option(names: tuple[str, ...], help: str) -> Any:
    """``--format``, one of these names or one of the user's own."""
    return typer.Option("--format", "-f", metavar=choices_shown(names), help=help, autocompletion=offering(names))


def _by_new_names(given: GivenSettings) -> GivenSettings:
    """Options by the names that settings have today; old ones are said.

    Raises:
        DeltafineError: an option is given by both of its names.
    """
    for old, new in ((old, new) for old, new in RENAMED.items() if old in given):
        said = f"{_option_name(old)} is an old name"
        if new in given:
            raise DeltafineError(f"{said} of {_option_name(new)}, which is given as well: leave it out.")
        warnings.warn(f"{said}: use {_option_name(new)}.", DeltafineWarning, stacklevel=2)
    return {RENAMED.get(name, name): value for name, value in given.items()}


def _option_name(setting: str) -> str:
    return f"--{setting.replace('_', '-')}"


def _option(one: Declared, panel: str | None, *, defaults: bool, listed: bool) -> inspect.Parameter:
    default = f" (default {one.default})" if defaults and _worth_saying(one) else ""
    return _parameter(
        one.name,
        one,
        typer.Option(
            one.option,
            metavar=None if one.kind == "flag" else one.metavar,
            help=f"{one.brief}{default}.",
            rich_help_panel=panel,
            hidden=not (listed or completing()),
            autocompletion=offering(choices) if (choices := _choices(one)) else None,
        ),
    )


def _choices(one: Declared) -> Iterable[str]:
    """Names that a value may be."""
    return one.choices or {"rule": BUILT_IN_RULES, "score": BUILT_IN_SCORES}.get(one.name, ())


def _old_option(old: str, one: Declared) -> inspect.Parameter:
    return _parameter(old, one, typer.Option(_option_name(old), help=f"Old name of {one.option}.", hidden=True))


def _parameter(name: str, one: Declared, option: Any) -> inspect.Parameter:
    kinds: dict[str, Any] = {"flag": bool, "list": list[str] | None}
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=False if one.kind == "flag" else None,
        annotation=Annotated[kinds.get(one.kind, str | None), option],
    )


def _worth_saying(one: Declared) -> bool:
    """A flag is off and a list empty unless given; what has a link is for the documentation."""
    return one.kind not in ("flag", "list") and one.default != "none" and "](" not in one.default


def _as_given(name: str, value: Any) -> Any:
    """What a user typed, as a recipe would have it; what it must be, the settings check."""
    one = DECLARED[name]
    if one.kind == "list":
        return tuple(_split(value)) if "," in one.metavar else tuple(value)
    return str(Path(value)) if one.metavar == "DIR" else value


def _split(texts: Iterable[str]) -> Iterable[str]:
    return (word.strip() for text in texts for word in text.split(","))


def as_arguments(settings: GivenSettings) -> list[str]:
    """Settings that a command was given, as arguments for the same command in another process."""
    arguments = []
    for name, value in settings.items():
        one = DECLARED[RENAMED.get(name, name)]
        values = [",".join(value)] if "," in one.metavar else value if isinstance(value, tuple) else [value]
        arguments += [one.option] if value is True else [f"{one.option}={value}" for value in values]
    return arguments
