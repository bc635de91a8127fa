"""Making a cache: every source is decoded once, in threads, and written in order."""

from __future__ import annotations

import hashlib
import json
import shutil
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass
from itertools import chain
from pathlib import Path

import h5py
import numpy as np

from deltafine.storage import hdf5
from deltafine.storage.files import ABANDONED_SECONDS, CannotWrite, JsonObject, make_folder, remove_unfinished
from deltafine.video.cache import FORMAT, FrameCache, SourceKey, cache_file, checksum_of_tables, open_cache
from deltafine.video.catalogue import Video
from deltafine.video.conversion import VERSION, say_depth
from deltafine.video.examination import Examination, count_of
from deltafine.video.frames import FrameIndex, UnreadableVideo, read_frames
from deltafine.video.kept_frames import KeptFrames
from deltafine.video.meter import Meter, Within
from deltafine.video.prefetch import ordered
from deltafine.video.reading import DecodedFrames
from deltafine.video.sources import source_of

HELD_BYTES = 32 << 20
"""Most bytes of decoded frames that a thread holds; what is larger is written bit by bit."""


@dataclass(frozen=True)
class CacheSettings:
    """Where decoded frames are kept, and how much they may take.

    Attributes:
        directory: Made when needed.
        most_bytes: Larger caches are not made; None for what the disk has room for.
        announce: Told in one sentence what will be written, or why nothing is.
        progress: Called with the number of videos decoded and of all.
        within: Called with these and, in words, where in a long video it is; from any thread.
    """

    directory: Path
    most_bytes: int | None = None
    announce: Callable[[str], None] = lambda message: None
    progress: Callable[[int, int], None] = lambda done, total: None
    within: Within = lambda done, total, words: None


def open_or_build(
    examination: Examination,
    videos: Sequence[Video],
    classes: tuple[str, ...],
    reader: DecodedFrames,
    settings: CacheSettings,
    workers: int,
) -> FrameCache | None:
    """The cache of the videos' frames as a reader gives them, made where there is none.

    Returns:
        The cache, or None where there is no room for one; ``settings.announce`` is told why.
    """
    by_source: dict[SourceKey, list[Video]] = {}
    for video in videos:
        by_source.setdefault(video.source, []).append(video)
    sources = list(by_source)
    firsts = [segments[0] for segments in by_source.values()]
    facts = (FORMAT, VERSION, reader.size, reader.channels, examination.limits)
    key = hashlib.blake2b(repr((*facts, examination.fingerprint(videos, classes))).encode(), digest_size=12)
    path = cache_file(settings.directory, key.hexdigest())
    stamps = [examination.stamp(video) for video in firsts]
    cache = open_cache(path, sources, stamps)
    if cache is not None and cache.bits:  # of all videos, of which the others may have changed
        examination.adopt(cache.indexes)
    if cache is not None and (not cache.bits or cache.bits == examination.depth()):
        return cache
    segments = [video for video in videos if video.is_segment]
    # Of segments only their frames are kept, and reading through tells how many these are.
    examination.scan(segments, workers, settings.progress, settings.within)
    segmented = {video.source for video in segments}
    frames = sum(
        ordered(examination.estimate, [video for video in firsts if video.source not in segmented], workers=workers)
    )
    frames += sum(len(_shown(examination, by_source[source])) for source in segmented)
    expected = frames * reader.size[0] * reader.size[1] * reader.channels
    try:
        make_folder(settings.directory)
        remove_unfinished(settings.directory, older_than=ABANDONED_SECONDS)
        free = shutil.disk_usage(settings.directory).free
        room = free if settings.most_bytes is None else min(free, settings.most_bytes)
        if expected * 1.05 > room:
            settings.announce(
                f"Frames are decoded again in every epoch: keeping them would take {_size(expected)}, "
                f"and there is room for {_size(room)} in {settings.directory}."
            )
            return None
        settings.announce(
            f"Keeping the decoded frames of {count_of(len(sources), 'video')}, about {_size(expected)}, in {path}."
        )
        hdf5.write(
            path,
            lambda file: _build(file, examination, list(by_source.values()), classes, reader, settings, workers),
        )
    except CannotWrite as error:
        settings.announce(f"Frames are decoded again in every epoch: {error}")
        return None
    return open_cache(path, sources, stamps)


def _build(
    file: hdf5.WrittenFile,
    examination: Examination,
    of_sources: list[list[Video]],
    classes: tuple[str, ...],
    reader: DecodedFrames,
    settings: CacheSettings,
    workers: int,
) -> None:
    table: list[JsonObject] = []
    times: list[np.ndarray] = []

    number = 0

    def meter_of(video: Video, frames: int | None = None) -> Meter:
        return examination.meter(video, lambda words: settings.within(number, len(of_sources), words), frames)

    def decode(which: tuple[int, list[Video]]) -> tuple[list[Video], FrameIndex | None, KeptFrames, np.ndarray | None]:
        place, videos = which
        kept = KeptFrames(file, _frames_of(place), reader.converter(), HELD_BYTES)
        index, frames = _decode(examination, videos, reader, kept, meter_of(videos[0]))
        usable = [video for video in videos if examination.index(video) is not None]  # segments beside damage are sound
        return usable or videos, index, kept, frames

    file.create_dataset("classes", data=[_bytes(name) for name in classes], dtype=h5py.string_dtype())
    for number, (videos, index, kept, held) in enumerate(ordered(decode, enumerate(of_sources), workers=workers)):
        settings.progress(number + 1, len(of_sources))
        file.check_room()
        if index is None:
            kept.discard()
            table.append({"problem": examination.reason(videos[0])})
            continue
        runs = _runs(_shown(examination, videos))
        count = sum(length for _, length in runs)
        group = file.require_group(f"videos/{number:06d}")
        _describe(group, videos)
        checksum = kept.finish(count)
        file.check_room()
        if checksum is None:
            kept.discard()
            streams = (reader.stream(videos[0], np.arange(first, first + length), 64) for first, length in runs)
            chunks = chain.from_iterable(streams) if held is None else [held]
            try:
                stored = group.create_dataset("frames", (count, *reader.size, reader.channels), np.uint8)
                checksum = _store(file, stored, chunks, meter_of(videos[0], count))
            except UnreadableVideo as error:
                examination.note_bad_source(videos[0], str(error))
                del file[group.name]
                table.append({"problem": str(error)})
                continue
        shape = {"width": index.width, "height": index.height}
        rest = {"codec": index.codec, "checksum": checksum, "peak": index.peak}
        rest["damage"] = [astuple(damage) for damage in index.damage]
        table.append({"count": index.count, "runs": runs, **shape, **rest})
        times.append(index.times)
    file["times"] = np.concatenate(times) if times else np.empty(0)
    file["table"] = json.dumps(table)
    file.attrs["shape"] = (*reader.size, reader.channels)
    file.attrs["format"] = FORMAT
    bits = examination.depth() if any(entry.get("peak") for entry in table) else 0
    if bits:
        settings.announce(say_depth(bits))
    file.attrs["bits"] = bits
    file.attrs["tables"] = checksum_of_tables(file)
    file.attrs["complete"] = True


def _store(file: hdf5.WrittenFile, stored: h5py.Dataset, chunks: Iterable[np.ndarray], meter: Meter) -> int:
    """Write a source's frames bit by bit, and give their checksum. A full disk ends it at once."""
    checksum = filled = 0
    for chunk in chunks:
        stored[filled : filled + len(chunk)] = chunk
        checksum = zlib.crc32(np.ascontiguousarray(chunk).data, checksum)
        filled += len(chunk)
        meter.count(len(chunk))
        file.check_room()
    return checksum


def _decode(
    examination: Examination, videos: list[Video], reader: DecodedFrames, kept: KeptFrames, meter: Meter
) -> tuple[FrameIndex | None, np.ndarray | None]:
    """A source's index, and its frames if few enough to be held; None and None when it is bad.

    A source that was not read through yet is examined and decoded in one go, into ``kept``.
    """
    found = [examination.index(video, sink=kept.take, meter=meter) for video in videos]
    index = next((index for index in found if index is not None), None)
    if index is None:
        return None, None
    if kept.count:
        return index, kept.held(index.count)
    numbers = _shown(examination, videos)
    convert = reader.converter()
    if not 0 < len(numbers) <= HELD_BYTES // int(np.prod(convert.shape)):
        return index, None
    try:
        source = source_of(videos[0])
        frames = np.empty((len(numbers), *convert.shape), np.uint8)
        filled = 0
        for first, count in _runs(numbers):  # one by one, because what is between may be long, or damaged
            read_frames(
                source,
                index,
                range(first, first + count),
                convert,
                examination.limits,
                frames[filled : filled + count],
            )
            filled += count
        return index, frames
    except UnreadableVideo as error:
        examination.note_bad_source(videos[0], str(error))
        return None, None


def _frames_of(number: int) -> str:
    return f"videos/{number:06d}/frames"


def _shown(examination: Examination, videos: list[Video]) -> np.ndarray:
    """(frames,) int64, ascending: the frames of one source that any of the videos shows."""
    shown = [examination.frame_numbers(video) for video in videos]
    return np.unique(np.concatenate(shown)) if shown else np.empty(0, np.int64)


def _runs(numbers: np.ndarray) -> list[tuple[int, int]]:
    """First frame and number of frames of every stretch of neighbouring frames."""
    if not len(numbers):
        return []
    begins = np.flatnonzero(np.diff(numbers, prepend=numbers[0] - 2) != 1)
    counts = np.diff(begins, append=len(numbers))
    return list(zip(numbers[begins].tolist(), counts.tolist(), strict=True))


def _describe(group: h5py.Group, videos: list[Video]) -> None:
    """Name, label and split, so that the file is a dataset of its own; not for segments of one file."""
    group.attrs["name"] = _bytes(videos[0].name)
    group.attrs["split"] = videos[0].split
    if len(videos) > 1 or videos[0].is_segment:
        return
    if videos[0].frame_labels is not None:
        group["labels"] = videos[0].frame_labels
    elif videos[0].label is not None:
        group.attrs["label"] = videos[0].label


def _bytes(name: str) -> bytes:
    """A name of the file system, which need not be text."""
    return name.encode("utf-8", "surrogateescape")


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
