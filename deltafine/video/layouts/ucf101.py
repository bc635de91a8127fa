"""UCF101's layout: class folders beside ``classInd.txt``, ``trainlist0N.txt`` and ``testlist0N.txt``.

Soomro, Zamir, Shah, "UCF101: A Dataset of 101 Human Actions Classes From Videos in The Wild" (2012).
"""

from __future__ import annotations

import re
from pathlib import Path

from deltafine.errors import DeltafineError
from deltafine.video.catalogue import SPLITS, Found, Video
from deltafine.video.files import relative_name
from deltafine.video.layouts.common import MOST_CLASSES, locate, read_lines, refuse_missing, some, whole_number

LIST_FOLDERS = (".", "splits", "ucfTrainTestlist")
VIDEO_FOLDERS = ("videos", ".", "UCF-101", "UCF101")


def find_ucf101(root: Path, *, split: int = 1, allow_outside: bool = False) -> Found | None:
    """Read the lists of split ``split`` (1, 2 or 3 in UCF101 itself).

    The test list becomes the validation split. Classes are numbered as in ``classInd.txt``.

    Raises:
        DeltafineError: A list is missing or broken, or names files that are not there.
    """
    lists = next((root / name for name in LIST_FOLDERS if _split_numbers(root / name)), None)
    if lists is None:
        return None
    numbers = _split_numbers(lists)
    if split not in numbers:
        raise DeltafineError(f"{lists} has no lists for split {split}: choose one of {', '.join(map(str, numbers))}.")
    classes = _read_classes(lists / "classInd.txt")
    videos: list[Video] = []
    for part, kind in zip(SPLITS, ("train", "test"), strict=True):
        listing = lists / f"{kind}list{split:02d}.txt"
        missing = []
        lines = read_lines(listing)
        for line in lines:
            name, label = _read_entry(line, listing, classes)
            path = locate(root, name, listing, folders=VIDEO_FOLDERS, allow_outside=allow_outside)
            if path is None:
                missing.append(name)
            else:
                videos.append(Video(path, relative_name(path, root), label, part))
        refuse_missing(missing, len(lines), listing, root)
    return Found(f"UCF101 layout, split {split}", videos, classes, has_splits=True)


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
