"""Lists in the folder around the data folder, or in one of lists there: read as if they lay in the data folder.

Collections are unpacked so: ``UCF-101/`` beside ``ucfTrainTestlist/``, ``videos/`` beside ``train.csv``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from deltafine.errors import DeltafineError
from deltafine.video.catalogue import Found
from deltafine.video.finding import subfolders
from deltafine.video.layouts.common import list_folders, list_name, some
from deltafine.video.layouts.hmdb51 import LIST_FOLDERS as HMDB51_FOLDERS
from deltafine.video.layouts.hmdb51 import find_hmdb51
from deltafine.video.layouts.kinetics import COLUMNS as KINETICS_COLUMNS
from deltafine.video.layouts.kinetics import find_kinetics
from deltafine.video.layouts.leftover import names_videos, sounds_like_list
from deltafine.video.layouts.listed import LIST_FOLDERS, SUFFIXES
from deltafine.video.layouts.lists import Lists
from deltafine.video.layouts.naming import split_of
from deltafine.video.layouts.tables import has_columns
from deltafine.video.layouts.ucf101 import LIST_FOLDERS as UCF101_FOLDERS
from deltafine.video.layouts.ucf101 import find_ucf101

READ = ("ucf101", "hmdb51", "kinetics", "lists")
"""Layouts whose lists may lie beside the data folder, in the order in which they are tried."""


def find_beside(
    root: Path, found: Found | None, layout: str | None, *, split: int, allow_outside: bool
) -> tuple[Found | None, list[str]]:
    """What lists beside a data folder say of its videos, and one sentence for every reason why they are not used.

    Args:
        root: The data folder.
        found: What is in the folder itself. Lists and splits there go first.
        layout: The layout that the user has named; what is in the folder in that layout stands.
        split: Which of several divisions to use.
        allow_outside: Let lists name files outside the data folder.

    Returns:
        The catalogue, None where the one in the folder stands; and what is to be said.
    """
    notes = _other_splits(root)
    around = root.resolve().parent
    lists = Lists(root, split=split, allow_outside=allow_outside, lists_in=around)
    stems = {video.path.stem for video in found.videos} if found is not None else set()
    try:
        candidates = [
            path
            for path in _lists_in(around)
            if found is None or names_videos(path, stems) or has_columns(path, KINETICS_COLUMNS)
        ]
    except OSError:  # others' folders are none of our business
        return None, notes
    if not candidates:
        return None, notes
    named = some(list_name(path, root) for path in candidates)
    it = "it is" if len(candidates) == 1 else "they are"
    if found is not None and (layout is not None or found.lists or found.has_splits):
        chosen = "the folders give the splits" if layout is None else f"the layout '{layout}' was chosen"
        because = "lists in the data folder go first" if found.lists else chosen
        return None, [*notes, f"Found {named}, not used because {because}."]
    finders: dict[str, Callable[[], Found | None]] = {
        "ucf101": partial(find_ucf101, root, split=split, allow_outside=allow_outside, lists_in=around),
        "hmdb51": partial(find_hmdb51, root, split=split, allow_outside=allow_outside, lists_in=around),
        "kinetics": partial(find_kinetics, root, lists_in=around),
        "lists": lists.find,
    }
    for name in READ if layout is None else [name for name in READ if name == layout]:
        try:
            beside = finders[name]()
        except DeltafineError as error:
            if found is None:
                raise
            return None, [*notes, f"Found {named}, not used because of what is wrong there: {error}"]
        if beside is None or not beside.videos:
            continue
        if found is not None and len({video.path for video in beside.videos}) * 2 < len(found.videos):
            return None, [*notes, f"Found {named}, not used because most of the videos are not in there."]
        used = some(list_name(path, root) for path in beside.lists)
        return replace(beside, notes=[*beside.notes, *notes, f"The lists lie beside the data folder: {used}."]), []
    reasons = sorted({reason for path, reason in lists.why_not.items() if path in candidates})
    because = f" ({'; '.join(reasons)})" if reasons else ""
    return None, [*notes, f"Found {named}, not used because {it} not in the data folder{because}: give {around}."]


def _lists_in(around: Path) -> list[Path]:
    known = dict.fromkeys((*LIST_FOLDERS, *UCF101_FOLDERS, *HMDB51_FOLDERS))
    return [
        entry
        for folder in list_folders(around, list(known), only_usual=True)
        for entry in sorted(folder.iterdir())
        if entry.suffix.lower() in SUFFIXES and sounds_like_list(entry) and entry.is_file()
    ]


def _other_splits(root: Path) -> list[str]:
    """What is said where the data folder is one split of several."""
    around, name = root.resolve().parent, root.resolve().name
    if split_of(name) is None:
        return []
    try:
        others = [f"../{folder.name}" for folder in subfolders(around) if split_of(folder.name) and folder.name != name]
    except OSError:
        return []
    return [f"Found {some(others)} beside the data folder, not used: give {around} for all splits."] if others else []
