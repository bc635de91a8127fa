"""Counts, durations and sizes of a dataset, to be shown."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deltafine.video.catalogue import SPLITS
from deltafine.video.conversion import bits_for, say_depth
from deltafine.video.labels import spread_of

if TYPE_CHECKING:
    from deltafine.video.catalogue import Video
    from deltafine.video.dataset import Dataset

VERBS = {"train": "train", "validation": "validate", "test": "test"}


@dataclass(frozen=True)
class ClassCounts:
    """What there is of one class, bad videos left out.

    Attributes:
        name: The class.
        train, validation, test: Videos; for data with a label per frame, videos in which the class occurs.
        frames: Frames of the class.
        seconds: How long these last.
    """

    name: str
    train: int
    validation: int
    frames: int
    seconds: float
    test: int = 0


@dataclass(frozen=True)
class Overview:
    """Facts about a dataset.

    Attributes:
        classes: One entry for each class, in the order of the labels; none where labels are numbers.
        lines: Durations, sizes, frame rates and codecs, one clause each.
    """

    classes: tuple[ClassCounts, ...]
    lines: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Shown:
    video: Video
    numbers: np.ndarray
    rate: float
    size: str
    codec: str
    peak: int


def overview(data: Dataset) -> Overview:
    """The facts about all usable videos; reads through those that were not read yet."""
    data.scan()
    shown = []
    for video in data.videos:
        index = data.index(video)
        if index is not None:
            numbers = data.examination.frame_numbers(video)
            size = f"{index.width}x{index.height}"
            shown.append(_Shown(video, numbers, index.count / index.seconds, size, index.codec, index.peak))
    if data.values:
        return Overview((), (*_numbers(data, shown), *_lines(shown)))
    classes = tuple(_count(data, shown, label, name) for label, name in enumerate(data.classes))
    return Overview(classes, tuple(_lines(shown)))


def _numbers(data: Dataset, shown: list[_Shown]) -> list[str]:
    """What the labels of each split are, where they are numbers."""
    lines = []
    for split in SPLITS:
        labels = [data.frame_labels(one.video)[one.numbers] for one in shown if one.video.split == split]
        known = np.concatenate([np.empty(0, np.int64), *labels])
        if known.size:
            counts = np.bincount(known[known >= 0], minlength=len(data.values))
            lines.append(f"Labels to {VERBS[split]}: {counts.sum()} frames, {spread_of(data.values, counts)}")
    return lines


def _count(data: Dataset, shown: list[_Shown], label: int, name: str) -> ClassCounts:
    splits: Counter[str] = Counter()
    frames, seconds = 0, 0.0
    for one in shown:
        own = int((data.frame_labels(one.video)[one.numbers] == label).sum())
        if own:
            splits[one.video.split] += 1
            frames += own
            seconds += own / one.rate
    return ClassCounts(name, splits["train"], splits["validation"], frames, seconds, splits["test"])


def _lines(shown: list[_Shown]) -> list[str]:
    if not shown:
        return ["No video can be used."]
    lengths = np.array([len(one.numbers) for one in shown])
    seconds = np.array([len(one.numbers) / one.rate for one in shown])
    lines = [
        f"Frames per video: {_spread(lengths, '.0f')}; {lengths.sum()} in all",
        f"Seconds per video: {_spread(seconds, '.2f')}; {seconds.sum():.1f} in all",
        f"Frames per second: {_tally(Counter(f'{one.rate:.4g}' for one in shown))}",
        f"Picture size: {_tally(Counter(one.size for one in shown))}",
        f"Codec: {_tally(Counter(one.codec for one in shown))}",
    ]
    peak = max(one.peak for one in shown)
    if peak:
        lines.append(say_depth(bits_for(peak)).rstrip("."))
    return lines


def _spread(values: np.ndarray, form: str) -> str:
    least, middle, most = (format(value, form) for value in (values.min(), np.median(values), values.max()))
    return least if least == most else f"{least} to {most}, median {middle}"


def _tally(counts: Counter[str], most: int = 4) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    shown = [f"{name} ({count})" for name, count in counts.most_common(most)]
    rest = len(counts) - most
    return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")
