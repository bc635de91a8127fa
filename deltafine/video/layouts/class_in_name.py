"""Videos that carry their class in their names, as UCF101's do: ``v_<Class>_g01_c02.avi``, all in one folder."""

from __future__ import annotations

import re
from pathlib import Path

from deltafine.video.catalogue import Found, Video
from deltafine.video.finding import relative_name
from deltafine.video.layouts.common import number_classes
from deltafine.video.layouts.folders import divide
from deltafine.video.layouts.layout import Layout, LayoutOptions

UCF101 = re.compile(r"v_(\w+?)_g\d+_c\d+")


def find_named(root: Path) -> Found | None:
    """Videos of two or more classes that are all named so; in the splits that their folders are called after."""
    divided = divide(root, quiet=True)
    if divided is None:
        return None
    names = [(path, split, UCF101.fullmatch(path.stem)) for path, split in divided.videos]
    classes = number_classes(match[1] for *_, match in names if match)
    if len(classes) < 2:
        return None
    unnamed = [path for path, _, match in names if not match]
    if len(unnamed) > len(names) // 10:
        return None
    videos = [
        Video(path, relative_name(path, root), classes.index(match[1]), split) for path, split, match in names if match
    ]
    notes = list(divided.notes)
    if unnamed:
        notes.append(
            f"Found {relative_name(unnamed[0], root)}, not used because its name holds no class as the others do."
        )
    return Found("classes in file names (UCF101)", videos, classes, has_splits=divided.has_splits, notes=notes)


class ClassInName(Layout):
    """Classes in the names of the videos."""

    name = "names"

    def find(self, path: Path, options: LayoutOptions) -> Found | None:
        return find_named(path)
