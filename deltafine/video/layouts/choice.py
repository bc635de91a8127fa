"""Which layout a path has: tried in a fixed order, or named by the user."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from deltafine.errors import DeltafineError
from deltafine.video.catalogue import Found
from deltafine.video.finding import find_videos
from deltafine.video.layouts.beside import READ as BESIDE
from deltafine.video.layouts.beside import find_beside
from deltafine.video.layouts.class_in_name import find_named
from deltafine.video.layouts.common import nearest
from deltafine.video.layouts.folders import find_class_folders, find_single, find_unlabelled
from deltafine.video.layouts.hdf5_videos import find_hdf5
from deltafine.video.layouts.hmdb51 import find_hmdb51
from deltafine.video.layouts.kinetics import find_kinetics
from deltafine.video.layouts.labelled_streams import find_streams
from deltafine.video.layouts.leftover import unused_lists
from deltafine.video.layouts.lists import Lists
from deltafine.video.layouts.manifest import find_manifest
from deltafine.video.layouts.ucf101 import find_ucf101

LAYOUTS = (
    "manifest",
    "hdf5",
    "ucf101",
    "hmdb51",
    "kinetics",
    "streams",
    "lists",
    "single",
    "folders",
    "names",
    "unlabelled",
)
"""Names that ``layout=`` takes, in the order in which they are tried."""

OF_FILES = ("manifest", "hdf5", "lists", "single")


def find(
    path: Path, layout: str | None, *, split: int, allow_outside: bool, classes: Sequence[str] | None = None
) -> Found:
    """Catalogue the videos at ``path``, and note what lists there are that are not used.

    ``classes`` are those that the user has named, so that a folder called like a split can be one.

    Raises:
        DeltafineError: There is nothing at the path, the layout is unknown or does not fit, or no video
            was found.
    """
    if layout is not None and layout not in LAYOUTS:
        raise DeltafineError(f"There is no layout '{layout}': choose one of {nearest(layout, LAYOUTS)}.")
    if not path.exists():
        raise DeltafineError(f"There is nothing at {path}: give a folder of videos or a video file.")
    if not path.is_dir() and layout not in (None, *OF_FILES):
        raise DeltafineError(f"{path} is a file, and the layout '{layout}' needs a folder.")
    lists = Lists(path, split=split, allow_outside=allow_outside)
    finders: dict[str, Callable[[], Found | None]] = {
        "manifest": partial(find_manifest, path, allow_outside=allow_outside),
        "hdf5": partial(find_hdf5, path, allow_outside=allow_outside),
        "ucf101": partial(find_ucf101, path, split=split, allow_outside=allow_outside),
        "hmdb51": partial(find_hmdb51, path, split=split, allow_outside=allow_outside),
        "kinetics": partial(find_kinetics, path),
        "streams": partial(find_streams, path, allow_outside=allow_outside),
        "lists": lists.find,
        "single": partial(find_single, path),
        "folders": partial(find_class_folders, path, classes),
        "names": partial(find_named, path),
        "unlabelled": partial(find_unlabelled, path),
    }
    other = ""
    for name in [layout] if layout else (LAYOUTS if path.is_dir() else OF_FILES):
        try:
            found = finders[name]()
        except DeltafineError as error:
            if name != "hdf5" or layout or not path.is_dir() or not find_videos(path):
                raise
            other = f"Found an HDF5 file, not used because it is no data set of videos ({str(error).rstrip('.')})."
            continue
        if found is not None and not found.videos:
            raise DeltafineError(f"{path} is in the layout '{name}', but no video is in it: check the lists.")
        if found is not None:
            if not path.is_dir():
                return found
            beside, notes = find_beside(path, found, layout, split=split, allow_outside=allow_outside)
            found = beside or found
            found.notes += [*([other] if other else []), *unused_lists(path, found, lists), *notes]
            return found
    if layout in BESIDE and path.is_dir():
        found, _ = find_beside(path, None, layout, split=split, allow_outside=allow_outside)
        if found is not None:
            found.notes += unused_lists(path, found, lists)
            return found
    if layout is not None:
        raise DeltafineError(f"No videos were found in {path} in the layout '{layout}': check the folder.")
    raise DeltafineError(f"No videos were found in {path}: give a folder with .avi, .mp4, .mkv, .mov or .webm.")
