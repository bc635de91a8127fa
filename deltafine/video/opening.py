"""From a path to a dataset: the layout, the classes and the split."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from deltafine.errors import DeltafineError, DeltafineWarning
from deltafine.video.catalogue import Found
from deltafine.video.dataset import Dataset
from deltafine.video.finding import image_folders, images_of
from deltafine.video.frames import Limits, default_limits
from deltafine.video.layouts import Layout, find
from deltafine.video.layouts.common import nearest, some
from deltafine.video.sequences import notes_on_images
from deltafine.video.splitting import draw_split, files_in_several_splits, groups_in_several_splits, refuse_shared

TEST_VALIDATES = "The data has no validation split: its test split is what is validated on."


def open_dataset(
    path: str | os.PathLike[str],
    *,
    layout: str | Layout | None = None,
    split: int = 1,
    classes: Sequence[str] | None = None,
    validation: float = 0.2,
    seed: int = 0,
    limits: Limits | None = None,
    allow_outside: bool = False,
) -> Dataset:
    """Catalogue the videos at a path; nothing is decoded yet.

    Args:
        path: A folder of videos, a list of them, an HDF5 file, or a video file.
        layout: Name of one of ``deltafine.video.layouts.LAYOUTS``, or a ``Layout`` of your own; found out by itself
            when None.
        split: Which split lists to read, in layouts that have several.
        classes: Class names in the order of the model's outputs. Videos of other classes are left out; once every
            class of the videos is named, there may be more. By default the layout's own order: numbered by its
            class list, or sorted by name.
        validation: Share of the videos of every class that is kept for validation, in layouts that do not
            say it themselves. A test split is kept apart where there is a validation split, and is one where not.
        seed: Draws that share; the same seed gives the same split.
        limits: What one file may take before it counts as unreadable.
        allow_outside: Let lists name files outside the data folder.

    Raises:
        DeltafineError: No videos, broken or missing lists, unknown classes, or one file in both splits.

    Examples:
        >>> data = deltafine.open_dataset("videos/")
        >>> data.classes
        ('dark', 'light')
        >>> sorted({video.split for video in data.videos})
        ['train', 'validation']
    """
    root = Path(path)
    try:
        found = find(root, layout, split=split, allow_outside=allow_outside, classes=classes)
        if root.is_dir() and any(video.path.is_dir() for video in found.videos):
            found = replace(found, notes=[*found.notes, *notes_on_images(root, image_folders(root), images_of)])
        if classes is not None:
            found = _choose_classes(found, tuple(classes), root)
        if found.has_splits:
            found = _with_validation(found)
            refuse_shared(found.videos)
            in_time = files_in_several_splits(found.videos)
            if in_time:
                found.notes.append(
                    f"Segments of {some(in_time)} are in several splits: the figures say little about other videos."
                )
            parted = groups_in_several_splits(found.videos)
            if parted:
                found.notes.append(
                    f"Videos of the recording {some(parted)} are in several splits: the figures say little about other "
                    "recordings."
                )
        else:
            found = replace(found, videos=draw_split(found.videos, validation, seed))
    except OSError as error:  # of what is not a video: a folder that may not be read, a name that is too long
        raise DeltafineError(f"{some([str(error.filename or root)])} cannot be read: {error.strerror}.") from error
    return Dataset(root, found, limits or default_limits())


def open_for_frames(path: str | os.PathLike[str], **how: Any) -> Dataset:
    """The videos at a path for their frames alone: labels and splits that cannot be read do not matter.

    Args:
        path: As for ``open_dataset``.
        how: Its other arguments.

    Raises:
        DeltafineError: There are no videos.
    """
    try:
        return open_dataset(path, **how)
    except DeltafineError as error:
        if Path(path).is_dir():
            with suppress(DeltafineError):
                data = open_dataset(path, layout="unlabelled")
                warnings.warn(
                    f"All videos are used, without labels and splits: {error}", DeltafineWarning, stacklevel=2
                )
                return data
        raise error


def _with_validation(found: Found) -> Found:
    """Let the test videos validate where there are no others for it."""
    splits = {video.split for video in found.videos}
    if "test" not in splits or "validation" in splits:
        return found
    videos = [replace(video, split="validation") if video.split == "test" else video for video in found.videos]
    notes = [*found.notes, TEST_VALIDATES] if "train" in splits else found.notes
    return replace(found, videos=videos, notes=notes)


def _choose_classes(found: Found, classes: tuple[str, ...], root: Path) -> Found:
    """Renumber the labels by ``classes`` and leave out videos of classes that it does not name."""
    if not found.classes:
        raise DeltafineError(f"The videos in {root} have no labels, so classes cannot be chosen.")
    left_out = set(found.classes) - set(classes)
    for name in classes:
        if name not in found.classes and left_out:  # else the model knows classes that these videos do not show
            near = nearest(name, found.classes)
            raise DeltafineError(f"There is no class '{name}' in {root}: the nearest are {near}.")
    if len(set(classes)) != len(classes):
        raise DeltafineError("A class is named twice: name every class once.")
    numbers = np.array([classes.index(name) if name in classes else -1 for name in found.classes] + [-1])
    videos = []
    for video in found.videos:
        label = -1 if video.label is None else int(numbers[video.label])
        if video.frame_labels is not None:
            of_all = label if label >= 0 else None
            videos.append(replace(video, label=of_all, frame_labels=numbers[video.frame_labels]))
        elif label >= 0:
            videos.append(replace(video, label=label))
    if not videos:
        raise DeltafineError(f"None of the videos in {root} is of the classes {', '.join(classes)}.")
    return replace(found, videos=videos, classes=classes)
