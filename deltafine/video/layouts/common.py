"""What the layouts share: reading small text files, finding what they name, and saying what is wrong in them."""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from deltafine.errors import DeltafineError
from deltafine.video.catalogue import Split

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validate": "validation",
    "validation": "validation",
    "test": "validation",
    "testing": "validation",
}
"""What the splits are called in folders and lists; a test split is what is validated on."""

MOST_LIST_BYTES = 1 << 28
MOST_CLASSES = 1_000_000
"""More than any list or model has; what a broken or hostile file claims beyond would fill the memory."""


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, stripped, without empty ones."""
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise DeltafineError(f"{path} is not a regular file: a list must be one.")
        if path.stat().st_size > MOST_LIST_BYTES:
            raise DeltafineError(f"{path} has {path.stat().st_size} bytes, too many for a list of videos.")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DeltafineError(f"{path} is not a text file in UTF-8: save it as UTF-8.") from error
    except OSError as error:
        raise DeltafineError(f"{path} cannot be read: {error.strerror}.") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_table(path: Path) -> tuple[set[str], Iterator[tuple[int, dict[str, str]]]]:
    """The column names of a CSV file, and its rows with their line numbers; empty cells are left out."""
    rows = _csv_rows(path)
    _, columns = next(rows, (0, []))
    return set(columns), (
        (line, {name: cell for name, cell in zip(columns, row, strict=False) if cell}) for line, row in rows
    )


def has_columns(path: Path, columns: set[str]) -> bool:
    """Whether the first line of a CSV file names these columns. Whatever else the file is, it is no error."""
    try:
        if not path.is_file():
            return False
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            first = file.readline(1 << 16)
    except OSError:
        return False
    return {name.strip().strip('"') for name in first.split(",")} >= columns


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    rows = csv.reader(read_lines(path))
    try:
        for row in rows:
            yield rows.line_num, [cell.strip() for cell in row]
    except csv.Error as error:
        raise DeltafineError(f"{path}, line {rows.line_num}, is not CSV ({error}).") from error


def whole_number(text: str, most: int) -> int | None:
    """The number that a text writes in digits; None when it does not, or when it is above ``most``."""
    number = int(text) if re.fullmatch(r"[0-9]{1,15}", text) else None
    return number if number is not None and number <= most else None


def read_split(name: str, where: str) -> Split:
    """The split that a list calls ``name``."""
    split = SPLIT_NAMES.get(name.lower())
    if split is None:
        raise DeltafineError(f"{where} has the split '{name}': use train or validation.")
    return split


def locate(
    root: Path, name: str, listed_in: Path, *, folders: Sequence[str] = (".",), allow_outside: bool = False
) -> Path | None:
    """Where the video that a list calls ``name`` lies: below one of ``folders``; None when nowhere.

    Raises:
        DeltafineError: The name is absolute or climbs out of the data folder with "..".
    """
    pure = PurePosixPath(name.replace("\\", "/"))
    depth = 0
    for part in pure.parts:
        depth += -1 if part == ".." else 1
        outside = depth < 0 or pure.is_absolute() or re.match(r"[A-Za-z]:", name) is not None
        if outside and not allow_outside:
            raise DeltafineError(
                f"{listed_in} names '{name}', which is outside the data folder {root}: "
                "list only files below it, or allow paths outside."
            )
    for folder in folders:
        path = root / folder / pure
        if path.exists() or path.is_symlink():
            return path
    return None


def some(names: Iterable[str], most: int = 3) -> str:
    """The first few names, for a message: "a, b, c and 7 more"."""
    names = list(names)
    shown = ", ".join(name if len(name) <= 200 else f"{name[:150]}…{name[-40:]}" for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def nearest(name: str, known: Sequence[str]) -> str:
    """The known names most like ``name``, for a message; the first ones when none is like it."""
    return some(difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known, most=10)


def refuse_missing(missing: Sequence[str], total: int, listed_in: Path, root: Path) -> None:
    """Raise when a list names videos that are not there, saying how many and which come first."""
    if missing:
        raise DeltafineError(
            f"{listed_in} names {total} videos of which {len(missing)} are not below {root} "
            f"({some(missing)}): add the missing files or take them off the list."
        )


def number_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Class names in the order that every layout without a class list of its own gives them: sorted."""
    return tuple(sorted(set(names)))
