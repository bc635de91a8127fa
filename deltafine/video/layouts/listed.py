"""Reading one list of videos, whatever it looks like: its entries, or why it is none.

Tables with a first line that names the columns (Hugging Face's VideoFolder, Keras' tutorial, Kaggle's Jester), lines of
a name and a label (mmaction2, SlowFast and PyTorchVideo, Jester), lines of names alone, JSON Lines, and
Something-Something's JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deltafine.errors import DeltafineError
from deltafine.video.catalogue import Split
from deltafine.video.finding import subfolders
from deltafine.video.layouts.common import MOST_CLASSES, list_folders, read_text, some, whole_number
from deltafine.video.layouts.naming import SPLIT_NAMES, split_number, split_of, split_of_list
from deltafine.video.layouts.tables import (
    COLUMNS,
    FILE_COLUMNS,
    first_cells,
    plain,
    read_json_lines,
    read_table,
    recognise,
)

LIST_FOLDERS = (".", "annotations", "labels", "splits", "lists")
MOST_FOLDERS = 20
"""In a folder of lists: one with more holds videos."""
SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".json")
CALLED = {
    **COLUMNS,
    "path": (*FILE_COLUMNS, "video_id", "clip_id", "id"),
    "target": ("target", "label_id", "class_id"),
}
MULTIPLE = "actions"
"""Charades' column of all that happens in a video."""


@dataclass(frozen=True)
class Entry:
    """What a list says of one video.

    Attributes:
        name: As it stands in the list.
        label: A class name or number; None where there is none.
        target: A class number beside a name.
        split: Where the list has a column for it.
        where: The list and the line, for messages.
        several: Whether there is more than one label.
        group: The recording that the video is a part of, where the list has a column for it.
    """

    name: str
    where: str
    label: str | None = None
    target: str | None = None
    split: Split | None = None
    several: bool = False
    group: str | None = None


@dataclass(frozen=True)
class Listing:
    """A list.

    Attributes:
        path: The file.
        entries: What is in it.
        split: Which split it is the list of, by its name or its folder; None where it does not say.
        number: Which of several divisions it belongs to; None where it does not say.
        unknown: Columns that are not used.
        several: Whether videos have several labels each, none of which is an entry's then.
    """

    path: Path
    entries: list[Entry]
    split: Split | None = None
    number: int | None = None
    unknown: list[str] = field(default_factory=list)
    several: bool = False

    @property
    def has_splits(self) -> bool:
        return self.split is not None or all(entry.split for entry in self.entries)

    @property
    def labelled(self) -> bool:
        return any(entry.label is not None for entry in self.entries)


class NotAListError(Exception):
    """Why a file is no list of videos: a clause that follows "because"."""


def files_of_lists(root: Path, suffixes: Sequence[str] = SUFFIXES, *, only_usual: bool = False) -> list[Path]:
    """Files that may be lists, right in a folder, in folders of lists, and in those of the splits.

    With ``only_usual`` only in the folder itself and in folders that are called after lists.
    """
    folders = list_folders(root, LIST_FOLDERS, only_usual=only_usual)
    if not only_usual:
        folders += (folder for folder in subfolders(root) if split_of(folder.name))
        for folder in [folder for folder in folders if folder != root]:
            inner = subfolders(folder)
            if len(inner) <= MOST_FOLDERS:
                folders += (one for one in inner if any(entry.suffix.lower() in suffixes for entry in one.iterdir()))
    once: dict[Path, Path] = {}
    for folder in folders:
        once.setdefault(folder.resolve(), folder)
    return [
        entry
        for folder in once.values()
        for entry in sorted(folder.iterdir())
        if entry.suffix.lower() in suffixes and not entry.name.startswith(".") and entry.is_file()
    ]


def read_listing(path: Path, is_video: Callable[[str], bool]) -> Listing:
    """Read a list.

    Args:
        path: The file.
        is_video: Whether a name is that of a video in the data folder.

    Raises:
        NotAListError: It is none.
    """
    unknown: list[str] = []
    try:
        if path.suffix.lower() == ".json":
            entries = _of_json(path)
        elif path.suffix.lower() == ".jsonl":
            entries, unknown = _of_table(path, *read_json_lines(path))
        else:
            entries, unknown = _of_text(path, is_video)
    except DeltafineError as error:
        raise NotAListError(f"it cannot be read as a list ({str(error).rstrip('.')})") from error
    if not entries:
        raise NotAListError("it is empty")
    split = split_of_list(path.stem) or split_of(path.parent.name)
    return Listing(path, entries, split, split_number(path.stem), unknown)


def _of_text(path: Path, is_video: Callable[[str], bool]) -> tuple[list[Entry], list[str]]:
    text = read_text(path)
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not lines:
        return [], []
    columns = [plain(name) for name in first_cells(lines[0][1])]
    if set(columns) & set(CALLED["path"]) and not is_video(lines[0][1]):
        return _of_table(path, *read_table(path))
    separator = next((s for s in (";", "\t", ",") if all(s in line for _, line in lines[:50])), None)
    entries = []
    for number, line in lines:
        where = f"{path}, line {number},"
        if separator is not None:
            cells = [cell.strip().strip('"') for cell in line.split(separator)]
            if len(cells) != 2:
                raise NotAListError("its first line names no column of files")
            if separator == "," and not re.search(r"[./\\]", cells[0]):
                raise NotAListError("its first line names no column of files")  # ids are not told from other numbers
            entries.append(Entry(cells[0], where, cells[1] or None))
        else:
            entries.append(_of_line(line, path, where, is_video))
    return entries, []


def _of_line(line: str, path: Path, where: str, is_video: Callable[[str], bool]) -> Entry:
    """``<name>``, ``<name> <label>`` or ``<folder> <number of frames> <label>``; names may hold spaces."""
    numbers = re.search(r"((?:\s+[0-9]+)*)$", line)
    tail = numbers[1].split() if numbers else []
    name = line[: len(line) - len(numbers[1])] if numbers else line
    if is_video(line):
        return Entry(line, where)
    if not tail:
        first, _, last = line.rpartition(" ")
        return Entry(first.strip(), where, last) if first and is_video(first.strip()) else Entry(line, where)
    longer = f"{name} {' '.join(tail[:-1])}"
    if len(tail) > 1 and is_video(longer):  # the name ends with a number
        return Entry(longer, where, tail[-1])
    if len(tail) == 2 and ("rawframes" in path.stem or not Path(name).suffix):
        return Entry(name, where, tail[1])
    return Entry(name, where, tail[0], several=len(tail) > 1)


def _of_table(
    path: Path, columns: Sequence[str], rows: Iterable[tuple[int, dict[str, str]]]
) -> tuple[list[Entry], list[str]]:
    table = recognise(columns, iter(rows), {**CALLED, MULTIPLE: (MULTIPLE,)})
    known = set(table.columns)
    if "path" not in known:
        raise NotAListError(f"it has no column of files (it has {_quoted(columns)})")
    of_split = split_of_list(path.stem) or split_of(path.parent.name)
    if of_split is None and not known & {"label", "target", "split", MULTIPLE}:
        raise NotAListError(f"it has no column of labels or splits (it has {_quoted(columns)})")
    if known & {"frame", "start", "end", "start_frame", "end_frame"}:
        raise NotAListError(
            "it lists segments of videos or frames: call it manifest.csv or labels.csv, as docs/data.md says"
        )
    entries = []
    for line, row in table.rows:
        where = f"{path}, line {line},"
        if "path" not in row:
            raise NotAListError(f"its line {line} names no file")
        split = SPLIT_NAMES.get(row["split"].lower()) if "split" in row else None
        if "split" in row and split is None:
            raise NotAListError(
                f"its line {line} has the split '{some([row['split']])}', not train, validation or test"
            )
        several = MULTIPLE in known and "label" not in known
        label = row.get("label") if "label" in known else row.get("target")
        entries.append(Entry(row["path"], where, label, row.get("target"), split, several, row.get("group")))
    return entries, table.unknown


def _of_json(path: Path) -> list[Entry]:
    """Something-Something's: a list of objects with id and, in train and validation lists, template or label."""
    try:
        read = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise NotAListError("it is not JSON") from error
    if not isinstance(read, list) or not all(isinstance(item, dict) for item in read):
        raise NotAListError("it is no list of objects with a name and a label")
    entries = []
    for number, item in enumerate(read, start=1):
        row = {plain(key): value for key, value in item.items()}
        name = next((row[key] for key in CALLED["path"] if isinstance(row.get(key), (str, int))), None)
        if name is None:
            raise NotAListError(f"its entry {number} names no video")
        label = row.get("template", next((row[key] for key in CALLED["label"] if key in row), None))
        several = isinstance(label, list) and len(label) > 1
        label = label[0] if isinstance(label, list) and label else label
        label = None if label is None else str(label)
        if label is not None and "template" in row:
            label = label.replace("[", "").replace("]", "")
        entries.append(Entry(str(name), f"{path}, entry {number},", label, several=several))
    return entries


def read_classes(path: Path) -> tuple[str, ...] | None:
    """A list of class names in the order of their numbers; None when the file is something else."""
    try:
        if path.suffix.lower() == ".json":
            return _classes_of_json(json.loads(read_text(path)))
        lines = [line.strip().strip('"') for line in read_text(path).splitlines() if line.strip()]
        columns = first_cells(lines[0]) if lines else []
        if len(columns) > 1 and {plain(name) for name in columns} & set(CALLED["path"]):
            return None
    except (DeltafineError, ValueError, RecursionError):
        return None
    numbered = [re.fullmatch(r"([0-9]{1,7})[\s,;:]+(.+)", line) for line in lines]
    if lines and all(numbered):
        numbers = [int(match[1]) for match in numbered if match]
        if numbers in (list(range(len(lines))), list(range(1, len(lines) + 1))):
            lines = [match[2] for match in numbered if match]
    return tuple(lines) if lines and len(set(lines)) == len(lines) else None


def _classes_of_json(read: object) -> tuple[str, ...] | None:
    if isinstance(read, list) and all(isinstance(name, str) for name in read):
        return tuple(read)
    if not isinstance(read, dict):
        return None
    by_number = {whole_number(str(value), MOST_CLASSES): name for name, value in read.items()}
    if None in by_number:
        by_number = {whole_number(str(name), MOST_CLASSES): str(value) for name, value in read.items()}
    if set(by_number) != set(range(len(read))):
        return None
    return tuple(str(by_number[number]) for number in range(len(read)))


def _quoted(columns: Sequence[str]) -> str:
    return some([f"'{name}'" for name in columns if name], most=8)
