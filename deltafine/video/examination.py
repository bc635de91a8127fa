"""What is known of each video: read through once, remembered, and what was found wrong with it."""

from __future__ import annotations

import hashlib
import math
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from av.video.frame import VideoFrame

from deltafine.video.cache import SourceKey
from deltafine.video.catalogue import Problem, Video
from deltafine.video.conversion import bits_for
from deltafine.video.ends import Ends
from deltafine.video.finding import content_hash
from deltafine.video.frames import Damage, FrameIndex, FrameSource, Limits, UnreadableVideo
from deltafine.video.meter import Meter, Within
from deltafine.video.prefetch import ordered
from deltafine.video.sources import source_of
from deltafine.video.windows import TICK, chosen_frames

ROUNDED_SECONDS = 0.1
"""By how much a list may put the end of a segment behind the end of its file without a word: people round."""


class Examination:
    """The facts about a dataset's videos. May be used by several threads at once.

    Attributes:
        limits: What one file may take.

    Args:
        limits: The same.
        problems: What is known to be wrong already.
        videos: All videos of the data set: pictures of 16 bits are scaled alike in all of them.
    """

    def __init__(self, limits: Limits, problems: Iterable[Problem] = (), videos: Sequence[Video] = ()) -> None:
        self.limits = limits
        self._videos = videos
        self._bits: int | None = None
        self._settling = threading.Lock()
        self._problems: dict[tuple[str, str], Problem] = {(p.video, p.kind): p for p in problems}
        self._indexes: dict[SourceKey, FrameIndex | str] = {}  # a text says why it is bad
        self._contents: dict[tuple[str, tuple[int, int]], str] = {}
        self._lock = threading.Lock()

    @property
    def problems(self) -> list[Problem]:
        """What was found wrong so far, in the order of the videos."""
        place = {video.name: number for number, video in enumerate(self._videos)}
        with self._lock:
            return sorted(self._problems.values(), key=lambda one: (place.get(one.video, -1), one.video, one.kind))

    @property
    def indexes(self) -> dict[SourceKey, FrameIndex | str]:
        """What reading through files has shown so far; a text says why one is bad."""
        return dict(self._indexes)

    def scan(
        self,
        videos: Iterable[Video],
        workers: int,
        progress: Callable[[int, int], None] = lambda done, total: None,
        within: Within = lambda done, total, words: None,
        sees: Callable[[Video], Ends | None] = lambda video: None,
    ) -> None:
        """Read through those of the videos that were not read yet, on so many threads.

        ``sees`` tells for each of these what is given all of its frames.
        """
        videos = list(videos)
        new = list({video.source: video for video in videos if not self.is_known(video)}.values())
        done = 0

        def read(video: Video) -> None:
            meter = self.meter(video, lambda words: within(done, len(new), words))
            seen = sees(video)
            self.index(video, sink=None if seen is None else seen.take, meter=meter)
            if seen is not None:
                seen.finish()

        for _ in ordered(read, new, workers=workers):
            done += 1
            progress(done, len(new))
        for video in videos:  # the same file may be the source of several videos
            index = self.index(video)
            if index is None:
                continue
            if (left_out := _left_out(video, index)) is not None:
                self._note_cut(video, left_out)
            elif video.is_segment:
                self._note_bounds(video, index)

    def is_known(self, video: Video) -> bool:
        """Whether the video was read through already."""
        return video.source in self._indexes

    def adopt(self, indexes: Mapping[SourceKey, FrameIndex | str]) -> None:
        """Take over what an earlier run had found, where nothing is known yet."""
        for source, index in indexes.items():
            self._indexes.setdefault(source, index)

    def meter(self, video: Video, tell: Callable[[str], None], frames: int | None = None) -> Meter:
        """What tells where in a video's file reading is, or in so many frames of it."""
        name = video.path.name if video.is_segment else video.name
        return Meter(tell, name, lambda: self.estimate(video) if frames is None else frames)

    def index(
        self, video: Video, *, sink: Callable[[VideoFrame], None] | None = None, meter: Meter | None = None
    ) -> FrameIndex | None:
        """What reading through a video has shown; None when it is bad.

        ``sink`` is given every frame, and ``meter`` counts them, when it has to be read through now.
        """

        def counted(frame: VideoFrame) -> None:
            if meter is not None:
                meter.count()
            if sink is not None:
                sink(frame)

        index = self._indexes.get(video.source)
        if index is None:
            try:
                index = source_of(video).scan(self.limits, counted, whole=False)
            except UnreadableVideo as error:
                index = str(error)
            self._indexes[video.source] = index
        reason = index if isinstance(index, str) else _mislabelled(video, index) or _spoilt(video, index)
        if reason is not None:
            self.note_problem(video, reason)
        return None if reason is not None or isinstance(index, str) else index

    def depth(self) -> int:
        """How many bits the 16-bit pictures of all videos use, 8 to 16; reads through those not read yet, once."""
        with self._settling:
            if self._bits is None:
                self.scan(self._videos, workers=2)
                known = [index for index in list(self._indexes.values()) if isinstance(index, FrameIndex)]
                self._bits = bits_for(max((index.peak for index in known), default=0))
            return self._bits

    def source(self, video: Video) -> tuple[FrameSource, FrameIndex]:
        """The frames of a video. Raises ``UnreadableVideo`` when it is bad."""
        index = self.index(video)
        if index is None:
            raise UnreadableVideo(self.reason(video))
        return source_of(video), index

    def frame_numbers(self, video: Video, fps: float | None = None) -> np.ndarray:
        """(frames,) int64: which frames of its file a video shows; empty when it is bad."""
        index = self.index(video)
        if index is None:
            return np.empty(0, np.int64)
        first, stop = video.start_frame or 0, index.count
        if video.end_frame is not None:
            stop = min(stop, video.end_frame)
        if video.start is None and video.end is None and fps is None:
            return np.arange(first, stop, dtype=np.int64)
        if first >= stop:
            return np.empty(0, np.int64)
        start = video.start if video.start_frame is None else float(index.times[first])
        end = float(index.times[stop]) if stop < index.count else video.end
        return chosen_frames(index.times, index.seconds, start=start, end=end, fps=fps)

    def breaks(self, video: Video) -> np.ndarray:
        """(breaks,) int64: frames of a video's file before which pictures are missing, because they are damaged."""
        index = self.index(video)
        return np.array([damage.frame for damage in index.damage] if index is not None else [], np.int64)

    def reason(self, video: Video) -> str:
        """Why a video is bad."""
        problem = self._problems.get((video.name, "unreadable"))
        return problem.reason if problem else "cannot be read"

    def stamp(self, video: Video) -> tuple[int, int]:
        """What tells whether a video has changed; (0, 0) when it is not there."""
        try:
            return source_of(video).stamp()
        except UnreadableVideo:
            return 0, 0

    def estimate(self, video: Video) -> int:
        """About how many frames a video's file has; exact where it was read through."""
        index = self._indexes.get(video.source)
        if index is not None:
            return 0 if isinstance(index, str) else index.count
        try:
            return source_of(video).estimate(self.limits)
        except UnreadableVideo:
            return 0

    def frame_labels(self, video: Video) -> np.ndarray:
        """(frames,) int64 labels of all frames of a video's file, -1 for those without."""
        index = self.index(video)
        return video.labels_at(np.arange(0 if index is None else index.count))

    def frame_rows(self, video: Video) -> np.ndarray:
        """(frames,) int64 rows of ``FrameColumns`` of all frames of a video's file, -1 for those without."""
        index = self.index(video)
        return video.rows_at(np.arange(0 if index is None else index.count))

    def fingerprint(self, videos: Iterable[Video], classes: tuple[str, ...]) -> str:
        """Hex digest of classes, names, labels, splits and the bytes of all files."""
        videos = list(videos)
        digest = hashlib.blake2b(digest_size=16)
        for video, content in zip(videos, ordered(self._content, videos, workers=2), strict=True):
            facts = (video.name, video.entry, video.start, video.end, video.label, video.split, content)
            digest.update(repr(facts).encode("utf-8", "surrogateescape"))
            if video.frame_labels is not None:
                digest.update(np.ascontiguousarray(video.frame_labels, "<i8").tobytes())
        return f"{digest.hexdigest()}-{zlib.crc32(repr(classes).encode()):08x}"

    def note_problem(self, video: Video, reason: str) -> None:
        """Record that a video cannot be used; the first reason stays."""
        with self._lock:
            self._problems.setdefault((video.name, "unreadable"), Problem(video.name, reason))

    def note_bad_source(self, video: Video, reason: str) -> None:
        """Record that what a video is read from cannot be used any more, by other videos either."""
        self._indexes[video.source] = reason
        self.note_problem(video, reason)

    def note_short(self, video: Video, count: int, need: int) -> None:
        """Record that a sound video is shorter than a clip."""
        if not count and (video.name, "unreadable") in self._problems:
            return  # it begins beyond the end of its file, which was said
        reason = f"has {count_of(count, 'frame')}, a clip needs {need}"
        with self._lock:
            self._problems[video.name, "short"] = Problem(video.name, reason, "short")

    def _note_bounds(self, video: Video, index: FrameIndex) -> None:
        """Record that a segment begins or ends beyond the end of its file."""
        ((unit, (start, end)),) = video.extents.items()
        length = index.count if unit == "frames" else index.seconds
        said = "frame {:g}" if unit == "frames" else "{:g} s"
        if start >= length - (0 if unit == "frames" else TICK):
            self.note_problem(video, f"begins at {said.format(start)}, and its file ends at {said.format(length)}")
        elif length + (0 if unit == "frames" else ROUNDED_SECONDS) < end < math.inf:
            reason = f"is used up to the end of its file at {said.format(length)}, and not to "
            self._note_cut(video, reason + said.format(end))

    def _note_cut(self, video: Video, reason: str) -> None:
        """Record that only some of a video is used."""
        with self._lock:
            self._problems[video.name, "cut"] = Problem(video.name, reason, "cut")

    def _content(self, video: Video) -> str:
        """Digest of a video's file, computed once while the file stays what it is."""
        try:
            key = str(video.path), source_of(video).stamp()
            if key not in self._contents:
                self._contents[key] = content_hash(video.path)
            return self._contents[key]
        except (OSError, UnreadableVideo) as error:
            return f"unreadable: {error}"


def _mislabelled(video: Video, index: FrameIndex) -> str | None:
    if video.frame_labels is None:
        return None
    labels = len(video.frame_labels)
    for damage in index.damage:
        if labels > damage.frame:  # which frames these are, nobody knows any more
            return damage.reason
    return f"has {count_of(index.count, 'frame')}, but frame {labels - 1} has a label" if labels > index.count else None


def _spoilt(video: Video, index: FrameIndex) -> str | None:
    """Why damage leaves nothing of a video; None where it leaves something."""
    hit = _hit(video, index)
    ((unit, (start, end)), *_) = video.extents.items()
    if not hit or (unit != "frames" and ((index.times >= start - TICK) & (index.times < end - TICK)).any()):
        return None
    return hit[0].reason  # numbers of frames mean nothing beyond the first damage


def _left_out(video: Video, index: FrameIndex) -> str | None:
    """What is to be said of damage in a video that is used; None where there is none."""
    hit = _hit(video, index)
    if not hit:
        return None
    if len(hit) == 1 and hit[0].end == math.inf:
        return f"{hit[0].reason}, and is used up to there"
    places = f", as in {count_of(len(hit) - 1, 'more place')}" if len(hit) > 1 else ""
    return f"{hit[0].reason}{places}, and is used without the damaged pictures"


def _hit(video: Video, index: FrameIndex) -> list[Damage]:
    """The damage in what a video shows of its file."""
    ((unit, (start, end)), *_) = video.extents.items()
    if unit == "frames":
        return [damage for damage in index.damage if end > damage.frame]
    return [damage for damage in index.damage if start < damage.end and end > damage.start + TICK]


def count_of(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun: "1 video", "2 videos"."""
    return f"{number} {one if number == 1 else many or one + 's'}"
