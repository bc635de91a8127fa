"""Which layout a path has: tried in a fixed order, or named or given by the user."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from deltafine.errors import DeltafineError
from deltafine.registry import Registry
from deltafine.video.catalogue import Found
from deltafine.video.finding import find_videos
from deltafine.video.layouts.beside import READ as BESIDE
from deltafine.video.layouts.beside import find_beside
from deltafine.video.layouts.layout import Layout, LayoutOptions
from deltafine.video.layouts.leftover import unused_lists
from deltafine.video.layouts.lists import ListedVideos, Lists

_HERE = "deltafine.video.layouts"

LAYOUTS: Registry[Layout] = Registry(
    "layout",
    {
        "manifest": f"{_HERE}.manifest:Manifest",
        "hdf5": f"{_HERE}.hdf5_videos:Hdf5Videos",
        "ucf101": f"{_HERE}.ucf101:Ucf101",
        "hmdb51": f"{_HERE}.hmdb51:Hmdb51",
        "kinetics": f"{_HERE}.kinetics:Kinetics",
        "streams": f"{_HERE}.labelled_streams:LabelledStreams",
        "lists": f"{_HERE}.lists:ListedVideos",
        "single": f"{_HERE}.folders:Single",
        "folders": f"{_HERE}.folders:ClassFolders",
        "names": f"{_HERE}.class_in_name:ClassInName",
        "unlabelled": f"{_HERE}.folders:Unlabelled",
    },
)
"""In the order in which they are tried. ``unlabelled`` takes any folder of videos: register one of your own with
``first=True`` to have it tried at all."""


def refuse_live(path: Path) -> None:
    """Raise where the user means a camera or a stream of the network and not a file."""
    address = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]+):/+(.*)", str(path))
    record = "record it into a file, such as with ffmpeg, and give that file or its folder"
    if address and not path.exists():
        raise DeltafineError(f"{address[1]}://{address[2]} is an address and no file: {record}.")
    number = path.name.isdigit() and str(path) == path.name and not path.exists()
    if number or path.is_char_device() or str(path).startswith("/dev/video"):
        raise DeltafineError(f"{path} is a camera and no file: {record}.")


def find(
    path: Path,
    layout: str | Layout | None,
    *,
    split: int,
    allow_outside: bool,
    classes: Sequence[str] | None = None,
) -> Found:
    """Catalogue the videos at ``path``, and note what lists there are that are not used.

    ``classes`` are those that the user has named, so that a folder called like a split can be one.

    Raises:
        DeltafineError: There is nothing at the path, the layout is unknown or does not fit, or no video
            was found.
    """
    if isinstance(layout, str) and layout not in LAYOUTS.names:
        raise DeltafineError(f"There is no layout '{layout}': choose one of {', '.join(LAYOUTS.names)}.")
    refuse_live(path)
    if not path.exists():
        raise DeltafineError(f"There is nothing at {path}: give a folder of videos or a video file.")
    named = None if layout is None else LAYOUTS.get(layout)
    if not path.is_dir() and named is not None and not named.of_files:
        raise DeltafineError(f"{path} is a file, and the layout '{named.name}' needs a folder.")
    options = LayoutOptions(split, allow_outside, None if classes is None else tuple(classes))
    lists = Lists(path, split=split, allow_outside=allow_outside)
    tried: Iterable[Layout] = [named] if named else (one for one in LAYOUTS if path.is_dir() or one.of_files)
    other = ""
    for one in tried:
        try:
            found = (ListedVideos(lists) if type(one) is ListedVideos else one).find(path, options)
        except DeltafineError as error:
            if one.name != "hdf5" or named or not path.is_dir() or not find_videos(path):
                raise
            other = f"Found an HDF5 file, not used because it is no data set of videos ({str(error).rstrip('.')})."
            continue
        if found is not None and not found.videos:
            raise DeltafineError(f"{path} is in the layout '{one.name}', but no video is in it: check the lists.")
        if found is not None:
            if not path.is_dir():
                return found
            beside, notes = find_beside(
                path, found, None if named is None else named.name, split=split, allow_outside=allow_outside
            )
            found = beside or found
            found.notes += [*([other] if other else []), *unused_lists(path, found, lists), *notes]
            return found
    if named is not None and named.name in BESIDE and path.is_dir():
        found, _ = find_beside(path, None, named.name, split=split, allow_outside=allow_outside)
        if found is not None:
            found.notes += unused_lists(path, found, lists)
            return found
    if named is not None:
        raise DeltafineError(f"No videos were found in {path} in the layout '{named.name}': check the folder.")
    raise DeltafineError(f"No videos were found in {path}: give a folder with .avi, .mp4, .mkv, .mov or .webm.")
