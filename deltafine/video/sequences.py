"""Which images are the frames of a video, and which only lie beside them: masks, optical flow, thumbnails.

Names decide, with all digits taken for the same: ``img_00001.jpg`` and ``flow_x_00001.jpg`` belong to two series, of
which one is the video. Where two series have as many images, the larger pictures are the frames.
"""

from __future__ import annotations

import re
import struct
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".jp2"})
_JPEG = (".jpg", ".jpeg")

_OTHERS = {
    "optical flow": ("flow", "flows", "flowx", "flowy", "opticalflow"),
    "masks": ("mask", "masks", "matte", "mattes", "roi", "segmentation", "segmentations", "segmentationclass", "seg"),
    "ground truth": ("gt", "groundtruth", "groundtruths", "truth"),
    "annotations": ("annotation", "annotations", "anno", "annos", "label", "labels", "scribbles"),
    "depths": ("depth", "depths", "disparity", "disparities", "disp"),
    "thumbnails": ("thumb", "thumbs", "thumbnail", "thumbnails", "preview", "previews"),
}
_MEANING = {word: meaning for meaning, words in _OTHERS.items() for word in words}
_THUMBNAILS = frozenset(_OTHERS["thumbnails"])
_ALWAYS_ASIDE = frozenset({"@eadir", "__macosx"})
"""Where Synology and macOS keep pictures and files of their own."""
_DIGITS = re.compile(r"[0-9]+")
_SPLIT = re.compile(r"([0-9]+)")
LEVELS = 4
"""So far above a folder of images its masks may lie in a folder beside: Annotations/480p/bear."""
IRREGULAR = 8
"""With more series than this, none of which has half of the images, names are taken for arbitrary."""


@dataclass
class ImageNames:
    """The images of a folder.

    Attributes:
        frames: Names of the images that are the video's frames, in natural order.
        aside: Patterns of the names of the others, with their number and what they are.
    """

    frames: list[str]
    aside: dict[str, tuple[int, str]] = field(default_factory=dict)


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """A sorting key that puts ``frame2`` before ``frame10``."""
    tokens = _SPLIT.split(text)
    return [(0, int(token), token) if token.isdecimal() else (1, 0, token) for token in tokens if token]


def is_image(name: str) -> bool:
    """Whether a file's name says that it is a visible image."""
    return _stem_and_suffix(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith(".")


def choose_frames(names: Iterable[str], area: Callable[[str], int] = lambda name: 0) -> ImageNames:
    """Tell the frames among the images of a folder from the others.

    Args:
        names: Of the images.
        area: Pixels of an image, asked for where names do not decide.
    """
    by_series: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names, key=natural_key):
        by_series[_series(name)].append(name)
    if len(by_series) > 1:
        plain = {key: of_key for key, of_key in by_series.items() if _meaning(key) is None} or dict(by_series)
        frames = _main_series(plain, area)
    else:
        frames = [name for of_key in by_series.values() for name in of_key]
    frames = _one_of_each(frames)
    chosen = set(frames)
    result = ImageNames(frames)
    like = _pattern(frames[0]) if frames else ""
    for key, of_key in by_series.items():
        left = [name for name in of_key if name not in chosen]
        by_pattern: dict[str, int] = defaultdict(int)
        for name in left:
            by_pattern[_pattern(name)] += 1
        same = bool(frames) and key == _series(frames[0])
        what = f"{meaning} beside" if (meaning := _meaning(key)) else f"called {'like' if same else 'otherwise than'}"
        result.aside.update({pattern: (count, f"{what} the frames {like}") for pattern, count in by_pattern.items()})
    return result


def _main_series(series: dict[str, list[str]], area: Callable[[str], int]) -> list[str]:
    """The images of the largest series; all of them where the names have no order."""
    everything = sorted((name for names in series.values() for name in names), key=natural_key)
    numbered = {key: names for key, names in series.items() if len(names) > 1}
    if not numbered:
        return everything
    most = max(len(names) for names in numbered.values())
    if len(series) > IRREGULAR and 2 * most < len(everything):
        return everything
    largest = [names for names in numbered.values() if len(names) == most]
    return largest[0] if len(largest) == 1 else max(largest, key=lambda names: area(names[0]))


def _one_of_each(names: list[str]) -> list[str]:
    """Without images that are called like another one but for the suffix: the masks 00000.png beside 00000.jpg."""
    stems, suffixes = zip(*map(_stem_and_suffix, names), strict=True) if names else ((), ())
    if len(set(stems)) == len(names):
        return names
    count = Counter(suffixes)
    order = sorted(count, key=lambda suffix: (-count[suffix], suffix.lower() not in _JPEG, suffix))
    best: dict[str, str] = {}
    for suffix in order:
        for stem, of_stem in zip(stems, suffixes, strict=True):
            if of_stem == suffix:
                best.setdefault(stem, suffix)
    return [name for name, stem, suffix in zip(names, stems, suffixes, strict=True) if best[stem] == suffix]


def _stem_and_suffix(name: str) -> tuple[str, str]:
    """Stem and suffix of a file's name; faster than by a path, of which there may be millions."""
    stem, dot, suffix = name.rpartition(".")
    return (stem, dot + suffix) if stem else (name, "")


def _series(name: str) -> str:
    return _DIGITS.sub("*", _stem_and_suffix(name)[0])


def _pattern(name: str) -> str:
    return _series(name) + _stem_and_suffix(name)[1]


def _meaning(name: str) -> str | None:
    """What a name says that images are instead of frames; None when it says nothing of the kind."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    return next((_MEANING[word] for word in words if word in _MEANING), None)


def aside_of(folder: Path, top: Path | None) -> tuple[Path, str] | None:
    """Whether a folder of images lies beside the frames that it belongs to, as masks do, and is no video.

    It does when it, or a folder above it, is called so, and the same numbers are in a folder beside that one:
    ``Annotations/480p/bear`` has those of ``JPEGImages/480p/bear``.

    Args:
        folder: The folder of images.
        top: The folder that the user has given, which is what the user says; None to look at all above.

    Returns:
        The folder that is called so, and what is in it; None for a video.
    """
    rest = Path()
    at = folder
    for _ in range(LEVELS):
        if at == top or at.parent == at:
            return None
        meaning = _meaning(at.name)
        if at.name.lower() in _ALWAYS_ASIDE:
            return at, "files of the system"
        if at.name.lower() in _THUMBNAILS and any(beside != at for beside in at.parent.iterdir()):
            return at, "thumbnails"
        if meaning is not None:
            for beside in _folders(at.parent, at.parent.stat().st_mtime_ns):
                if beside != at.name and _meaning(beside) is None and _covers(at.parent / beside / rest, folder):
                    return at, f"{meaning} of {beside}"
        rest = Path(at.name) / rest
        at = at.parent
    return None


def _covers(frames: Path, others: Path) -> bool:
    """Whether at least nine tenths of the numbers of some images are those of images in another folder."""
    numbers = _numbers(others)
    return bool(numbers) and 10 * len(numbers & _numbers(frames)) >= 9 * len(numbers)


def _numbers(folder: Path) -> frozenset[int]:
    try:
        return _numbers_of(folder, folder.stat().st_mtime_ns)
    except OSError:
        return frozenset()


@lru_cache(maxsize=1024)
def _numbers_of(folder: Path, changed: int) -> frozenset[int]:
    """The last number in every image's name."""
    found = (_DIGITS.findall(_stem_and_suffix(path.name)[0]) for path in folder.iterdir() if is_image(path.name))
    return frozenset(int(numbers[-1]) for numbers in found if numbers)


@lru_cache(maxsize=1024)
def _folders(folder: Path, changed: int) -> tuple[str, ...]:
    return tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."))


def image_area(path: Path) -> int:
    """Pixels of a JPEG, PNG or BMP file, by its header; 0 where that does not tell."""
    try:
        with path.open("rb") as file:
            beginning = file.read(1 << 16)
        if beginning.startswith((b"\x89PNG", b"BM")):
            form, place = (">II", 16) if beginning.startswith(b"\x89PNG") else ("<ii", 18)
            width, height = struct.unpack_from(form, beginning, place)
            return int(abs(width * height))
        place = 2
        while beginning[place] == 0xFF:
            marker = beginning[place + 1]
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
                height, width = struct.unpack_from(">HH", beginning, place + 5)
                return int(width * height)
            place += 2 + int.from_bytes(beginning[place + 2 : place + 4])
    except (OSError, IndexError, struct.error):
        pass
    return 0


def notes_on_images(root: Path, folders: Sequence[Path], chosen: Callable[[Path], ImageNames]) -> list[str]:
    """What images were found and are not used, one sentence for each kind.

    Args:
        root: The data folder.
        folders: All folders of images below it, used or not.
        chosen: Tells the frames of one.
    """
    beside: dict[tuple[str, str], tuple[int, int]] = {}
    elsewhere: dict[tuple[Path, str], int] = defaultdict(int)
    for folder in folders:
        if (aside := aside_of(folder, root)) is not None:
            elsewhere[aside] += 1
            continue
        for pattern, (count, what) in chosen(folder).aside.items():
            images, places = beside.get((pattern, what), (0, 0))
            beside[pattern, what] = images + count, places + 1
    notes = [
        f"Found {count} {'image' if count == 1 else 'images'} {pattern}{f' in {places} folders' if places > 1 else ''},"
        f" not used because {'it is' if count == 1 else 'they are'} {what}."
        for (pattern, what), (count, places) in beside.items()
    ]
    for (folder, what), count in elsewhere.items():
        name = folder.relative_to(root).as_posix()
        holds = "" if count == 1 else f" with {count} folders of images"
        notes.append(f"Found {name}{holds}, not used because these are {what}.")
    return notes
