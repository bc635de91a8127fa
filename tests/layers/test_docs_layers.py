"""The pages about delta layers: every example runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs"
CONTRIBUTING = FOLDER.parent / "CONTRIBUTING.md"
FILE = re.compile(r'^```python title="(.+?)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["how-it-works.md", "training-from-scratch.md"])
def test_the_examples_of_a_page_run_one_after_the_other(page):
    blocks = BLOCK.findall((FOLDER / page).read_text("utf-8"))
    assert any("assert " in block for block in blocks)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)


def test_a_rule_of_ones_own_is_one_file_and_works_everywhere(tmp_path, monkeypatch):
    section = re.split("^### ", CONTRIBUTING.read_text("utf-8"), flags=re.MULTILINE)
    (text,) = (part for part in section if part.startswith("A rule\n"))
    ((name, code),) = FILE.findall(text)
    (tmp_path / name).write_text(code, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    blocks = BLOCK.findall(text)
    assert len(blocks) == 4
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "CONTRIBUTING.md", "exec"), names)
