"""The report as Markdown, read back by a real Markdown parser."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from deltafine.report import render
from deltafine.report.compare import compare
from deltafine.report.formats import markdown
from deltafine.report.gate import Gate, check
from deltafine.report.text import clean
from tests.report.builders import make_report

PARSER = MarkdownIt("commonmark").enable("table").enable("strikethrough")
HOSTILE = ["<b>x</b>", "a|b", "`tick` ``two``", "**bold** [link](http://x)", "![i](x) @someone #1", "\x1b[31m\n# head"]


def inlines(text: str) -> list[Token]:
    return [child for token in PARSER.parse(text) for child in token.children or []]


def cells(text: str, first: str) -> list[str]:
    """The texts of the table row whose first cell is `first`."""
    row: list[str] = []
    rows: list[list[str]] = []
    for token in PARSER.parse(text):
        if token.type == "tr_open":
            rows.append(row := [])
        elif token.type == "inline" and token.level == 4:  # in a table's cell
            row.append("".join(child.content for child in token.children or []))
    return next(found for found in rows if found and found[0] == first)


def test_the_three_models_stand_in_one_row() -> None:
    assert cells(render(make_report(), "markdown"), "MAC density") == ["MAC density", "62.4%", "19.7%", "11.0%"]


def test_intervals_stand_beside_their_figure() -> None:
    assert cells(render(make_report(), "markdown"), "Change, points")[-1] == "-0.4 [-1.2, +0.5]"


@pytest.mark.parametrize("name", HOSTILE[:5])
def test_a_name_is_one_cell_of_plain_text_whatever_it_holds(name: str) -> None:
    text = render(make_report(layer_names=[name, *"bcdef"]), "markdown")
    assert len(cells(text, name)) == 7


def test_names_make_no_markup_anywhere() -> None:
    report = make_report(layer_names=HOSTILE, title=HOSTILE[0], warnings=HOSTILE)
    report.data.path = HOSTILE[2]
    comparison = compare(report, report, HOSTILE[3])
    text = render(
        report,
        "markdown",
        comparisons=[comparison],
        checks=check(report, Gate({"max-regression": 0.0}), [comparison]),
    )
    kinds = {token.type for token in inlines(text)}
    assert kinds <= {"text", "code_inline", "strong_open", "strong_close", "softbreak", "text_special"}
    headings = [token for token in PARSER.parse(text) if token.type == "heading_open"]
    assert len(headings) == 6


@settings(deadline=None)
@given(st.text())
@example("\\")
@example("*a*")
@example("&amp;")
def test_escaped_prose_is_shown_as_it_was_written(text: str) -> None:
    shown = "".join(token.content for token in inlines("x " + markdown.prose(text) + " x"))
    assert shown.split() == ("x " + clean(text) + " x").split()


@settings(deadline=None)
@given(st.text())
@example("`")
@example("``` `")
@example(" ")
def test_a_code_span_holds_exactly_its_name(name: str) -> None:
    spans = [token for token in inlines("x" + markdown.code(name) + "x") if token.type == "code_inline"]
    assert [span.content.strip() for span in spans] == [clean(name).strip()]


def test_the_gate_and_the_baselines_come_before_the_figures() -> None:
    report = make_report()
    comparison = compare(report, report, "old/run")
    text = render(report, "markdown", comparisons=[comparison], checks=check(report, Gate({"min-sparsity": 0.99})))
    assert text.index("Gate: 1 of 1 not met") < text.index("Against `old/run`") < text.index("Continuous streams\n")
    assert cells(text, "❌") == ["❌", "delta sparsity", "88.4%", "at least 99.0%"]
