"""Tables that fit a terminal, and what becomes of those that do not."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.text import Text

from deltafine.report.folding import add_figures, add_names, print_table, table

ROWS = (("conv_0", "433 k", "-"), ("  95% interval", "[99.1%, 100.0%]", "+0.0 points"))


def printed(width: int, *, tty: bool = False, rows: tuple[tuple[str, ...], ...] = ROWS) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=tty, color_system=None)
    made = table(console)
    add_names(made, "layer")
    add_figures(made, "MACs", "change")
    for row in rows:
        made.add_row(*map(Text, row))
    print_table(made, console)
    return stream.getvalue()


@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize("width", range(25, 81, 5))
def test_at_every_width_lines_fit_and_no_figure_is_broken(width: int, tty: bool) -> None:
    shown = printed(width, tty=tty)
    assert max(map(len, shown.splitlines())) <= width
    for figure in ("433 k", "[99.1%, 100.0%]", "+0.0 points"):
        assert figure in shown


def test_a_row_that_does_not_fit_says_what_each_figure_is_and_leaves_out_what_was_not_measured() -> None:
    assert printed(36).splitlines() == [
        "layer conv_0: MACs 433 k",
        "layer 95% interval:",
        "  MACs [99.1%, 100.0%],",
        "  change +0.0 points",
    ]


def test_a_name_that_is_longer_than_the_line_goes_on_in_the_next() -> None:
    shown = printed(20, rows=(("n" * 50, "1", "2"),))
    assert shown.replace("change", "").count("n") == 50
    assert max(map(len, shown.splitlines())) <= 20
