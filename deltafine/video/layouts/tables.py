"""Tables of videos: CSV with commas, semicolons or tabs, JSON Lines, and what people call the columns."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deltafine.errors import DeltafineError
from deltafine.video.layouts.common import read_lines, read_text, some

Row = dict[str, str]
"""Cells by column; empty ones are left out."""

DELIMITERS = (",", ";", "\t")
FILE_COLUMNS = (
    *("path", "file", "filename", "file_name", "filepath", "file_path", "video", "video_path", "video_name"),
    *("videoname", "name", "clip", "clip_path", "clip_name"),
)
"""What people call the column that names the videos; the first that is there counts."""
COLUMNS: dict[str, Sequence[str]] = {
    "path": FILE_COLUMNS,
    "label": ("label", "labels", "class", "class_name", "tag", "category"),
    "target": ("target",),
    "split": ("split", "subset"),
    "start": ("start",),
    "end": ("end",),
    "start_frame": ("start_frame",),
    "end_frame": ("end_frame",),
    "group": ("group", "recording"),
}
"""What a column means, and how it may be called, in any case; the first that is there counts."""


@dataclass
class Table:
    """A table whose columns were recognised.

    Attributes:
        columns: Names as the table has them, in lower case with underscores.
        unknown: Those that are not used.
        rows: Line numbers, and cells by what the column means.
    """

    columns: Sequence[str]
    unknown: list[str]
    rows: Iterator[tuple[int, Row]]


def read_table(path: Path, *, exact: bool = False) -> tuple[list[str], Iterator[tuple[int, Row]]]:
    """The column names of a CSV file, in lower case, and its rows with their line numbers.

    Raises:
        DeltafineError: It is no text or no CSV; with ``exact``, also when a row has more cells than the first line.
    """
    rows = _csv_rows(path)
    _, first = next(rows, (0, []))
    columns = [plain(name) for name in first]
    return columns, _named(rows, columns, path, exact)


def _named(
    rows: Iterator[tuple[int, list[str]]], columns: list[str], path: Path, exact: bool
) -> Iterator[tuple[int, Row]]:
    for line, row in rows:
        if exact and any(row[len(columns) :]):
            raise DeltafineError(
                f"{path}, line {line}, has {len(row)} cells where the first line has {len(columns)}: "
                "put names that hold the separator into quotes."
            )
        yield line, {name: cell for name, cell in zip(columns, row, strict=False) if cell}


def read_json_lines(path: Path) -> tuple[list[str], Iterator[tuple[int, Row]]]:
    """The same of a file with one JSON object in every line; all its names are columns."""
    rows: list[tuple[int, Row]] = []
    columns: dict[str, None] = {}
    for number, line in enumerate(read_lines(path), start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DeltafineError(f"{path}, line {number}, is not JSON.") from error
        if not isinstance(row, dict):
            raise DeltafineError(f"{path}, line {number}, is not a JSON object.")
        row = {plain(key): value for key, value in row.items()}
        columns |= dict.fromkeys(row)
        rows.append((number, {key: _cell(value) for key, value in row.items() if value not in (None, "", [])}))
    return list(columns), iter(rows)


def recognise(
    columns: Sequence[str], rows: Iterator[tuple[int, Row]], names: Mapping[str, Sequence[str]] = COLUMNS
) -> Table:
    """Call the columns by what they mean."""
    meaning: dict[str, str] = {}
    for means, called in names.items():
        found = next((name for name in called if name in columns), None)
        if found is not None:
            meaning[found] = means
    unknown = [name for name in columns if name and name not in meaning]
    renamed = ((line, {meaning[name]: cell for name, cell in row.items() if name in meaning}) for line, row in rows)
    return Table([meaning.get(name, name) for name in columns], unknown, renamed)


def say_unknown(listing: Path, unknown: Sequence[str]) -> list[str]:
    """One sentence about columns that are not used; none where there are none."""
    if not unknown:
        return []
    named = some([f"'{name}'" for name in unknown], most=8)
    what, verb = ("column", "is") if len(unknown) == 1 else ("columns", "are")
    return [f"{listing.name} has the {what} {named}, which {verb} not used."]


def has_columns(path: Path, wanted: set[str], names: Mapping[str, Sequence[str]] | None = None) -> bool:
    """Whether the first line of a CSV file names these columns. Whatever else the file is, it is no error."""
    try:
        if not path.is_file():
            return False
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            first = file.readline(1 << 16)
    except OSError:
        return False
    columns = [plain(name) for name in first_cells(first)]
    return set(recognise(columns, iter(()), names).columns if names else columns) >= wanted


def first_cells(line: str) -> list[str]:
    """The cells of a file's first line."""
    try:
        return next(csv.reader([line.rstrip("\r\n")], delimiter=delimiter_of(line)), [])
    except csv.Error:
        return []


def delimiter_of(line: str) -> str:
    """What separates the cells of a first line: that of the three which is in it most often."""
    return max(DELIMITERS, key=line.count)


def plain(name: str) -> str:
    """A column's name in lower case, words joined by underscores."""
    return re.sub(r"[\s-]+", "_", str(name).strip().strip('"').lower())


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    lines = read_text(path).splitlines()
    rows = csv.reader(lines, delimiter=delimiter_of(next(filter(None, lines), "")))
    try:
        for row in rows:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield rows.line_num, cells
    except csv.Error as error:
        raise DeltafineError(f"{path}, line {rows.line_num}, is not CSV ({error}).") from error


def _cell(value: object) -> str:
    """A value of JSON as text; a list of one thing is that thing."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return str(value)
