"""What the rest of the room needs to know of a video, whatever its frames are stored as."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from av.video.frame import VideoFrame

from deltafine.storage.files import is_lfs_pointer
from deltafine.video.packets import PacketIndex

if TYPE_CHECKING:
    from deltafine.video.conversion import Converter

MANY_FRAMES = 500_000
_LARGEST_POINTER = 1 << 10
"""Bytes; what Git LFS leaves in place of a file has about 130."""


@dataclass(frozen=True)
class Limits:
    """How much of the machine one file may take before it counts as unreadable.

    Attributes:
        frames: Most frames in a file; None for any number that its size makes plausible.
        pixels: Most pixels of one picture (8K is 33 million).
        seconds: Most seconds of processor time that reading through one file may take; None for any. It does not
            count what else the machine does.
    """

    frames: int | None = None
    pixels: int = 1 << 26
    seconds: float | None = None

    def of_file(self, size: int) -> Limits:
        """These limits for a file of so many bytes: one that gives many more frames than bytes was made to do so."""
        return replace(self, frames=max(MANY_FRAMES, size)) if self.frames is None else self


_default: ContextVar[Limits | None] = ContextVar("limits", default=None)


def default_limits() -> Limits:
    """The limits of data sets that are opened without."""
    return _default.get() or Limits()


@contextlib.contextmanager
def limited(limits: Limits) -> Iterator[None]:
    """Give these limits to every data set that is opened meanwhile without any: one job opens several."""
    token = _default.set(limits)
    try:
        yield
    finally:
        _default.reset(token)


class UnreadableVideo(Exception):
    """A video cannot be used; the message says why, to follow the video's name."""


@dataclass(frozen=True)
class Damage:
    """A stretch of a file that cannot be used. Its frames are not counted.

    Attributes:
        start, end: Seconds since the first frame, from the last sound frame before it to the first one after it.
        frame: The first sound frame after it, by its number among these. Nobody knows how many are missing before it.
        reason: What is wrong, as in ``UnreadableVideo``.
    """

    start: float
    end: float
    frame: int
    reason: str


@dataclass(frozen=True, eq=False)
class FrameIndex:
    """What reading through a video has shown.

    Attributes:
        count: Number of frames.
        times: (count,) float64, seconds since the first frame; evenly spaced where the file has no times.
        width, height: Of the first picture as shown, in pixels.
        codec: FFmpeg's name of the codec, or what else the frames are stored as.
        stamp: What the file system said about the file when it was read; see ``file_stamp``.
        keys: (keys,) int64, frames at which decoding can start, ascending, the first of them 0.
        stamps: (count,) int64 time stamps in the container's unit, strictly increasing; None where the file
            has none that single out every frame.
        packets: Where its frames are in the file, where it has no such time stamps.
        damage: What of it cannot be used, where the rest was asked for.
        peak: The highest value of pictures of 16 bits, of which cameras do not use all; 0 for others.
    """

    count: int
    times: np.ndarray
    width: int
    height: int
    codec: str
    stamp: tuple[int, int]
    keys: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    stamps: np.ndarray | None = None
    peak: int = 0
    damage: tuple[Damage, ...] = ()
    packets: PacketIndex | None = None

    def number_of(self, frame: VideoFrame) -> int | None:
        """The number of a frame that was decoded again; None for one that does not count."""
        if self.packets is not None or self.stamps is None:
            return None if self.packets is None else self.packets.frame_of(frame)
        number = self.count if frame.pts is None else int(np.searchsorted(self.stamps, frame.pts))
        return number if number < self.count and self.stamps[number] == frame.pts else None

    @property
    def seconds(self) -> float:
        """How long the video lasts, the last frame being shown for as long as frames usually are."""
        return float(self.times[-1] + (np.median(np.diff(self.times)) if self.count > 1 else 0.04))


class FrameSource(Protocol):
    """One video's frames, by number."""

    def stamp(self) -> tuple[int, int]:
        """What tells whether it has changed. Raises ``UnreadableVideo`` when it is not there."""

    def estimate(self, limits: Limits) -> int:
        """About how many frames there are, without reading them. Raises ``UnreadableVideo``."""

    def scan(
        self, limits: Limits, sink: Callable[[VideoFrame], None] | None = None, *, whole: bool = True
    ) -> FrameIndex:
        """Read through all frames and note what there is, giving every frame to ``sink``.

        Args:
            limits: What it may take.
            sink: Is given every frame.
            whole: Whether all of it must be sound. Otherwise damage is noted where that is possible.

        Raises:
            UnreadableVideo: The video cannot be read from beginning to end, or is beyond the limits.
        """

    def pictures(
        self, index: FrameIndex, convert: Converter, limits: Limits, start: int, keep: set[int] | None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Numbers and pictures (H, W, C) uint8 of the frames from ``start`` on, ascending.

        Only the numbers in ``keep`` are converted and given; all of them when it is None.

        Raises:
            UnreadableVideo: The file is not any more what it was when it was scanned.
        """


def read_frames(
    source: FrameSource,
    index: FrameIndex,
    wanted: Sequence[int],
    convert: Converter,
    limits: Limits,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """The frames of the numbers ``wanted`` (ascending, repeats allowed), as (len(wanted), H, W, C) uint8.

    They are written into ``out`` where it is given.

    Raises:
        UnreadableVideo: The file is not any more what it was when it was scanned.
    """
    out = np.empty((len(wanted), *convert.shape), np.uint8) if out is None else out
    filled = 0
    for number, picture in source.pictures(index, convert, limits, wanted[0], set(wanted)):
        while filled < len(wanted) and wanted[filled] == number:
            out[filled] = picture
            filled += 1
        if filled == len(wanted):
            return out
    raise UnreadableVideo(f"gave {filled} of the {len(wanted)} frames that it had before")


def file_stamp(path: Path) -> tuple[int, int]:
    """Size in bytes and modification time in nanoseconds, of a regular file only.

    Raises:
        UnreadableVideo: It is gone, not a regular file (opening a FIFO would wait without end), or empty.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise UnreadableVideo(f"cannot be opened ({error.strerror})") from error
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableVideo("is not a regular file")
    if status.st_size == 0:
        raise UnreadableVideo("is empty")
    if status.st_size < _LARGEST_POINTER:
        with contextlib.suppress(OSError):  # whoever opens it next says why that fails
            if is_lfs_pointer(path):
                raise UnreadableVideo("is a Git LFS pointer, a note in place of the video: fetch it with git lfs pull")
    return status.st_size, status.st_mtime_ns
