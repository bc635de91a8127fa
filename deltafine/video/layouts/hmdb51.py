"""HMDB51's layout: class folders beside ``<class>_test_split<N>.txt`` with lines ``<file> <0, 1 or 2>``.

Kuehne et al., "HMDB: A Large Video Database for Human Motion Recognition" (2011): 1 trains, 2 tests, 0 is
not used in this split.
"""

from __future__ import annotations

import re
from pathlib import Path

from deltafine.errors import DeltafineError
from deltafine.video.catalogue import Found, Problem, Split, Video
from deltafine.video.finding import relative_name
from deltafine.video.layouts.common import (
    expected,
    list_folders,
    locate_flat,
    note_missing,
    number_classes,
    read_lines,
)
from deltafine.video.layouts.layout import Layout, LayoutOptions

OFFICIAL = "testTrainMulti_7030_splits"
LIST_FOLDERS = (".", "splits", OFFICIAL, "test_train_splits", f"test_train_splits/{OFFICIAL}")
VIDEO_FOLDERS = (".", "videos", "hmdb51", "HMDB51", "hmdb51_org")
USES: dict[str, Split | None] = {"0": None, "1": "train", "2": "test"}


def find_hmdb51(
    root: Path, *, split: int = 1, allow_outside: bool = False, lists_in: Path | None = None
) -> Found | None:
    """Read all classes' lists of split ``split`` (1, 2 or 3 in HMDB51 itself); classes are sorted by name.

    The lists lie below ``root``, or else in the folder ``lists_in``.

    Raises:
        DeltafineError: A list is broken, or none of the files that it names is there.
    """
    folders = list_folders(lists_in or root, LIST_FOLDERS, only_usual=lists_in is not None)
    lists = next(filter(None, map(_lists, folders)), None)
    if lists is None:
        return None
    numbers = sorted({number for number, _, _ in lists})
    chosen = [(name, path) for number, name, path in lists if number == split]
    if not chosen:
        raise DeltafineError(
            f"{lists[0][2].parent} has no lists for split {split}: choose one of {', '.join(map(str, numbers))}."
        )
    classes = number_classes(name for name, _ in chosen)
    videos: list[Video] = []
    problems: list[Problem] = []
    for class_name, listing in chosen:
        lines = read_lines(listing)
        missing: list[Path] = []
        used = 0
        for line in lines:
            file, _, use = line.rpartition(" ")
            if use not in USES or not file.strip():
                raise DeltafineError(f"{listing} has the line '{line}' where '<file> <0, 1 or 2>' was expected.")
            use_split = USES[use]
            name = f"{class_name}/{file.strip()}"
            path = locate_flat(root, name, listing, folders=VIDEO_FOLDERS, allow_outside=allow_outside)
            if use_split is None:
                continue
            used += 1
            if path is None:
                path = expected(root, name)
                missing.append(path)
            videos.append(Video(path, relative_name(path, root), classes.index(class_name), use_split))
        problems += note_missing(missing, used, listing, root, beside=lists_in is not None)
    return Found(
        f"HMDB51 layout, split {split}",
        videos,
        classes,
        has_splits=True,
        problems=problems,
        lists=[path for *_, path in lists],
    )


def _lists(folder: Path) -> list[tuple[int, str, Path]]:
    """Split number, class and path of every list in a folder."""
    if not folder.is_dir():
        return []
    matches = ((re.fullmatch(r"(.+)_test_split(\d+)\.txt", path.name), path) for path in sorted(folder.iterdir()))
    return [(int(match[2]), match[1], path) for match, path in matches if match]


class Hmdb51(Layout):
    """HMDB51, with its split lists."""

    name = "hmdb51"

    def find(self, path: Path, options: LayoutOptions) -> Found | None:
        return find_hmdb51(path, split=options.split, allow_outside=options.allow_outside)
