"""HDF5: ``frames`` (N, T, H, W, C) uint8, or a data set per video in the group ``videos``.

In the first form ``labels`` (N,) holds class numbers and ``splits`` (N,) split names. In the second every
video (T, H, W, C) carries them as attributes ``label`` and ``split``, with ``labels`` (T,) for a label per
frame, and is a data set or a group with a data set ``frames``; this is also what the cache is. ``classes``
holds the class names in both. The root's attribute, or a video's, ``rate`` gives the frames per second.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from deltafine.errors import DeltafineError
from deltafine.storage.hdf5 import DAMAGE
from deltafine.video.catalogue import Found, Split, Video
from deltafine.video.layouts.common import MOST_CLASSES
from deltafine.video.layouts.layout import Layout, LayoutOptions
from deltafine.video.layouts.naming import read_split

Entry = tuple[str, str, np.ndarray, Split | None]
"""The data set's name, the video's name, its label or labels, and its split."""

SUFFIXES = (".h5", ".hdf5", ".hdf")
MOST_VIDEOS = 1_000_000
MOST_VALUES = 100 * MOST_VIDEOS


def find_hdf5(path: Path, *, allow_outside: bool = False) -> Found | None:
    """Read the catalogue of an HDF5 file: ``path`` itself, or the only one in the folder ``path``.

    Raises:
        DeltafineError: It is not an HDF5 file, holds neither form, or keeps its contents in other files.
    """
    if path.is_dir():
        files = [entry for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES]
        if len(files) != 1:
            return None
        path = files[0]
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        return None
    try:
        with h5py.File(path, "r") as file:
            if not allow_outside:
                _refuse_links(file, path)
            classes = tuple(_text(name) for name in _values(file, "classes", path)) if "classes" in file else ()
            entries = list(_rows(file, path) if "frames" in file else _named(file, path))
    except DAMAGE as error:
        raise DeltafineError(f"{path} is not a sound HDF5 file.") from error
    top = max((int(np.max(labels, initial=-1)) for _, _, labels, _ in entries), default=-1)
    if classes and top >= len(classes):
        raise DeltafineError(f"{path} has the label {top}, but names only {len(classes)} of the classes 0 to {top}.")
    classes = classes or tuple(str(number) for number in range(top + 1))
    known = [split is not None for *_, split in entries]
    if any(known) and not all(known):
        raise DeltafineError(f"{path} gives a split to some videos and not to others: give all or none.")
    videos = [
        Video(
            path,
            name,
            int(labels) if labels.ndim == 0 and labels >= 0 else None,
            split or "train",
            labels if labels.ndim else None,
            entry=entry,
        )
        for entry, name, labels, split in entries
    ]
    return Found("HDF5", videos, classes, has_splits=bool(known) and all(known), lists=[path])


def _rows(file: h5py.File, path: Path) -> Iterator[Entry]:
    """The first form's names, labels and splits."""
    shape: tuple[int, ...] = getattr(file["frames"], "shape", ())
    count = shape[0] if len(shape) == 5 else -1
    if count > MOST_VIDEOS:
        raise DeltafineError(f"{path} claims to hold {count} videos, more than {MOST_VIDEOS}.")
    labels = _labels(_values(file, "labels", path), path) if "labels" in file else np.full(max(count, 0), -1)
    splits = _values(file, "splits", path) if "splits" in file else [None] * max(count, 0)
    if not count == len(labels) == len(splits):
        raise DeltafineError(f"{path} needs frames (N, T, H, W, C), and as many labels and splits.")
    for row in range(count):
        split = splits[row]
        yield (
            f"frames:{row}",
            f"frames:{row}",
            labels[row],
            None if split is None else read_split(_text(split), str(path)),
        )


def _named(file: h5py.File, path: Path) -> Iterator[Entry]:
    """The second form's names, labels and splits."""
    if not isinstance(file.get("videos"), h5py.Group):
        raise DeltafineError(f"{path} holds neither frames (N, T, H, W, C) nor a group of videos.")
    for name, item in file["videos"].items():
        attributes = item.attrs
        group = isinstance(item, h5py.Group)
        if group and not isinstance(item.get("frames"), h5py.Dataset):
            raise DeltafineError(f"{path} has the group videos/{name} without frames.")
        if group and "labels" in item:
            labels = _values(item, "labels", path)
        else:
            labels = attributes.get("labels", attributes.get("label", -1))
        split = attributes.get("split")
        yield (
            f"videos/{name}/frames" if group else f"videos/{name}",
            _text(attributes.get("name", f"videos/{name}")),
            _labels(labels, path),
            None if split is None else read_split(_text(split), f"{path}, {name},"),
        )


def _refuse_links(file: h5py.File, path: Path) -> None:
    """Raise where HDF5 would read from other files, by a link or for a data set whose bytes are kept there."""
    own = dict(_own(file, ("frames", "labels", "splits", "classes", "videos"), path))
    videos = own.get("videos")
    if isinstance(videos, h5py.Group):
        for _, item in _own(videos, videos, path):
            if isinstance(item, h5py.Group):
                list(_own(item, ("frames", "labels"), path))


def _own(group: h5py.Group, names: Iterable[str], path: Path) -> Iterator[tuple[str, Any]]:
    """Those of the names that a group has, with what they name, if it is in the file itself."""
    for name in names:
        link = group.get(name, getlink=True)
        if link is None:
            continue
        item = group[name] if isinstance(link, h5py.HardLink) else None
        if item is None or (isinstance(item, h5py.Dataset) and (item.external or item.is_virtual)):
            raise DeltafineError(
                f"{path} only refers to '{name}', which may be outside the data folder: "
                "store it in the file itself, or allow paths outside."
            )
        yield name, item


def _values(group: h5py.Group, name: str, path: Path) -> np.ndarray:
    """A short list of labels or names."""
    item = group[name]
    if not isinstance(item, h5py.Dataset) or item.ndim not in (1, 2) or item.size > MOST_VALUES:
        raise DeltafineError(f"{path} holds something else in '{name}' than a list for its videos or frames.")
    return item[()]


def _labels(values: np.ndarray, path: Path) -> np.ndarray:
    """Class numbers as int64, -1 where there is none."""
    labels = np.asarray(values)
    if labels.dtype.kind not in "iuf" or not (np.mod(labels, 1) == 0).all() or np.max(labels, initial=0) > MOST_CLASSES:
        raise DeltafineError(f"{path} has labels that are no class numbers: use 0, 1, 2, ...")
    return np.maximum(labels, -1).astype(np.int64)


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


class Hdf5Videos(Layout):
    """Videos in an HDF5 file."""

    name = "hdf5"
    of_files = True

    def find(self, path: Path, options: LayoutOptions) -> Found | None:
        return find_hdf5(path, allow_outside=options.allow_outside)
