"""How a setting is declared: its type, default, limits and help, and where it is shown."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BeforeValidator, Field, JsonValue
from pydantic.fields import FieldInfo


def share_of(value: Any) -> Any:
    """A share as a number: ``"5%"``, ``"5"`` and 5 as 0.05, exactly as if that were written; anything else as it is."""
    try:
        if isinstance(value, str) and value.strip().endswith("%"):
            return float(Decimal(value.strip().removesuffix("%").rstrip()) / 100)
        number = Decimal(str(value)) if isinstance(value, int | float | str) and value is not True else None
    except InvalidOperation:
        return value
    return float(number / 100) if number is not None and number.is_finite() and number > 1 else value


def seconds_of(value: Any) -> Any:
    """A length of time in seconds: ``"20m"``, ``"1h30m"`` and ``"90s"`` as 1200, 5400 and 90; a number as it is.

    Raises:
        ValueError: text that is neither; a number without a unit, which could be seconds or minutes.
    """
    if not isinstance(value, str):
        return value
    found = _TIME.fullmatch(value.strip().lower())
    if found is None or not any(found.groups()):
        raise ValueError(f"{value!r} is no length of time: write 90s, 20m or 1h30m")
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return 3600 * hours + 60 * minutes + seconds


def is_ambiguous(value: Any) -> bool:
    """Whether a share is given as 1, which could be 1% or 100%; a number that is written 1.0 is the whole."""
    if isinstance(value, str):
        try:
            return Decimal(value.strip()) == 1
        except InvalidOperation:
            return False
    return isinstance(value, int) and not isinstance(value, bool) and value == 1


def _listed(value: Any) -> Any:
    return tuple(word.strip() for word in value.split(",")) if isinstance(value, str) else value


def _path(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


_TIME = re.compile(r"(?:([\d.]+)h)?\s*(?:([\d.]+)m(?:in)?)?\s*(?:([\d.]+)s)?")
_NARROW = 22
"""Characters of a column of ``--help``."""
_A_SHARE = BeforeValidator(share_of)
Share = Annotated[float, _A_SHARE]
"""A share of a whole, written ``0.05``, ``"5%"`` or ``5``."""
_A_TIME = BeforeValidator(seconds_of)
Seconds = Annotated[float, _A_TIME]
"""A length of time, written ``"20m"``; as a number, in seconds."""
Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]
"""Several names: a list, or text with commas."""
PathText = Annotated[str, BeforeValidator(_path)]


def setting(
    default: Any = ...,
    *,
    help: str,
    panel: str,
    common: bool = False,
    metavar: str = "",
    unset: str = "",
    **limits: Any,
) -> Any:
    """Declare a setting: a field of pydantic that knows how it is shown.

    Args:
        default: ``...`` if it must be given.
        help: the first sentence is shown by ``--help``, all of it in the documentation.
        panel: under which heading it is shown.
        common: ``--help`` lists it; other settings have an option as well, which is not listed.
        metavar: what stands for the value; found from the type if empty. A list in one option has commas in it.
        unset: what ``None`` stands for.
        limits: ``gt``, ``ge``, ``lt``, ``le`` of pydantic.
    """
    shown: dict[str, JsonValue] = {"panel": panel, "common": common, "metavar": metavar, "unset": unset}
    return Field(default, description=help, json_schema_extra={"shown": shown}, **limits)


@dataclass(frozen=True)
class Declared:
    """A setting as it is shown.

    Attributes:
        name: in a recipe and in Python.
        kind: of its values.
        help: what it means, in one or more sentences.
        panel: the heading that it stands under.
        common: whether ``--help`` lists it.
        metavar: what stands for its value.
        choices: its values, where they are few.
        default: in words.
        limits: in words; "" where there are none.
    """

    name: str
    kind: Literal["flag", "whole number", "number", "fraction", "time", "text", "list", "choice"]
    help: str
    panel: str
    common: bool
    metavar: str
    choices: tuple[str, ...]
    default: str
    limits: str

    @classmethod
    def of(cls, name: str, field: FieldInfo) -> Declared:
        """What the declaration of a field says."""
        shown: Any = field.json_schema_extra["shown"]  # type: ignore[call-overload,index]
        kind, choices = _kind(field)
        metavars = {
            "whole number": "N",
            "number": "NUMBER",
            "fraction": "FRACTION",
            "time": "TIME",
            "choice": choices_shown(choices),
        }
        return cls(
            name=name,
            kind=kind,
            help=field.description or "",
            panel=shown["panel"],
            common=shown["common"],
            metavar=shown["metavar"] or metavars.get(kind, "TEXT"),
            choices=choices,
            default=_default(field, shown["unset"]),
            limits=_limits(field, whole=kind == "whole number"),
        )

    @property
    def option(self) -> str:
        """Of the command line."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def brief(self) -> str:
        """The first sentence, without its full stop."""
        return self.help.partition(". ")[0].rstrip(".")


def _kind(field: FieldInfo) -> tuple[Any, tuple[str, ...]]:
    declared = [*_annotations(field.annotation), *field.metadata]
    literals = [one for one in declared if get_origin(one) is Literal]
    if literals:
        return "choice", get_args(literals[0])
    if any(get_origin(one) is tuple for one in declared):
        return "list", ()
    if any(one is _A_SHARE for one in declared):
        return "fraction", ()
    if any(one is _A_TIME for one in declared):
        return "time", ()
    words = {bool: "flag", int: "whole number", float: "number", str: "text"}
    return next(word for kind, word in words.items() if kind in declared), ()


def _annotations(annotation: Any) -> Iterator[Any]:
    """An annotation and all that it is made of."""
    yield annotation
    for inner in get_args(annotation) if get_origin(annotation) is not Literal else ():
        yield from _annotations(inner)


def choices_shown(choices: tuple[str, ...]) -> str:
    """Of an option, in ``--help``."""
    short = f"[{'|'.join(choices)}]"
    return short if len(short) <= _NARROW else f"[{' | '.join(choices)}]"  # which can be wrapped


def _default(field: FieldInfo, unset: str) -> str:
    if field.is_required():
        return "required"
    if field.default is None or isinstance(field.default, tuple):
        return unset or "none"
    if isinstance(field.default, str):
        return field.default
    return json.dumps(field.default) if isinstance(field.default, bool) else f"{field.default:g}"


def _limits(field: FieldInfo, whole: bool) -> str:
    bounds = {
        name: getattr(limit, name)
        for limit in field.metadata
        for name in ("ge", "gt", "le", "lt")
        if getattr(limit, name, None) is not None
    }
    if whole and "lt" in bounds:
        bounds["le"] = bounds.pop("lt") - 1
    if {"ge", "le"} <= bounds.keys():
        return f"{bounds['ge']} to {bounds['le']}"
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    return ", ".join(f"{words[name]} {bound}" for name, bound in bounds.items())
