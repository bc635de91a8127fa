"""Recipes, reports and lists of strangers: taken, or refused in a sentence; and what is shown of them only shows."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import strategies as st
from rich.console import Console

from deltafine.document.report import Picture
from deltafine.report import load_report, render, terminal
from deltafine.report.compare import compare
from deltafine.report.gate import check, read_gate
from deltafine.report.store import json_text
from deltafine.settings import RefineSettings, resolve
from deltafine.video import open_dataset
from tests.fuzz.harness import FEW, MANY, fuzz
from tests.fuzz.mutations import HOSTILE, Blob, changed_bytes, changed_tree
from tests.report.builders import controls, make_report

how_many = pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""What a terminal or a page would obey instead of show; but for line feeds and tabs."""


def both(counts: Counter[str], examples: int) -> None:
    """Some were taken, some refused: neither is the other's default."""
    assert sum(counts.values()) == examples
    assert min(counts["taken"], counts["refused"]) > examples / 50


RECIPE = RefineSettings(model="m.keras", data="d", classes=("a", "b"), skip=("x*",), target_macs=0.1).to_toml()
VALUES = [
    "1e400",
    "nan",
    "-1",
    "9" * 5000,
    '"\\u001b[31m"',
    "[" * 5000,
    "{}",
    "[[1]]",
    "1979-05-27",
    "true",
    '""',
    "0x",
    "''",
]


@st.composite
def recipes(draw: st.DrawFn) -> bytes:
    """A recipe with some values replaced, or bytes changed."""
    if draw(st.booleans()):
        return draw(changed_bytes([RECIPE.encode()]))
    lines = RECIPE.splitlines()
    for _ in range(draw(st.integers(1, 2))):
        place = draw(st.integers(0, len(lines) - 1))
        lines[place] = f"{lines[place].partition('=')[0]}= {draw(st.sampled_from(VALUES))}"
    return "\n".join(lines).encode()


@how_many
def test_recipes(tmp_path: Path, examples: int) -> None:
    file = tmp_path / "recipe.toml"

    def read(content: bytes) -> None:
        file.write_bytes(content)
        assert resolve(file, model="m.keras", data="d").model == "m.keras"

    both(fuzz(recipes(), read, examples), examples)


def document() -> Any:
    pictures = [Picture(file="a.png", video="v", caption="c")]
    return json.loads(json_text(make_report(pictures=pictures, controls=controls())))


@st.composite
def reports(draw: st.DrawFn) -> bytes:
    """A report with values replaced, or bytes changed; most of its text hostile."""
    tree = document()
    how = draw(st.sampled_from(["bytes", "names", "names and values"]))
    if how == "bytes":
        return draw(changed_bytes([json.dumps(tree).encode()]))
    names = [value for value in HOSTILE if isinstance(value, str) and value != "\ud800"]
    tree["title"] = draw(st.sampled_from(names))
    tree["data"]["path"] = draw(st.sampled_from(names))
    for part in (*tree["sites"], *tree["data"]["problems"], *tree["models"]["refined"]["streams"]["layers"]):
        key = "video" if "video" in part else "name"
        part[key] = draw(st.sampled_from([part[key], *names]))
    if how == "names and values":
        tree = draw(changed_tree([tree]))
    return Blob(json.dumps(tree).encode("utf-8", "surrogatepass"))


def show(report: Any, other: Any) -> None:
    """Show a report in every way, and look at what is shown."""
    comparisons = [compare(report, other, "other", force=True)]
    checks = check(report, read_gate(None, {"min-sparsity": "0.5", "max-macs-ratio": "0.5"}), comparisons)
    screen = Console(file=io.StringIO(), width=100, force_terminal=False)
    terminal.show(report, screen)
    terminal.show_comparison(comparisons[0], screen)
    terminal.show_checks(checks, screen)
    page = render(report, "html", comparisons=comparisons, checks=checks)
    xml = render(report, "junit", checks=checks)
    texts = (screen.file.getvalue(), render(report, "markdown", comparisons=comparisons, checks=checks), page, xml)  # type: ignore[attr-defined]
    for text in (*texts, render(report, "csv"), render(report, "csv", comparisons=comparisons), json_text(report)):
        assert not CONTROL.search(text), CONTROL.search(text)
        assert not any(line.startswith("::error::b") for line in text.splitlines())
    ElementTree.fromstring(xml)
    assert "<img src=x" not in page
    assert "</script><img" not in page
    assert json.loads(json_text(report))["title"] == report.title


@how_many
def test_reports(tmp_path: Path, examples: int) -> None:
    file = tmp_path / "report.json"
    whole = make_report()

    def read(content: bytes) -> None:
        file.write_bytes(content)
        show(load_report(file), whole)

    both(fuzz(reports(), read, examples), examples)


ROWS: Sequence[dict[str, Any]] = [
    {"path": "a/one.avi", "label": "run", "split": "train", "start": 0, "end": 1.5},
    {"path": "b/two.avi", "label": "walk", "split": "validation"},
    {"path": "a/one.avi", "label": "walk", "split": "train", "start": 1.5, "end": 3},
]
CSV = "path,label,target,split,start,end\na/one.avi,run,0,train,0,1.5\nb/two.avi,walk,1,validation,,\n"


@st.composite
def manifests(draw: st.DrawFn) -> tuple[str, bytes]:
    """The suffix of a list, and the list."""
    kind = draw(st.sampled_from(["csv", "jsonl bytes", "jsonl"]))
    if kind == "csv":
        return ".csv", draw(changed_bytes([CSV.encode()]))
    lines = "\n".join(json.dumps(row) for row in ROWS).encode()
    if kind == "jsonl bytes":
        return ".jsonl", draw(changed_bytes([lines]))
    rows = draw(changed_tree([[dict(row, target=number) for number, row in enumerate(ROWS)]]))
    return ".jsonl", "\n".join(json.dumps(row) for row in rows).encode("utf-8", "surrogatepass")


@how_many
def test_manifests(tmp_path: Path, examples: int) -> None:
    for name in ("a/one.avi", "b/two.avi"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(name.encode())

    def read(content: tuple[str, bytes]) -> None:
        file = tmp_path / f"manifest{content[0]}"
        file.write_bytes(content[1])
        data = open_dataset(file)
        assert data.summary()
        assert all(tmp_path in video.path.parents for video in data.videos)

    both(fuzz(manifests(), read, examples), examples)
