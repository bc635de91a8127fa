"""A table of a report as every way to show it has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class FigureTable:
    """Headings, and lines of cells.

    Attributes:
        title: what it shows.
        headings: of the columns.
        lines: cells for people.
        names: how many columns at the beginning hold names, which may be long; all others hold figures.
        values: the numbers of the other columns, to sort by, line by line; () where nothing is to be sorted.
    """

    title: str
    headings: tuple[str, ...]
    lines: Sequence[tuple[str, ...]]
    names: int = 0
    values: Sequence[tuple[float | None, ...]] = ()
