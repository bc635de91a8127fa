"""Tables in a terminal, folded to lines where the terminal is too narrow for them: no figure is ever cut."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from deltafine.report.text import ABSENT, clean

_NAME_WIDTH = 12
"""Columns that a name keeps at least; the rest of it goes to further lines of its cell."""


def table(console: Console) -> Table:
    """An empty table in the house style: a rule below the heading, or only columns when piped."""
    if console.is_terminal:
        return Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))


def add_names(made: Table, *headings: str) -> None:
    """Columns of names and sentences, which may go on in the next line."""
    for heading in headings:
        made.add_column(Text(clean(heading)), overflow="fold", ratio=1)


def add_words(made: Table, *headings: str) -> None:
    """Columns of short words, which stay on one line."""
    for heading in headings:
        made.add_column(Text(clean(heading)), no_wrap=True)


def add_figures(made: Table, *headings: str) -> None:
    """Columns of figures, which stay on one line."""
    for heading in headings:
        made.add_column(Text(clean(heading)), justify="right", no_wrap=True)


def print_table(made: Table, console: Console) -> None:
    """The table; where it is wider than the console, each row as `name: heading value, heading value`."""
    if _width(made) <= console.width:
        console.print(made)
        return
    for line in _folded(made, console.width):
        console.print(Text(line), highlight=False, soft_wrap=True)


def _width(made: Table) -> int:
    gap = 3 if made.box else 2
    return sum(map(_column_width, made.columns)) + gap * (len(made.columns) - 1)


def _column_width(column: Column) -> int:
    full = max(cell_len(str(text)) for text in (column.header, *column.cells))
    return full if column.no_wrap else min(full, _NAME_WIDTH)


def _folded(made: Table, width: int) -> Iterator[str]:
    what, *headings = (str(column.header) for column in made.columns)
    for first, *cells in zip(*(map(str, column.cells) for column in made.columns), strict=True):
        first = f"{what} {first.lstrip()}" if what else first
        pairs = zip(headings, cells, strict=True)
        pairs_shown = [f"{heading} {cell}".strip() for heading, cell in pairs if cell not in ("", ABSENT)]
        indent = " " * (len(first) - len(first.lstrip()) + 2)
        line = (
            f"{first}: {', '.join(_unbroken(pair, width - len(indent)) for pair in pairs_shown)}"
            if pairs_shown
            else first
        )
        wrapped = textwrap.wrap(line, width, subsequent_indent=indent, break_on_hyphens=False)
        yield from (one.replace("\xa0", " ") for one in wrapped)


def _unbroken(pair: str, width: int) -> str:
    """A heading and its value, which a line break must not part, unless they fill more than a line."""
    return pair.replace(" ", "\xa0") if len(pair) < width else pair
