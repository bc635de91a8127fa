"""Folders that say what their videos are: one for each class, one for each split, or both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deltafine.errors import DeltafineError
from deltafine.video.catalogue import Found, Split, Video
from deltafine.video.finding import find_videos, image_folders, is_image_folder, is_video, relative_name, subfolders
from deltafine.video.layouts.common import number_classes, some
from deltafine.video.layouts.layout import Layout, LayoutOptions
from deltafine.video.layouts.naming import is_container, split_of
from deltafine.video.sequences import aside_of, natural_key


@dataclass(frozen=True)
class Folder:
    """A folder, and the videos in it.

    Attributes:
        path: The folder.
        direct: Videos right in it, files and folders of frame images.
        holders: Its folders in which there are videos, with all of these, however deep. A folder of frame images is
            no such folder.
    """

    path: Path
    direct: list[Path]
    holders: dict[Path, list[Path]]

    @property
    def videos(self) -> list[Path]:
        """All videos in it."""
        return [*self.direct, *(video for videos in self.holders.values() for video in videos)]


@dataclass(frozen=True)
class Divided:
    """The folders of a data set.

    Attributes:
        folders: Folders with their splits; one with None where the folders are no splits.
        notes: What is left aside.
    """

    folders: list[tuple[Folder, Split | None]]
    notes: list[str]

    @property
    def has_splits(self) -> bool:
        return self.folders[0][1] is not None

    @property
    def videos(self) -> list[tuple[Path, Split]]:
        """All videos, in the order of their folders."""
        return [(video, split or "train") for folder, split in self.folders for video in folder.videos]


def find_class_folders(root: Path, chosen: Sequence[str] | None = None) -> Found | None:
    """``<class>/<video>``, or ``train/<class>/<video>`` beside ``validation/`` (``val``, ``test``, ``train_videos``).

    All of it may lie in one folder ``videos`` or the like. Videos may lie deeper inside their class folder, and may be
    folders of frame images. Folders without videos are no classes. Classes are sorted by name.

    Args:
        root: The data folder.
        chosen: Classes that the user has named: a folder that is called so is one, even if it is called like a split.

    Raises:
        DeltafineError: A folder called like a split lies beside others that are not, so that it may be a class.
    """
    divided = divide(root, chosen)
    if divided is None:
        return None
    holders = [(path, videos, split or "train") for f, split in divided.folders for path, videos in f.holders.items()]
    stray = [video for folder, _ in divided.folders for video in folder.direct]
    classes = number_classes(path.name for path, *_ in holders)
    if not holders or any(_too_many(folder, len(classes)) for folder, _ in divided.folders):
        return None
    like_splits = [name for name in classes if split_of(name) and name not in (chosen or ())]
    if like_splits:
        raise DeltafineError(
            f"{root} has folders called like splits where the class folders are ({some(like_splits)}): put the classes "
            f"right into one folder for each split, or name all classes (--classes {_together(classes)})."
        )
    numbers = {name: number for number, name in enumerate(classes)}
    videos = [
        Video(video, relative_name(video, root), numbers[path.name], split)
        for path, in_class, split in holders
        for video in in_class
    ]
    notes = list(divided.notes)
    has_splits = divided.has_splits
    inner = (
        {} if has_splits else {video: split_of(_first(video, path)) for path, inside, _ in holders for video in inside}
    )
    if len(set(inner.values()) - {None}) > 1:
        has_splits = all(inner.values())
        if has_splits:
            videos = [replace(video, split=inner[video.path] or "train") for video in videos]
            notes.append("The splits are those of the folders in the class folders.")
        else:
            notes.append(
                "Found folders called like splits in class folders, not used because not all videos are in one."
            )
    if stray:
        names = some(relative_name(video, root) for video in stray)
        notes.append(f"Found {names} beside the class folders, not used because it is in none of them.")
    if len(classes) == 1 and (deeper := _class_like(holders[0][0])):
        notes.append(
            f"All videos are in the one folder {classes[0]}, which is taken for the only class: if the folders in it "
            f"({some(deeper)}) are the classes, give {holders[0][0]}."
        )
    return Found("folder per class", videos, classes, has_splits=has_splits, notes=notes)


def find_unlabelled(root: Path) -> Found | None:
    """Videos without labels, wherever they lie below ``root``; in the splits that the folders are called after."""
    divided = divide(root, quiet=True)
    if divided is None:
        return None
    if divided.has_splits:
        videos = [Video(path, relative_name(path, root), split=split) for path, split in divided.videos]
        return Found("unlabelled videos", videos, has_splits=True, notes=divided.notes)
    videos = [Video(path, relative_name(path, root)) for path in find_videos(root, given=True)]
    folder = divided.folders[0][0]
    notes = []
    if folder.direct and len(folder.holders) > 1:
        count = len(folder.direct)
        notes.append(
            f"Found the folders {some(path.name for path in folder.holders)}, not used as classes because {count} "
            f"{'videos lie' if count > 1 else 'video lies'} beside them."
        )
    return Found("unlabelled videos", videos, notes=notes)


def find_single(path: Path) -> Found | None:
    """One video, a file or a folder of frame images, used for validation (there is nothing to split)."""
    notes = []
    if path.is_dir():
        if not is_image_folder(path, given=True):
            return None
        below = [video for folder in subfolders(path) for video in find_videos(folder)]
        images = sum(1 for entry in path.iterdir() if entry.is_file())
        if any(is_video(video) for video in below) or len(below) >= images:
            return None  # pictures that happen to lie beside the videos
        if below:
            notes = [f"Found folders with {len(below)} videos beside the images, not used because these are a video."]
    kind = "folder of frame images" if path.is_dir() else "single video"
    return Found(kind, [Video(path, path.name, None, "validation")], has_splits=True, notes=notes)


def divide(root: Path, chosen: Sequence[str] | None = None, *, quiet: bool = False) -> Divided | None:
    """The folders of splits in a data folder, or the whole of it; None when there is no video.

    With ``quiet``, a folder that may be a split or a class is none, where it is an error otherwise.
    """
    base = descend(root)
    if not base.videos:
        return None
    splits = {path: split_of(path.name) for path in base.holders}
    named = {path: split for path, split in splits.items() if split and path.name not in (chosen or ())}
    others = [path for path in base.holders if path not in named]
    left = [*others, *base.direct]
    if not named or (quiet and left and len(set(named.values())) < 2):
        return Divided([(base, None)], [])
    if left and len(set(named.values())) < 2:
        name = next(iter(named)).name
        classes = _together([path.name for path in base.holders])
        raise DeltafineError(
            f"{base.path} has the folder '{name}', which is called like a split, beside "
            f"{some(path.name for path in left)}: if it is a class, name all classes (--classes {classes}); if it is a "
            "split, put the rest into a folder that is called like another one, or choose --layout unlabelled."
        )
    notes = []
    if left:
        them = "it is in no split" if len(left) == 1 else "they are in no split"
        them += f" ({some(path.name for path in named)})"
        notes = [f"Found {some(path.name for path in left)}, not used because {them}."]
    return Divided([(descend(path), split) for path, split in named.items()], notes)


def descend(root: Path) -> Folder:
    """What is in a folder, or in the only folder in it that holds videos if that is called ``videos`` or the like."""
    folder = look_into(root)
    while not folder.direct and len(folder.holders) == 1:
        (inner,) = folder.holders
        if not is_container(inner.name) and not _has_masks(folder.path, inner):
            break
        folder = look_into(inner)
    return folder


def _has_masks(base: Path, folder: Path) -> bool:
    """Whether images in another folder belong to those in this one, which is no class then: DAVIS' JPEGImages."""
    return any(
        aside_of(images, base) for other in subfolders(base) if other != folder for images in image_folders(other)
    )


def look_into(root: Path) -> Folder:
    """The videos in a folder."""
    direct = sorted((entry for entry in root.iterdir() if is_video(entry)), key=lambda entry: natural_key(entry.name))
    holders: dict[Path, list[Path]] = {}
    for folder in subfolders(root):
        videos = find_videos(folder)
        if videos:
            holders[folder] = videos
        elif folder not in direct and is_image_folder(folder):
            direct.append(folder)
    return Folder(root, direct, holders)


def _first(video: Path, folder: Path) -> str:
    """The first folder on the way from a class folder to a video in it; "" where there is none."""
    parts = video.relative_to(folder).parts
    return parts[0] if len(parts) > 1 else ""


def _too_many(folder: Folder, classes: int) -> bool:
    """Whether so many videos lie beside the folders in a folder that these hardly are classes."""
    files = sum(is_video(path) for path in folder.direct)
    return bool(files and folder.holders) and (classes < 2 or files >= sum(map(len, folder.holders.values())))


def _together(classes: Sequence[str]) -> str:
    """Classes as ``--classes`` takes them."""
    text = ",".join(classes)
    return text if len(text) < 200 and "," not in "".join(classes) else "A,B,..."


def _class_like(folder: Path) -> list[str]:
    """The names of the folders in the only class, if they may be the classes: all of its videos are in two or more."""
    inner = look_into(folder)
    return [path.name for path in inner.holders] if not inner.direct and len(inner.holders) > 1 else []


class Single(Layout):
    """One video."""

    name = "single"
    of_files = True

    def find(self, path: Path, options: LayoutOptions) -> Found | None:
        return find_single(path)


class ClassFolders(Layout):
    """A folder for each class."""

    name = "folders"

    def find(self, path: Path, options: LayoutOptions) -> Found | None:
        return find_class_folders(path, options.classes)


class Unlabelled(Layout):
    """Videos without labels."""

    name = "unlabelled"

    def find(self, path: Path, options: LayoutOptions) -> Found | None:
        return find_unlabelled(path)
