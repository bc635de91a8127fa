"""Finding videos, and telling whether two are the same."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from deltafine.errors import DeltafineError
from deltafine.video import sequences
from deltafine.video.sequences import ImageNames, aside_of, choose_frames, image_area, is_image

IMAGE_SUFFIXES = sequences.IMAGE_SUFFIXES
natural_key = sequences.natural_key

VIDEO_SUFFIXES = frozenset(
    {".avi", ".mp4", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".f4v", ".asf", ".divx"}
    | {".ts", ".m2ts", ".mts", ".m2t", ".vob", ".ogv", ".3gp", ".3g2", ".gif", ".mxf", ".dv", ".y4m", ".ivf"}
    | {".h264", ".264", ".h265", ".265", ".hevc", ".m1v", ".m2v", ".mjpg", ".mjpeg"}
)


def is_video(path: Path) -> bool:
    """Whether the name says that this is a video (what is in the file is found out by decoding)."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def image_files(folder: Path) -> list[Path]:
    """The images right in a folder that are the frames of a video, in natural order."""
    return [folder / name for name in images_of(folder).frames]


def images_of(folder: Path) -> ImageNames:
    """The images right in a folder: frames, and what lies beside them."""
    names = [entry.name for entry in folder.iterdir() if is_image(entry.name)]
    return choose_frames(names, lambda name: image_area(folder / name))


def subfolders(root: Path) -> list[Path]:
    """The visible folders right below ``root``, in natural order."""
    folders = (entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return sorted(folders, key=lambda folder: natural_key(folder.name))


def find_videos(root: Path, *, given: bool = False) -> list[Path]:
    """Every video below ``root``, in natural order: files by their name, and folders that hold frame images.

    A folder counts as a video when two or more images lie in it that are frames, no video file, and it does not
    belong to another one, as masks do. With ``given`` the user has named ``root`` itself, which is no such folder then.
    """
    found = []
    for folder, names in _walk(root):
        videos = [folder / name for name in names if is_video(Path(name))]
        if videos or folder == root:
            found += videos
        elif _holds_frames(folder, names) and aside_of(folder, root if given else root.parent) is None:
            found.append(folder)
    return found


def is_image_folder(folder: Path, *, given: bool = False) -> bool:
    """Whether the folder itself is one video, kept as images; see ``find_videos``."""
    names = [entry.name for entry in folder.iterdir()]
    if any(is_video(Path(name)) for name in names) or not _holds_frames(folder, names):
        return False
    return given or aside_of(folder, folder.parent) is None


def image_folders(root: Path) -> list[Path]:
    """Every folder below ``root``, and it itself, in which images and no video files lie."""
    return [
        folder
        for folder, names in _walk(root)
        if any(map(is_image, names)) and not any(is_video(Path(name)) for name in names)
    ]


def _holds_frames(folder: Path, names: Iterable[str]) -> bool:
    images = [name for name in names if is_image(name)]
    return len(images) > 1 and len(choose_frames(images, lambda name: image_area(folder / name)).frames) > 1


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
