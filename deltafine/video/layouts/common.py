"""What the layouts share: reading small text files, finding what they name, and saying what is wrong in them."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from deltafine.errors import DeltafineError
from deltafine.video.catalogue import Problem
from deltafine.video.finding import is_video, relative_name, subfolders
from deltafine.video.sequences import is_image

MOST_LIST_BYTES = 1 << 28
MOST_CLASSES = 1_000_000
"""More than any list or model has; what a broken or hostile file claims beyond would fill the memory."""


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, stripped, without empty ones."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def read_text(path: Path) -> str:
    """A text file in UTF-8, whose mark at the beginning is left out.

    Raises:
        DeltafineError: It is none, or too large for a list.
    """
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait without end
            raise DeltafineError(f"{path} is not a regular file: a list must be one.")
        if path.stat().st_size > MOST_LIST_BYTES:
            raise DeltafineError(f"{path} has {path.stat().st_size} bytes, too many for a list of videos.")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DeltafineError(f"{path} is not a text file in UTF-8: save it as UTF-8.") from error
    except OSError as error:
        raise DeltafineError(f"{path} cannot be read: {error.strerror}.") from error


def whole_number(text: str, most: int) -> int | None:
    """The number that a text writes in digits; None when it does not, or when it is above ``most``."""
    number = int(text) if re.fullmatch(r"[0-9]{1,15}", text) else None
    return number if number is not None and number <= most else None


def locate(
    root: Path, name: str, listed_in: Path, *, folders: Sequence[str] = (".",), allow_outside: bool = False
) -> Path | None:
    """Where the video that a list calls ``name`` lies: below one of ``folders``; None when nowhere.

    Raises:
        DeltafineError: The name is an absolute path elsewhere or climbs out of the data folder with "..".
    """
    pure = relative_to(root, name) or PurePosixPath(name.replace("\\", "/"))
    depth = 0
    for component in pure.parts:
        depth += -1 if component == ".." else 1
        outside = depth < 0 or pure.is_absolute() or re.match(r"[A-Za-z]:", name) is not None
        if outside and not allow_outside:
            raise DeltafineError(
                f"{listed_in} names '{name}', which is outside the data folder {root}: "
                "list only files below it, or allow paths outside."
            )
    for folder in folders:
        path = root / folder / pure
        if path.exists() or path.is_symlink():
            return path
    return None


def locate_flat(
    root: Path, name: str, listed_in: Path, *, folders: Sequence[str], allow_outside: bool = False
) -> Path | None:
    """The same where the videos may also lie without their class folders, all in one of ``folders``."""
    found = locate(root, name, listed_in, folders=folders, allow_outside=allow_outside)
    plain = PurePosixPath(name.replace("\\", "/")).name
    return found or locate(root, plain, listed_in, folders=folders, allow_outside=allow_outside)


def list_folders(root: Path, known: Sequence[str], *, only_usual: bool = False) -> list[Path]:
    """Where lists may lie: in the folders that they are usually in, then in any other that is right below ``root``."""
    usual = [root / name for name in known if (root / name).is_dir()]
    if only_usual:
        return usual
    others = (folder for folder in subfolders(root) if not any(map(_is_shown, folder.iterdir())))
    return list(dict.fromkeys([*usual, *others]))


def list_name(path: Path, root: Path) -> str:
    """What a list is called for the user: relative to the data folder, ``../`` where it lies beside it."""
    around = root.resolve().parent
    if not path.is_relative_to(root) and path.is_relative_to(around):
        return f"../{path.relative_to(around).as_posix()}"
    return relative_name(path, root)


def _is_shown(path: Path) -> bool:
    return is_video(path) or is_image(path.name)


def relative_to(root: Path, name: str) -> PurePosixPath | None:
    """An absolute name as a path relative to the data folder; None when it is not absolute, or not below it."""
    if not Path(name).is_absolute():
        return None
    plain = Path(os.path.normpath(name))
    for base in (root.absolute(), root.resolve()):
        if plain.is_relative_to(base):
            return PurePosixPath(plain.relative_to(base).as_posix())
    return None


def some(names: Iterable[str], most: int = 3) -> str:
    """The first few names, for a message: "a, b, c and 7 more"."""
    names = list(names)
    shown = ", ".join(name if len(name) <= 200 else f"{name[:150]}…{name[-40:]}" for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def nearest(name: str, known: Sequence[str]) -> str:
    """The known names most like ``name``, for a message; the first ones when none is like it."""
    return some(difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known, most=10)


def expected(root: Path, name: str) -> Path:
    """Where a video would lie that a list names and that is not there."""
    return root / PurePosixPath(name.replace("\\", "/"))


def note_missing(
    missing: Sequence[Path], total: int, listed_in: Path, root: Path, *, beside: bool = False
) -> list[Problem]:
    """What is wrong with videos that a list names and that are not there: they count among the unreadable ones.

    Args:
        missing: Where they would lie.
        total: How many videos the list names.
        listed_in, root: The list, and the data folder.
        beside: Whether the list lies beside the data folder, of which it may only be by name.

    Raises:
        DeltafineError: None of all the videos is there, or one is not and the list lies beside the data folder.
    """
    names = [relative_name(path, root) for path in missing]
    if names and (beside or len(names) == total):
        raise DeltafineError(
            f"{listed_in} names {total} videos of which {len(names)} are not below {root} "
            f"({some(names)}): add the missing files or take them off the list."
        )
    return [Problem(name, f"is listed in {listed_in.name} but not there") for name in dict.fromkeys(names)]


def number_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Class names in the order that every layout without a class list of its own gives them: sorted."""
    return tuple(sorted(set(names)))


def number_labels(names: Iterable[str]) -> tuple[tuple[str, ...], list[str]]:
    """Class names of a list, and what is to be said of their order: whole numbers are sorted as numbers."""
    classes = number_classes(names)
    if not all(whole_number(name, MOST_CLASSES) is not None for name in classes):
        return classes, []
    by_number = tuple(sorted(classes, key=lambda name: (int(name), name)))
    said = ["The labels are whole numbers: classes are in the order of these numbers, not of their spelling."]
    return by_number, said if by_number != classes else []
