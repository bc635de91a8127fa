"""The page of the documentation that lists all settings, made from their declarations."""

from __future__ import annotations

from itertools import groupby

from deltafine.settings.commands import TAKES
from deltafine.settings.declaring import Declared
from deltafine.settings.refine_settings import DECLARED

RENEW = "python -m deltafine.settings > docs/settings.md"
_TOP = f"""\
<!-- Made from deltafine/settings/declarations.py, change that: {RENEW} -->

# Settings

Every setting of `deltafine refine`. There are four ways to give one; they take the same names, values and limits:

| where | how |
|---|---|
| option | `--target-macs 5%`; `deltafine refine --help` lists the common ones, all others have an option as well |
| any setting | `--set target_macs=5%`, which may be repeated |
| [recipe](refine.md#recipes) | `target_macs = "5%"` in a TOML file, given with `--recipe` |
| Python | `deltafine.refine(model, data, out, target_macs="5%")` |

Options and `--set` override the recipe. A fraction is a number or a percentage: `0.05` and `5%` are the same. A number
above 1 is a percentage: `5` is `5%`. `1` is refused, because it could be either: write `1%` or `100%`. (In a recipe and
in Python, `1.0` is 100%, except for `max_accuracy_drop`.) A list is `a,b` with `--set`, `["a", "b"]` in a recipe, and
an option that is repeated. A flag is an option without a value, or `true` or `false`. `--help` of each command lists
what it takes, see [other commands](#other-commands).
"""
_OTHERS = """\
Other commands have options for some of these settings, with the same names and limits. `report` has them for measuring
a model, with `--data`. A model in the directory of a run is measured with the settings of that run unless others are
given; see [measuring a model](report.md#measuring-any-model). `export` and `bench` take the frames of the
validation videos if `cache` is given, because a run has kept these.
"""


def page() -> str:
    """The page as Markdown."""
    sections = [_TOP]
    by_panel = sorted(DECLARED.values(), key=lambda one: _order(one.panel))
    for panel, settings in groupby(by_panel, key=lambda one: one.panel):
        rows = "\n".join(map(_row, settings))
        sections.append(f"\n## {panel}\n\n| setting | values | default | meaning |\n|---|---|---|---|\n{rows}\n")
    return "".join([*sections, _by_command()])


def _by_command() -> str:
    """Which of the other commands takes which settings."""
    commands = [command for command in TAKES if command != "refine"]
    taken = [name for name in DECLARED if any(name in TAKES[command] for command in commands)]
    rows = "\n".join(
        f"| `{name}` | {' | '.join('yes' if name in TAKES[command] else '' for command in commands)} |"
        for name in taken
    )
    header = f"| setting | {' | '.join(f'`{command}`' for command in commands)} |\n|---|{'---|' * len(commands)}"
    return f"\n## Other commands\n\n{_OTHERS}\n{header}\n{rows}\n"


def _order(panel: str) -> int:
    return [one.panel for one in DECLARED.values()].index(panel)


def _row(one: Declared) -> str:
    values = ", ".join(f"`{choice}`" for choice in one.choices) or one.kind
    limits = f"{values}, {one.limits}" if one.limits else values
    return f"| `{one.name}` | {limits} | {one.default} | {one.help} |"
