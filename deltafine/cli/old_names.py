"""Options by the names that they had in earlier versions: still understood, with a word that they are old."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from deltafine.errors import DeltafineWarning

OPTIONS = {
    "--unit": "--granularity",
    "--head": "--clip-output",
    "--step-per": "--threshold-per",
    "--relative-step": "--relative-threshold",
    "--step-learning-rate": "--threshold-learning-rate",
}
"""Old names of options and what they are called now, as in ``deltafine.settings.RENAMED``."""
FORMATS = (("--format", "steps"), ("-f", "steps"))
"""How ``export`` was asked for the table of thresholds."""


def with_new_names(arguments: Sequence[str]) -> list[str]:
    """The arguments of the command line, without the program's name, with options by their names of today."""
    renamed = []
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        before = arguments[place - 1] if place else ""
        if name in OPTIONS:
            _say(name, OPTIONS[name])
            argument = f"{OPTIONS[name]}{equals}{value}"
        elif arguments[0] == "export" and (argument == "--format=steps" or (before, argument) in FORMATS):
            _say("--format steps", "--format thresholds")
            argument = argument.replace("steps", "thresholds")
        renamed.append(argument)
    return renamed


def _say(old: str, new: str) -> None:
    warnings.warn(f"{old} is an old name: use {new}.", DeltafineWarning, stacklevel=3)
