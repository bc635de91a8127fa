"""One folder per class, and the plain cases: a folder of unlabelled videos, a single video."""

from __future__ import annotations

from pathlib import Path

from deltafine.video.catalogue import Found, Split, Video
from deltafine.video.files import find_videos, image_folders, is_image_folder, is_video, relative_name, subfolders
from deltafine.video.layouts.common import SPLIT_NAMES, number_classes
from deltafine.video.sequences import aside_of


def find_class_folders(root: Path) -> Found | None:
    """``<class>/<video>``, or ``train/<class>/<video>`` beside ``validation/`` (``val``, ``test``).

    All of it may lie in one folder ``videos``. Videos may lie deeper inside their class folder, and may be
    folders of frame images. Classes are sorted by name.
    """
    base = root / "videos" if [folder.name for folder in subfolders(root)] == ["videos"] else root
    if any(is_video(entry) for entry in base.iterdir()):
        return None
    parts = {folder: SPLIT_NAMES.get(folder.name.lower()) for folder in subfolders(base)}
    has_splits = bool(parts) and all(parts.values())
    class_folders: list[tuple[Path, Split]] = (
        [(inner, split) for folder, split in parts.items() if split for inner in subfolders(folder)]
        if has_splits
        else [(folder, "train") for folder in parts]
    )
    videos_of = {folder: find_videos(folder) for folder, _ in class_folders}
    holding = [folder for folder, videos in videos_of.items() if videos]
    if not holding or (not has_splits and len(holding) == 1 and _has_masks(base, holding[0])):
        return None
    classes = number_classes(folder.name for folder, videos in videos_of.items() if videos)
    videos = [
        Video(path, relative_name(path, root), classes.index(folder.name), split)
        for folder, split in class_folders
        for path in videos_of[folder]
    ]
    return Found("folder per class", videos, classes, has_splits=has_splits)


def _has_masks(base: Path, folder: Path) -> bool:
    """Whether images in another folder belong to those in this one, which is no class then: DAVIS' JPEGImages."""
    return any(
        aside_of(images, base) for other in subfolders(base) if other != folder for images in image_folders(other)
    )


def find_unlabelled(root: Path) -> Found | None:
    """Videos without labels, wherever they lie below ``root``."""
    videos = [Video(path, relative_name(path, root)) for path in find_videos(root, given=True)]
    return Found("unlabelled videos", videos) if videos else None


def find_single(path: Path) -> Found | None:
    """One video, a file or a folder of frame images, used for validation (there is nothing to split)."""
    if path.is_dir() and not is_image_folder(path, given=True):
        return None
    kind = "folder of frame images" if path.is_dir() else "single video"
    return Found(kind, [Video(path, path.name, None, "validation")], has_splits=True)
