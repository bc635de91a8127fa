"""The language of the pages for users: lines that fit, and words of the field instead of private ones."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LONGEST = 120
RETIRED = {
    "anew": "again, or from scratch",
    "afresh": "again, or from scratch",
    "runs away": "diverges",
    "stranger": "someone whom you do not know",
    "by pixels": "per-pixel",
    "by elements": "per-element",
    "came to": "reached, or had",
    "step size": "threshold",
    "for ever": "permanently",
    "end of time": "an input that has no time axis any more",
    "made-up": "generated",
}
"""Words that no page uses any more, and what to write instead."""


def prose(text: str) -> str:
    """A page without its fenced code blocks; their lines stay, empty, so that line numbers hold."""
    return re.sub(r"^```.*?^```$", lambda block: "\n" * block[0].count("\n"), text, flags=re.MULTILINE | re.DOTALL)


def too_long(text: str) -> list[str]:
    """Lines of prose beyond 120 characters; tables and indented code cannot be broken, nor can the target of a link."""
    found = []
    for number, line in enumerate(prose(text).split("\n"), start=1):
        shown = re.sub(r"\]\([^)]*\)", "]", line)
        if len(shown) > LONGEST and not line.startswith(("|", "    ")):
            found.append(f"line {number} has {len(line)} characters: {line[:60]}...")
    return found


def retired_words(text: str) -> list[str]:
    """Retired words in a text, also where a line ends within one, with what to write instead."""
    joined = " ".join(text.split())
    return [
        f"'{word}': write {instead}"
        for word, instead in RETIRED.items()
        if re.search(rf"\b{word}s?\b", joined, re.IGNORECASE)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_line_of_a_page_is_too_long(page: Path) -> None:
    assert too_long(page.read_text("utf-8")) == []


def accidental_lists(text: str) -> list[str]:
    """Lines within a paragraph that Markdown takes for entries of a list, as they begin with a minus or plus sign."""
    return [
        line
        for before, line in pairwise(prose(text).split("\n"))
        if re.match(r"[-+*] ", line) and not re.match(r"$|\s*[-+*] |  |#|.*:$", before)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_sentence_of_a_page_becomes_a_list(page: Path) -> None:
    assert accidental_lists(page.read_text("utf-8")) == []


def test_a_sentence_that_becomes_a_list_is_found() -> None:
    assert accidental_lists("Let u = |x\n- y| be\n\n- one\n- two\n  lines\n- three\n") == ["- y| be"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_uses_a_retired_word(page: Path) -> None:
    assert retired_words(page.read_text("utf-8")) == []


def test_a_long_line_and_a_retired_word_are_found() -> None:
    long = "word " * 25
    assert too_long(f"{long}\n")
    assert not too_long(f"| {long}|\n    {long}\n```\n{long}\n```\n[a]({long})\n")
    assert retired_words("A network that is\ncomputed Anew, runs\naway and surprises strangers.") == [
        "'anew': write again, or from scratch",
        "'runs away': write diverges",
        "'stranger': write someone whom you do not know",
    ]
    assert not retired_words("A renewed frame became tolerable in steps of one size.")
