"""The pages about delta layers: every example runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["how-it-works.md", "training-from-scratch.md"])
def test_the_examples_of_a_page_run_one_after_the_other(page):
    blocks = BLOCK.findall((FOLDER / page).read_text("utf-8"))
    assert any("assert " in block for block in blocks)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
