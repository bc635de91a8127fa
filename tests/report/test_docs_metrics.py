"""The pages about metrics: every example runs, and every figure has its page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deltafine.document.report import DeltaFigures, LayerFigures, ModelInfo
from deltafine.report.quantities import QUANTITIES

FOLDER = Path(__file__).parents[2] / "docs" / "metrics"
PAGES = sorted(page for page in FOLDER.glob("*.md") if page.name != "index.md")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_of_a_page_run_and_check_something(page: Path) -> None:
    text = page.read_text("utf-8")
    blocks = BLOCK.findall(text)
    assert any("assert " in block for block in blocks)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page.name, "exec"), names)


def test_the_index_links_every_page_and_no_other() -> None:
    linked = re.findall(r"\]\(([a-z-]+\.md)\)", (FOLDER / "index.md").read_text("utf-8"))
    assert sorted(linked) == [page.name for page in PAGES]


def test_every_measured_figure_of_the_document_is_explained() -> None:
    index = (FOLDER / "index.md").read_text("utf-8")
    shares = {
        "activation_density",
        "delta_density",
        "pixel_density",
        "staleness",
        "silent_channels",
        "saturated_channels",
        "thresholds_at_floor",
        "bits",
        "break_even_density",
        "overhead_operations",
    }
    assert shares <= LayerFigures.model_fields.keys() | DeltaFigures.model_fields.keys()
    assert {"coverage", "uncovered"} <= ModelInfo.model_fields.keys()
    for name in (
        [quantity.key.rpartition(".")[2] for quantity in QUANTITIES] + sorted(shares) + ["coverage", "uncovered"]
    ):
        assert f"`{name}`" in index
