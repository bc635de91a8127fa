"""The pages for users: all commands and options are described, those shown exist, and links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from deltafine.cli import app
from deltafine.settings import DECLARED, RENAMED, TAKES

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands


def options(command: Any) -> set[str]:
    return {text for parameter in command.params for text in parameter.opts if text.startswith("--")}


def options_of_settings(name: str) -> set[str]:
    """Those that docs/settings.md describes, and the old names of settings, which no page does."""
    taken = [DECLARED[setting].option for setting in TAKES.get(name, ())]
    return {*taken, *(f"--{old.replace('_', '-')}" for old in RENAMED)}


def section(name: str) -> str:
    """The part of docs/cli.md about one command."""
    text = (ROOT / "docs" / "cli.md").read_text("utf-8")
    found = re.search(rf"^## deltafine {name}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"docs/cli.md says nothing of deltafine {name}"
    return found[1]


def shown_commands(text: str) -> list[str]:
    """The lines of code blocks that call deltafine; a line of prose may begin with its name, too."""
    pieces = re.split(r"^```.*$", text, flags=re.MULTILINE)
    prose, fenced = "\n".join(pieces[::2]), "\n".join(pieces[1::2])
    return re.findall(r"^(?: {4}|\$ )(deltafine [a-z].*)$", prose, re.MULTILINE) + re.findall(
        r"^ *(?:\$ |exec )?(deltafine [a-z].*)$", fenced, re.MULTILINE
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_is_described(name: str) -> None:
    described = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", section(name)))
    assert options(COMMANDS[name]) - options_of_settings(name) - {"--help"} <= described


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_a_page_shows_exist_with_their_options(page: Path) -> None:
    for line in shown_commands(page.read_text("utf-8")):
        _, name, *rest = shlex.split(line, comments=True)
        assert name in COMMANDS, line
        given = {word.split("=")[0] for word in rest if word.startswith("--")}
        assert given <= options(COMMANDS[name]), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings_that_are_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        if anchor:
            text = re.sub(r'^--8<-- "(.+)"$', lambda found: (ROOT / found[1]).read_text("utf-8"),
                          file.read_text("utf-8"), flags=re.MULTILINE)  # fmt: skip
            headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}, (
                target
            )
