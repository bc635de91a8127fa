"""HDF5: ``frames`` (N, T, H, W, C) uint8, or a data set per video in the group ``videos``.

In the first form ``labels`` (N,) holds class numbers and ``splits`` (N,) split names. In the second every
video (T, H, W, C) carries them as attributes ``label`` and ``split``, with ``labels`` (T,) for a label per
frame, and is a data set or a group with a data set ``frames``; this is also what the cache is. ``classes``
holds the class names in both. The root's attribute, or a video's, ``rate`` gives the frames per second.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from deltafine.errors import DeltafineError
from deltafine.video.catalogue import Found, Split, Video
from deltafine.video.layouts.common import read_split

Entry = tuple[str, str, np.ndarray, Split | None]
"""The data set's name, the video's name, its label or labels, and its split."""

SUFFIXES = (".h5", ".hdf5", ".hdf")


def find_hdf5(path: Path) -> Found | None:
    """Read the catalogue of an HDF5 file: ``path`` itself, or the only one in the folder ``path``.

    Raises:
        DeltafineError: It is not an HDF5 file, or holds neither form.
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
            classes = tuple(_text(name) for name in file["classes"][()]) if "classes" in file else ()
            entries = list(_rows(file, path) if "frames" in file else _named(file, path))
    except OSError as error:
        raise DeltafineError(f"{path} is not a sound HDF5 file.") from error
    top = max((int(np.max(labels, initial=-1)) for _, _, labels, _ in entries), default=-1)
    if classes and top >= len(classes):
        raise DeltafineError(f"{path} has the label {top}, but names only {len(classes)} classes.")
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
            labels.astype(np.int64) if labels.ndim else None,
            entry=entry,
        )
        for entry, name, labels, split in entries
    ]
    return Found("HDF5", videos, classes, has_splits=bool(known) and all(known))


def _rows(file: h5py.File, path: Path) -> Iterator[Entry]:
    """The first form's names, labels and splits."""
    count = file["frames"].shape[0] if file["frames"].ndim == 5 else -1
    labels = file["labels"][()] if "labels" in file else np.full(max(count, 0), -1)
    splits = file["splits"][()] if "splits" in file else [None] * max(count, 0)
    if not count == len(labels) == len(splits):
        raise DeltafineError(f"{path} needs frames (N, T, H, W, C), and as many labels and splits.")
    for row in range(count):
        split = splits[row]
        yield (
            f"frames:{row}",
            f"frames:{row}",
            np.asarray(labels[row], np.int64),
            None if split is None else read_split(_text(split), str(path)),
        )


def _named(file: h5py.File, path: Path) -> Iterator[Entry]:
    """The second form's names, labels and splits."""
    if "videos" not in file:
        raise DeltafineError(f"{path} holds neither frames (N, T, H, W, C) nor a group of videos.")
    for name, item in file["videos"].items():
        attributes = item.attrs
        group = isinstance(item, h5py.Group)
        if group and "frames" not in item:
            raise DeltafineError(f"{path} has the group videos/{name} without frames.")
        if group and "labels" in item:
            labels = item["labels"][()]
        else:
            labels = np.asarray(attributes.get("labels", attributes.get("label", -1)), np.int64)
        split = attributes.get("split")
        yield (
            f"videos/{name}/frames" if group else f"videos/{name}",
            _text(attributes.get("name", f"videos/{name}")),
            labels,
            None if split is None else read_split(_text(split), f"{path}, {name},"),
        )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
