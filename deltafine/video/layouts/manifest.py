"""A list of videos: ``manifest.csv`` or ``manifest.jsonl`` (path, label or target, split, start, end).

Only the path is needed. Paths are relative to the list's folder. ``label`` is a class name, ``target`` a
class number from 0; start and end are seconds, to use a part of a file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

from deltafine.errors import DeltafineError
from deltafine.video.catalogue import Found, Split, Video
from deltafine.video.files import relative_name
from deltafine.video.layouts.common import (
    MOST_CLASSES,
    locate,
    number_classes,
    read_lines,
    read_split,
    read_table,
    refuse_missing,
    some,
    whole_number,
)

NAMES = ("manifest.csv", "manifest.jsonl")
KNOWN = {"path", "label", "target", "split", "start", "end"}


def find_manifest(path: Path, *, allow_outside: bool = False) -> Found | None:
    """Read a manifest: ``path`` itself, or the one in the folder ``path``.

    Raises:
        DeltafineError: A row is broken, or names a file that is not there.
    """
    listing = path if not path.is_dir() else next((path / n for n in NAMES if (path / n).is_file()), None)
    if listing is None or listing.suffix.lower() not in (".csv", ".jsonl") or not listing.is_file():
        return None
    rows = list(_rows(listing))
    root = listing.parent
    classes, labels = _number(rows, listing)
    splits = _splits(rows, listing)
    videos: list[Video] = []
    missing = []
    for (line, row), label, split in zip(rows, labels, splits, strict=True):
        start, end = (_seconds(row, key, f"{listing}, line {line},") for key in ("start", "end"))
        if end is not None and end <= (start or 0):
            raise DeltafineError(f"{listing}, line {line}, ends at {end:g} s, before it starts.")
        found = locate(root, row["path"], listing, allow_outside=allow_outside)
        if found is None:
            missing.append(row["path"])
            continue
        name = relative_name(found, root)
        if start is not None or end is not None:
            name += f" [{start or 0:g}-{'' if end is None else f'{end:g}'} s]"
        videos.append(Video(found, name, label, split or "train", start=start, end=end))
    refuse_missing(missing, len(rows), listing, root)
    return Found(f"manifest {listing.name}", videos, classes, has_splits=None not in splits)


def _rows(listing: Path) -> Iterator[tuple[int, dict[str, str]]]:
    if listing.suffix.lower() == ".csv":
        columns, table = read_table(listing)
        if "path" not in columns:
            raise DeltafineError(f"{listing} has no column 'path': name the columns in its first line.")
    else:
        table = _read_json_lines(listing)
    for line, row in table:
        if not row.get("path"):
            raise DeltafineError(f"{listing}, line {line}, has no path.")
        yield line, row


def _read_json_lines(listing: Path) -> Iterator[tuple[int, dict[str, str]]]:
    for number, line in enumerate(read_lines(listing), start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DeltafineError(f"{listing}, line {number}, is not JSON.") from error
        if not isinstance(row, dict):
            raise DeltafineError(f"{listing}, line {number}, is not a JSON object.")
        yield number, {key: str(value) for key, value in row.items() if key in KNOWN and value is not None}


def _number(rows: list[tuple[int, dict[str, str]]], listing: Path) -> tuple[tuple[str, ...], list[int | None]]:
    """Class names, and every row's label. Targets give the numbers; labels alone are sorted."""
    named = {row["label"] for _, row in rows if "label" in row}
    if not any("target" in row for _, row in rows):
        classes = number_classes(named)
        return classes, [classes.index(row["label"]) if "label" in row else None for _, row in rows]
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
    return classes, [int(row["target"]) if "target" in row else None for _, row in rows]


def _splits(rows: list[tuple[int, dict[str, str]]], listing: Path) -> list[Split | None]:
    """Every row's split: all of them, or none so that they are drawn."""
    splits = [read_split(row["split"], f"{listing}, line {line},") if "split" in row else None for line, row in rows]
    if None in splits and any(splits):
        line = rows[splits.index(None)][0]
        raise DeltafineError(f"{listing}, line {line}, has no split, but other lines have: give all or none.")
    return splits


def _seconds(row: dict[str, str], key: str, where: str) -> float | None:
    if key not in row:
        return None
    try:
        value = float(row[key])
    except ValueError:
        value = -1.0
    if value < 0 or not math.isfinite(value):
        raise DeltafineError(f"{where} has the {key} '{row[key]}': use seconds from 0.")
    return value
