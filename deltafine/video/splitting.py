"""Training and validation videos: drawn by video, never by clip, and never the same file in both."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from deltafine.errors import DeltafineError
from deltafine.video.catalogue import Video
from deltafine.video.finding import content_hash
from deltafine.video.layouts.common import some


def draw_split(videos: Sequence[Video], validation: float, seed: int) -> list[Video]:
    """Mark a share of the videos of every class for validation.

    Copies and segments of one file count as one and stay together, and so do videos of one group, and UCF101's clips
    of one recording. A class with two or more of these has at least one on each side, unless ``validation`` is 0 or
    1. A single video validates: it can only be split in time.

    Args:
        videos: All videos; labels may be None.
        validation: Share of each class, 0 to 1.
        seed: The same seed draws the same split, whatever the machine.
    """
    if not 0 <= validation <= 1:
        raise DeltafineError(f"The validation share is {validation}: it must lie between 0 and 1.")
    if len(videos) == 1 and 0 < validation < 1:  # nothing to draw: as a file that is given itself
        return [replace(videos[0], split="validation")]
    recording = _recordings(videos)
    groups: dict[int | None, dict[str, None]] = defaultdict(dict)
    first_label: dict[str, int | None] = {}
    for video, group in zip(videos, recording, strict=True):
        groups[first_label.setdefault(group, video.label)][group] = None
    generator = np.random.default_rng(seed)
    chosen: set[str] = set()
    for label in sorted(groups, key=lambda label: -1 if label is None else label):
        names = list(groups[label])
        wanted = round(validation * len(names))
        if 0 < validation < 1 and len(names) > 1:
            wanted = min(max(wanted, 1), len(names) - 1)
        chosen.update(names[place] for place in generator.permutation(len(names))[:wanted])
    return [
        replace(video, split="validation" if group in chosen else "train")
        for video, group in zip(videos, recording, strict=True)
    ]


def _recordings(videos: Sequence[Video]) -> list[str]:
    """For every video a name that is the same for what must stay together.

    These are segments and copies of one file, videos of one group, and UCF101's clips of one recording
    (v_Run_g07_c01, v_Run_g07_c02).
    """
    names: dict[tuple[str, str | None], str] = {}
    same: dict[str, str] = {}  # by name: another one that it must stay with

    def last(name: str) -> str:
        while name in same:
            name = same[name]
        return name

    def together(one: str, other: str) -> None:
        one, other = last(one), last(other)
        if one != other:
            same[other] = one

    for video in videos:
        cut = re.fullmatch(r"(.*_g\d+)_c\d+", video.path.stem)
        by_name = f"{video.path.parent / cut[1]}" if cut else repr(video.source)
        name = by_name if video.group is None else repr(("group", video.group))
        together(names.setdefault(video.source, name), name)
    for twins in _copies(videos):
        for video in twins:
            together(names[twins[0].source], names[video.source])
    return [last(names[video.source]) for video in videos]


def refuse_shared(videos: Sequence[Video]) -> None:
    """Raise when the same pictures, of one file or of files of the same bytes, are in two splits.

    Segments of one file that do not overlap are different pictures.
    """
    by_source: dict[tuple[str, str | None], list[Video]] = defaultdict(list)
    for video in videos:
        by_source[video.source].append(video)
    both = [video.name for segments in by_source.values() for video, _ in _shared(segments) if video.split == "train"]
    both = both or [video.name for segments in by_source.values() for video, _ in _shared(segments)]
    if both:
        sides = _lists(next(pair for segments in by_source.values() for pair in _shared(segments)))
        count = "1 video is" if len(both) == 1 else f"{len(both)} videos are"
        raise DeltafineError(f"{count} both in {sides} ({some(both)}): keep each in one of them.")
    pairs = [pair for twins in _copies(videos) for pair in _shared(twins)]
    if pairs:
        count = (
            "1 video of one list has a copy of"
            if len(pairs) == 1
            else f"{len(pairs)} videos of one list have copies of"
        )
        raise DeltafineError(
            f"{count} the same content in the other: {_lists(pairs[0])} "
            f"({some(f'{one.name} = {other.name}' for one, other in pairs)}): keep each in one of the lists."
        )


def files_in_several_splits(videos: Sequence[Video]) -> list[str]:
    """Names of the files of which segments are in several splits."""
    sides: dict[tuple[str, str | None], set[str]] = defaultdict(set)
    for video in videos:
        sides[video.source].add(video.split)
    return [Path(source).name for (source, _), splits in sides.items() if len(splits) > 1]


def groups_in_several_splits(videos: Sequence[Video]) -> list[str]:
    """Names of the groups of which videos are in several splits."""
    sides: dict[str, set[str]] = defaultdict(set)
    for video in videos:
        if video.group is not None:
            sides[video.group].add(video.split)
    return [group for group, splits in sides.items() if len(splits) > 1]


def _shared(segments: Sequence[Video]) -> list[tuple[Video, Video]]:
    """Pairs of videos of one content that are in different splits and show the same pictures; each video once."""
    if len({segment.split for segment in segments}) < 2:
        return []
    found: dict[int, tuple[Video, Video]] = {}
    if len({unit for one in segments if one.is_segment for unit in one.extents}) > 1:
        raise DeltafineError(
            f"Segments of {segments[0].path.name} are given in seconds and in frames, in different splits: give all in "
            "one."
        )
    for unit in ("seconds", "frames"):
        inside = sorted((one for one in segments if unit in one.extents), key=lambda one: one.extents[unit])
        furthest: dict[str, tuple[float, Video]] = {}
        for segment in inside:
            start, end = segment.extents[unit]
            for split, (until, other) in furthest.items():
                if split != segment.split and start < until:
                    one, two = (other, segment) if other.split == "train" else (segment, other)
                    found.setdefault(id(one), (one, two))
            if segment.split not in furthest or furthest[segment.split][0] < end:
                furthest[segment.split] = (end, segment)
    return list(found.values())


def _lists(pair: tuple[Video, Video]) -> str:
    names = {"train": "training"}
    one, two = (names.get(video.split, video.split) for video in pair)
    return f"the {one} and in the {two} list"


def _copies(videos: Iterable[Video]) -> list[list[Video]]:
    """Groups of two or more videos whose files hold the same bytes. Only files of one size are read."""
    by_size: dict[int, list[Video]] = defaultdict(list)
    for video in videos:
        if video.path.is_file() and video.entry is None:
            by_size[video.path.stat().st_size].append(video)
    by_content: dict[str, list[Video]] = defaultdict(list)
    for size, alike in by_size.items():
        if len({video.path for video in alike}) > 1 and size:
            for video in alike:
                try:
                    by_content[content_hash(video.path)].append(video)
                except OSError:
                    continue  # an unreadable file is reported when it is decoded
    return [group for group in by_content.values() if len(group) > 1]
