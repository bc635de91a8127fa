"""A list of videos: ``manifest.csv`` or ``manifest.jsonl`` (path, label or target, split, start, end, group).

Only the path is needed. Paths are relative to the list's folder. ``label`` is a class name, ``target`` a
class number from 0. ``start`` and ``end`` are seconds, ``start_frame`` and ``end_frame`` frames from 0, to use a
segment of a file, which ends before its end. ``group`` is the recording that a
video is a part of. Columns may be called otherwise, see ``tables.COLUMNS``. Further columns may be the labels of a
model's outputs.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path

from deltafine.errors import DeltafineError
from deltafine.video.catalogue import Found, Split, Video
from deltafine.video.finding import relative_name
from deltafine.video.layouts.common import (
    MOST_CLASSES,
    expected,
    locate,
    note_missing,
    number_labels,
    some,
    whole_number,
)
from deltafine.video.layouts.further_columns import cells_of, frame_columns, with_further
from deltafine.video.layouts.layout import Layout, LayoutOptions
from deltafine.video.layouts.naming import read_split
from deltafine.video.layouts.tables import (
    COLUMNS,
    FILE_COLUMNS,
    Row,
    Table,
    first_cells,
    plain,
    read_json_lines,
    read_table,
    recognise,
)

NAMES = ("manifest.csv", "manifest.jsonl", "manifest.tsv")
SUFFIXES = (".csv", ".jsonl", ".tsv")
MOST_FRAMES = 10_000_000


@dataclass(frozen=True)
class Bounds:
    """Where a segment of a file begins and ends, in seconds or in frames; see ``Video``."""

    start: float | None
    end: float | None
    start_frame: int | None
    end_frame: int | None

    @property
    def name(self) -> str:
        """What tells it from other segments, for people; empty for a whole file."""
        if self.start is not None or self.end is not None:
            return f" [{self.start or 0:g}-{'' if self.end is None else f'{self.end:g}'} s]"
        if self.start_frame is not None or self.end_frame is not None:
            return f" [frames {self.start_frame or 0}-{'' if self.end_frame is None else self.end_frame - 1}]"
        return ""


def find_manifest(path: Path, *, allow_outside: bool = False) -> Found | None:
    """Read a manifest: ``path`` itself, or the one in the folder ``path``.

    Raises:
        DeltafineError: A row is broken, none of the files is there, or a file has two labels.
    """
    listing = path if not path.is_dir() else next((path / n for n in NAMES if (path / n).is_file()), None)
    if listing is None or listing.suffix.lower() not in SUFFIXES or not listing.is_file():
        return None
    if listing is path and not _is_table(listing):
        return None
    table, further, called = _table(listing)
    rows = list(_rows(table, listing))
    root = listing.parent
    classes, labels, notes = _number(rows, listing)
    splits = _splits(rows, listing)
    videos: list[Video] = []
    distinct: dict[tuple[str, ...], int] = {}
    lines: list[int] = []
    missing = []
    for (line, row), label, split in zip(rows, labels, splits, strict=True):
        bounds = _bounds(row, f"{listing}, line {line},")
        found = locate(root, row["path"], listing, allow_outside=allow_outside)
        if found is None:
            found = expected(root, row["path"])
            missing.append(found)
        name = relative_name(found, root) + bounds.name
        cells = distinct.setdefault((*cells_of(row, further), row.get("label", "")), len(distinct))
        video = Video(found, name, label, split or "train", group=row.get("group"), **asdict(bounds))
        videos.append(replace(video, row=cells) if further else video)
        lines.append(line)
    if listing is path and len(missing) == len(rows) and path.name not in NAMES:
        return None  # its names may not be relative to its folder: see lists
    problems = note_missing(missing, len(rows), listing, root)
    _refuse_two_labels(videos, lines, classes, listing)
    columns = frame_columns(listing, further, called, distinct)
    return Found(
        f"manifest {listing.name}",
        videos,
        classes,
        has_splits=None not in splits,
        problems=problems,
        notes=([columns.note] if columns else []) + notes,
        lists=[listing],
        columns=columns,
    )


def _is_table(listing: Path) -> bool:
    """Whether the first line of a list that is called something else names any column."""
    with listing.open(encoding="utf-8-sig", errors="replace") as file:
        columns = {plain(name) for name in first_cells(file.readline(1 << 16))}
    return listing.suffix.lower() == ".jsonl" or not columns.isdisjoint(chain(*COLUMNS.values()))


def _table(listing: Path) -> tuple[Table, list[str], str | None]:
    """The table, the columns that mean nothing, and what that of the labels is called."""
    is_json = listing.suffix.lower() == ".jsonl"
    columns, rows = read_json_lines(listing) if is_json else read_table(listing, exact=True)
    further, names = with_further(columns, COLUMNS)
    table = recognise(columns, rows, names)
    if "path" not in table.columns and not is_json:
        raise DeltafineError(
            f"{listing} has no column 'path': name the columns in its first line, that of the files "
            f"{', '.join(FILE_COLUMNS[:-1])} or {FILE_COLUMNS[-1]}."
        )
    return table, further, next((name for name in COLUMNS["label"] if name in columns), None)


def _rows(table: Table, listing: Path) -> list[tuple[int, Row]]:
    rows = list(table.rows)
    for line, row in rows:
        if not row.get("path"):
            raise DeltafineError(f"{listing}, line {line}, has no path.")
    return rows


def _number(rows: list[tuple[int, Row]], listing: Path) -> tuple[tuple[str, ...], list[int | None], list[str]]:
    """Class names, every row's label, and what is to be said. Targets give the numbers; labels alone are sorted."""
    if not any("target" in row for _, row in rows):
        classes, said = number_labels(row["label"] for _, row in rows if "label" in row)
        numbers = {name: number for number, name in enumerate(classes)}
        return classes, [numbers[row["label"]] if "label" in row else None for _, row in rows], said
    names: dict[int, str] = {}
    for line, row in rows:
        target = whole_number(row.get("target", "0"), MOST_CLASSES)
        if target is None:
            raise DeltafineError(f"{listing}, line {line}, has the target '{some([row['target']])}': use 0, 1, 2, ...")
        if "target" in row and "label" in row:
            name = names.setdefault(target, row["label"])
            if name != row["label"]:
                raise DeltafineError(
                    f"{listing}, line {line}, calls target {row['target']} '{row['label']}', which was '{name}'."
                )
        elif "label" in row:
            raise DeltafineError(f"{listing}, line {line}, has a label without a target.")
    top = max(int(row["target"]) for _, row in rows if "target" in row)
    classes = tuple(names.get(number, str(number)) for number in range(top + 1))
    if len(set(classes)) < len(classes):
        raise DeltafineError(f"{listing} gives one label to two targets.")
    return classes, [int(row["target"]) if "target" in row else None for _, row in rows], []


def _splits(rows: list[tuple[int, Row]], listing: Path) -> list[Split | None]:
    """Every row's split: all of them, or none so that they are drawn."""
    splits = [read_split(row["split"], f"{listing}, line {line},") if "split" in row else None for line, row in rows]
    if None in splits and any(splits):
        line = rows[splits.index(None)][0]
        raise DeltafineError(f"{listing}, line {line}, has no split, but other lines have: give all or none.")
    return splits


def _bounds(row: Row, where: str) -> Bounds:
    """Where a segment begins and ends."""
    start, end = (_seconds(row, key, where) for key in ("start", "end"))
    first, stop = (_frame(row, key, where) for key in ("start_frame", "end_frame"))
    if (start is not None or end is not None) and (first is not None or stop is not None):
        raise DeltafineError(f"{where} gives a segment in seconds and in frames: give one of them.")
    if end is not None and end <= (start or 0):
        raise DeltafineError(f"{where} ends at {end:g} s, before it starts.")
    if stop is not None and stop <= (first or 0):
        raise DeltafineError(f"{where} ends at frame {stop}, before it starts.")
    return Bounds(start, end, first, stop)


def _refuse_two_labels(videos: Sequence[Video], lines: Sequence[int], classes: tuple[str, ...], listing: Path) -> None:
    """Raise when what one line shows is wholly in what another one shows, with a different label."""
    by_file: dict[tuple[Path, str], list[tuple[float, float, Video, int]]] = defaultdict(list)
    for video, line in zip(videos, lines, strict=True):
        for unit, (start, end) in video.extents.items():
            by_file[video.path, unit].append((start, -end, video, line))
    for segments in by_file.values():
        longest: dict[int | None, tuple[float, Video, int]] = {}  # of each label, what reaches furthest so far
        for _, minus_end, video, line in sorted(segments, key=lambda segment: segment[:2]):
            for label, (end, other, before) in longest.items():
                if label != video.label and -minus_end <= end:
                    one, two = ("no label" if v.label is None else f"'{classes[v.label]}'" for v in (other, video))
                    raise DeltafineError(
                        f"{listing} labels {other.name} {one} in line {before}, and {video.name} {two} in line {line}: "
                        "what is shown can have one label only."
                    )
            if video.label not in longest or longest[video.label][0] < -minus_end:
                longest[video.label] = (-minus_end, video, line)


def _seconds(row: Row, key: str, where: str) -> float | None:
    if key not in row:
        return None
    try:
        value = float(row[key].replace(",", "."))
    except ValueError:
        value = -1.0
    if value < 0 or not math.isfinite(value):
        raise DeltafineError(f"{where} has the {key} '{row[key]}': use seconds from 0.")
    return value


def _frame(row: Row, key: str, where: str) -> int | None:
    if key not in row:
        return None
    value = whole_number(row[key].removesuffix(".0"), MOST_FRAMES)
    if value is None:
        raise DeltafineError(f"{where} has the {key} '{some([row[key]])}': use the number of a frame, from 0.")
    return value


class Manifest(Layout):
    """A table of videos: ``manifest.csv``, or another name for it."""

    name = "manifest"
    of_files = True

    def find(self, path: Path, options: LayoutOptions) -> Found | None:
        return find_manifest(path, allow_outside=options.allow_outside)
