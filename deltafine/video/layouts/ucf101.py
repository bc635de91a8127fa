"""UCF101's layout: class folders beside ``classInd.txt``, ``trainlist0N.txt`` and ``testlist0N.txt``.

Soomro, Zamir, Shah, "UCF101: A Dataset of 101 Human Actions Classes From Videos in The Wild" (2012).
"""

from __future__ import annotations

import re
from pathlib import Path

from deltafine.errors import DeltafineError
from deltafine.video.catalogue import Found, Problem, Split, Video
from deltafine.video.finding import relative_name
from deltafine.video.layouts.common import (
    MOST_CLASSES,
    expected,
    list_folders,
    locate_flat,
    note_missing,
    read_lines,
    some,
    whole_number,
)
from deltafine.video.layouts.layout import Layout, LayoutOptions

OFFICIAL = "UCF101TrainTestSplits-RecognitionTask"
LIST_FOLDERS = (".", "splits", "ucfTrainTestlist", OFFICIAL, f"{OFFICIAL}/ucfTrainTestlist")
VIDEO_FOLDERS = ("videos", ".", "UCF-101", "UCF101")
KINDS: dict[str, Split] = {"train": "train", "test": "test"}


def find_ucf101(
    root: Path, *, split: int = 1, allow_outside: bool = False, lists_in: Path | None = None
) -> Found | None:
    """Read the lists of split ``split`` (1, 2 or 3 in UCF101 itself).

    Classes are numbered as in ``classInd.txt``. The videos may lie in class folders or all in one. The lists lie below
    ``root``, or else in the folder ``lists_in``.

    Raises:
        DeltafineError: A list is missing or broken, or none of the files that it names is there.
    """
    folders = list_folders(lists_in or root, LIST_FOLDERS, only_usual=lists_in is not None)
    lists = next((folder for folder in folders if _split_numbers(folder)), None)
    if lists is None:
        return None
    numbers = _split_numbers(lists)
    if split not in numbers:
        raise DeltafineError(f"{lists} has no lists for split {split}: choose one of {', '.join(map(str, numbers))}.")
    classes = _read_classes(lists / "classInd.txt")
    videos: list[Video] = []
    problems: list[Problem] = []
    for kind, kind_split in KINDS.items():
        listing = lists / f"{kind}list{split:02d}.txt"
        missing: list[Path] = []
        lines = read_lines(listing)
        for line in lines:
            name, label = _read_entry(line, listing, classes)
            path = locate_flat(root, name, listing, folders=VIDEO_FOLDERS, allow_outside=allow_outside)
            if path is None:
                path = expected(root, name)
                missing.append(path)
            videos.append(Video(path, relative_name(path, root), label, kind_split))
        problems += note_missing(missing, len(lines), listing, root, beside=lists_in is not None)
    layout = f"UCF101 layout, split {split}"
    return Found(layout, videos, classes, has_splits=True, problems=problems, lists=_files(lists))


def _files(folder: Path) -> list[Path]:
    """The class list, and the lists of all splits, of which there are several to choose from."""
    names = re.compile(r"classInd\.txt|(?:train|test)list\d+\.txt")
    return [entry for entry in folder.iterdir() if names.fullmatch(entry.name)]


def _split_numbers(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    names = (re.fullmatch(r"(?:train|test)list(\d+)\.txt", entry.name) for entry in folder.iterdir())
    return sorted({int(match[1]) for match in names if match})


def _read_classes(path: Path) -> tuple[str, ...]:
    numbered: dict[int, str] = {}
    for line in read_lines(path):
        text, _, name = line.partition(" ")
        number = whole_number(text, MOST_CLASSES)
        if number is None or not name.strip():
            raise DeltafineError(f"{path} has the line '{some([line])}' where '<number> <class>' was expected.")
        numbered[number] = name.strip()
    if sorted(numbered) != list(range(1, len(numbered) + 1)):
        raise DeltafineError(f"{path} must number its classes 1, 2, 3 and so on without gaps.")
    return tuple(numbered[number] for number in sorted(numbered))


def _read_entry(line: str, listing: Path, classes: tuple[str, ...]) -> tuple[str, int]:
    """The name and label of a line ``<class>/<file>[ <number>]`` (train lists carry the number)."""
    match = re.fullmatch(r"(.+?)(?:\s+(\d+))?", line)
    name, number = (match[1], match[2]) if match else (line, None)
    folder = name.replace("\\", "/").strip("/").split("/")[-2:][0]
    if folder not in classes:
        raise DeltafineError(f"{listing} names '{name}', whose folder is no class of classInd.txt.")
    label = classes.index(folder)
    if number is not None and whole_number(number, MOST_CLASSES) != label + 1:
        raise DeltafineError(
            f"{listing} gives '{name}' the class number {some([number])}, but classInd.txt gives {folder} {label + 1}."
        )
    return name, label


class Ucf101(Layout):
    """UCF101, with its split lists."""

    name = "ucf101"

    def find(self, path: Path, options: LayoutOptions) -> Found | None:
        return find_ucf101(path, split=options.split, allow_outside=options.allow_outside)
