"""What splits and folders of videos are called."""

from __future__ import annotations

import re

from deltafine.errors import DeltafineError
from deltafine.video.catalogue import Split

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validate": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
"""What the splits are called in folders and lists."""

_FILLERS = ("videos", "video", "clips", "clip", "dataset", "data", "set", "split", "rawframes", "frames", "images")
_OF_LISTS = (*_FILLERS, "lists", "list", "files", "file")
_CONTAINER = re.compile(
    r"videos?|clips?|data(set)?s?|(raw)?frames|images|jpe?g(s|images)?|[0-9]{3,4}p"
    r"|ucf[-_]?(101|50|11|sports)|hmdb[-_]?51([-_]org)?|kinetics[-_]?\d*|20bn-.+|something-something-v\d",
    re.IGNORECASE,
)


def split_of(name: str) -> Split | None:
    """The split that a folder is called after: train, val_videos, videos-test, TrainSet, train_256; None for others."""
    words = {_bare(word, _FILLERS) for word in _words(name) if not re.fullmatch(r"[0-9]{3,4}", word)} - {""}
    return SPLIT_NAMES.get(words.pop()) if len(words) == 1 else None


def split_of_list(stem: str) -> Split | None:
    """The only split that a list's name speaks of: kinetics400_train_list_videos, val, jester-v1-validation."""
    found = {SPLIT_NAMES.get(_bare(re.sub(r"[0-9]+$", "", word), _OF_LISTS)) for word in _words(stem)} - {None}
    return found.pop() if len(found) == 1 else None


def split_number(stem: str) -> int | None:
    """Which of several divisions a list belongs to: 2 for ucf101_train_split_2_videos and trainlist02."""
    match = re.search(
        r"split[_-]?([0-9]{1,2})(?![0-9])|(?:train|val|test)(?:list)?_?([0-9]{1,2})$", stem, re.IGNORECASE
    )
    return int(match[1] or match[2]) if match else None


def is_container(name: str) -> bool:
    """Whether a folder's name only says that videos are in it, or which collection they are."""
    return _CONTAINER.fullmatch(name) is not None


def read_split(name: str, where: str) -> Split:
    """The split that a list calls ``name``."""
    split = SPLIT_NAMES.get(name.lower())
    if split is None:
        raise DeltafineError(f"{where} has the split '{name}': use train, validation or test.")
    return split


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z]+[0-9]*|[0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())


def _bare(word: str, fillers: tuple[str, ...]) -> str:
    """A word without what only says that it is a set of videos: trainset, videostrain."""
    for filler in fillers:
        if word == filler:
            return ""
        for short in (word.removesuffix(filler), word.removeprefix(filler)):
            if short in SPLIT_NAMES:
                return short
    return word
