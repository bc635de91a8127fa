"""Finding videos, and telling whether two are the same."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from deltafine.errors import DeltafineError

VIDEO_SUFFIXES = frozenset(
    {".avi", ".mp4", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv"}
    | {".ts", ".m2ts", ".mts", ".ogv", ".3gp", ".gif"}
)
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


def is_video(path: Path) -> bool:
    """Whether the name says that this is a video (what is in the file is found out by decoding)."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """A sorting key that puts ``frame2`` before ``frame10``."""
    parts = re.split(r"([0-9]+)", text)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts if part]


def image_files(folder: Path) -> list[Path]:
    """The images right in a folder, in natural order."""
    files = [
        entry for entry in folder.iterdir() if entry.suffix.lower() in IMAGE_SUFFIXES and not entry.name.startswith(".")
    ]
    return sorted(files, key=lambda file: natural_key(file.name))


def subfolders(root: Path) -> list[Path]:
    """The visible folders right below ``root``, in natural order."""
    folders = (entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return sorted(folders, key=lambda folder: natural_key(folder.name))


def find_videos(root: Path) -> list[Path]:
    """Every video below ``root``, in natural order: files by their name, and folders that hold frame images.

    A folder counts as a video when two or more images lie in it and no video file.
    """
    return [path for folder, names in _walk(root) for path in _videos_in(folder, names, root)]


def _videos_in(folder: Path, names: list[str], root: Path) -> list[Path]:
    videos = [folder / name for name in names if is_video(Path(name))]
    if videos or folder == root:
        return videos
    images = sum(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in names)
    return [folder] if images > 1 else []


def is_image_folder(folder: Path) -> bool:
    """Whether the folder itself is one video, kept as images."""
    entries = list(folder.iterdir())
    return len(image_files(folder)) > 1 and not any(is_video(entry) for entry in entries)


def _walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Folders and their files. Links are followed, every folder is entered once: a loop of links ends.

    Both come in natural order; hidden ones are left out.
    """
    entered: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(root, followlinks=True, onerror=_refuse):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in entered:
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=natural_key)
        yield Path(folder), sorted((name for name in files if not name.startswith(".")), key=natural_key)


def _refuse(error: OSError) -> None:
    raise DeltafineError(f"The folder {error.filename} cannot be read: {error.strerror}.") from error


def relative_name(path: Path, root: Path) -> str:
    """``path`` as the dataset calls it: relative to the root where it is below, with forward slashes."""
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def as_text(name: str) -> str:
    """A name of the file system, which need not be text, with a question mark for what cannot be written as UTF-8."""
    return name.encode("utf-8", "replace").decode()


def content_hash(path: Path) -> str:
    """Hex digest of a file's bytes, or of the names and bytes of all images of a folder."""
    digest = hashlib.blake2b(digest_size=16)
    if path.is_dir():
        for image in image_files(path):
            digest.update(f"{image.name}\0{content_hash(image)}\0".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
