"""Columns of a list that have no meaning of their own, and may be called like the outputs of a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from deltafine.video.catalogue import FrameColumns
from deltafine.video.layouts.common import some
from deltafine.video.layouts.tables import recognise

OWN = "column "
"""Before the name of a column that stands for itself."""


def with_further(
    columns: Sequence[str], names: Mapping[str, Sequence[str]]
) -> tuple[list[str], dict[str, Sequence[str]]]:
    """The columns that mean nothing, and what all of them mean: these themselves."""
    further = recognise(columns, iter(()), names).unknown
    return further, {**names, **{f"{OWN}{name}": (name,) for name in further}}


def cells_of(row: Mapping[str, str], further: Iterable[str]) -> tuple[str, ...]:
    """What a row has in these columns."""
    return tuple(row.get(f"{OWN}{name}", "") for name in further)


def frame_columns(
    listing: Path, further: Sequence[str], label: str | None, rows: Iterable[tuple[str, ...]]
) -> FrameColumns | None:
    """The further columns, and that of the labels under its own name: an output may be called so, too.

    Args:
        listing: where they are.
        further: their names.
        label: name of the column of the labels; None without one.
        rows: the cells of each row that differs, those of the label last.
    """
    if not further:
        return None
    named = some([f"'{name}'" for name in further], most=8)
    what, verb = ("column", "is") if len(further) == 1 else ("columns", "are")
    note = f"{listing.name} has the {what} {named}, which {verb} not used."
    return FrameColumns(listing.name, (*further, label or ""), tuple(rows), note)
