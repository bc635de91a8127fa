"""Lists that lie with the videos and are not used: said, so that nobody trains without them unawares."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from deltafine.video.catalogue import Found
from deltafine.video.finding import is_video, relative_name
from deltafine.video.layouts.common import some
from deltafine.video.layouts.hdf5_videos import SUFFIXES as HDF5
from deltafine.video.layouts.listed import files_of_lists

if TYPE_CHECKING:
    from deltafine.video.layouts.lists import Lists

LOOKED_AT = 1 << 18
"""Bytes of a file in which the names of videos are looked for."""
_WORDS = re.compile(
    r"(?<![a-z])(train|val|valid|validation|test|splits?|lists?|labels?|class(es|ind)?|categor(y|ies)|annotations?|tags|targets?"
    r"|manifest|metadata|ground_?truth)(?![a-z])|(train|test|val)(list|split)",
    re.IGNORECASE,
)
_CLASSES = re.compile(r"(?<![a-z])(labels?|class(es|ind|names)?|categor(y|ies)|label_?map)(?![a-z])", re.IGNORECASE)
_SHEETS = (".parquet", ".xlsx", ".xls", ".ods")
UNREAD = (*_SHEETS, ".mat", ".pkl", ".pickle", ".npy", ".npz", ".xml", ".yaml", ".yml")
_TABLES = (".csv", ".tsv", ".jsonl")


def looks_like_classes(path: Path) -> bool:
    """Whether a file's name says that it lists class names."""
    return _CLASSES.search(path.stem) is not None


def sounds_like_list(path: Path) -> bool:
    """Whether a file's name says that it lists videos, their labels or their splits."""
    return _WORDS.search(path.stem) is not None


def unused_lists(root: Path, found: Found, lists: Lists) -> list[str]:
    """One sentence for every reason for which files that may be lists are not used."""
    used = {path.resolve() for path in found.lists}
    stems = {video.path.stem for video in found.videos}
    by_reason: dict[str, list[str]] = defaultdict(list)
    for path in lists.candidates:
        if path.resolve() in used:
            continue
        if path.stem in stems:
            reason = "labels in a file for each video are not read: write a labels.csv (video, frame, label)"
            by_reason[reason].append(relative_name(path, root))
        elif _may_be_list(path, stems):
            reason = lists.why_not.get(path) or lists.not_a_list(path) or f"the videos are read as {found.layout}"
            by_reason[reason].append(relative_name(path, root))
    for path in files_of_lists(root, UNREAD):
        if path.suffix.lower() in _SHEETS or sounds_like_list(path):
            by_reason["such files are not read: save it as CSV"].append(relative_name(path, root))
    hdf5 = [path for path in sorted(root.iterdir()) if path.suffix.lower() in HDF5 and path.resolve() not in used]
    if len(hdf5) > 1:
        by_reason["there are several HDF5 files: give the path of one"] = [path.name for path in hdf5]
    return [f"Found {some(names)}, not used because {reason}." for reason, names in by_reason.items()]


def _may_be_list(path: Path, stems: set[str]) -> bool:
    if path.suffix.lower() in _TABLES or _WORDS.search(path.stem):
        return True
    return names_videos(path, stems)


def names_videos(path: Path, stems: set[str]) -> bool:
    """Whether a file has the names of some videos in it; one of two letters must have its ending."""
    ending = re.compile(r"\.\w{2,5}$")
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            text = file.read(LOOKED_AT)
    except OSError:
        return False
    words = set(re.split(r"[\s,;:\"'\\/|()\[\]{}]+", text))
    without_ending = {ending.sub("", word) for word in words}
    return any(len(word) > 2 for word in without_ending & stems) or any(
        ending.search(word) and is_video(Path(word)) for word in words if ending.sub("", word) in stems
    )
