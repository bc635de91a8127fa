"""A folder of images as one video: its frames are the files in natural order (frame2 before frame10)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from deltafine.video.conversion import Converter, peak_of, shown_size
from deltafine.video.finding import image_files
from deltafine.video.frames import FrameIndex, Limits, UnreadableVideo, file_stamp
from deltafine.video.orientation import of_image

CODECS = {
    b"\x89PNG": "png",
    b"BM": "bmp",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"\0\0\0\x0cjP  ": "jpeg2000",
    b"\xffO\xffQ": "jpeg2000",
}
"""What images begin with that are no JPEG."""
STRICT = {"tiff": "crccheck"}
"""FFmpeg's TIFF decoder is strict by itself, and takes sound files for broken when it is told to "explode"."""
FRAMES_PER_SECOND = 25
"""What a folder of images counts as, having no times of its own."""


class ImageFolder:
    """The frames of a folder of images; see ``sequences.IMAGE_SUFFIXES``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def stamp(self) -> tuple[int, int]:
        """See ``FrameSource``."""
        return _folder_stamp(self._files())

    def estimate(self, limits: Limits) -> int:
        """See ``FrameSource``."""
        return len(self._files())

    def scan(
        self, limits: Limits, sink: Callable[[VideoFrame], None] | None = None, *, whole: bool = True
    ) -> FrameIndex:
        """See ``FrameSource``."""
        files = self._files()
        if limits.frames is not None and len(files) > limits.frames:
            raise UnreadableVideo(f"has more than {limits.frames} frames")
        stamp = _folder_stamp(files)
        deadline = math.inf if limits.seconds is None else time.thread_time() + limits.seconds
        size = (0, 0)
        peak = 0
        for number, file in enumerate(files):
            frame = _decode(file, limits)
            size = size if number else shown_size(frame)
            peak = max(peak, peak_of(frame))
            if sink is not None:
                sink(frame)
            if time.thread_time() > deadline:
                raise UnreadableVideo(f"takes longer than {limits.seconds:g} seconds of processor time to decode")
        times = np.arange(len(files)) / FRAMES_PER_SECOND
        return FrameIndex(len(files), times, *size, "images", stamp, np.arange(len(files)), peak=peak)

    def pictures(
        self, index: FrameIndex, convert: Converter, limits: Limits, start: int, keep: set[int] | None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """See ``FrameSource``."""
        files = self._unchanged(index)
        for number in range(start, index.count):
            if keep is None or number in keep:
                yield number, convert(_decode(files[number], limits))

    def frames(self, index: FrameIndex, limits: Limits) -> Iterator[VideoFrame]:
        """All frames as they are stored. Raises ``UnreadableVideo`` as ``pictures`` does."""
        for file in self._unchanged(index):
            yield _decode(file, limits)

    def _unchanged(self, index: FrameIndex) -> list[Path]:
        files = self._files()
        if _folder_stamp(files) != index.stamp:
            raise UnreadableVideo("changed while it was in use")
        return files

    def _files(self) -> list[Path]:
        try:
            files = image_files(self._path)
        except OSError as error:
            raise UnreadableVideo(f"cannot be opened ({error.strerror})") from error
        if not files:
            raise UnreadableVideo("holds no image")
        return files


def _folder_stamp(files: list[Path]) -> tuple[int, int]:
    """Like ``file_stamp``, for all files of the folder at once."""
    stamps = [file_stamp(file) for file in files]
    return sum(size for size, _ in stamps), hash(tuple(stamps))


def _codec(content: bytes) -> str:
    """FFmpeg's name of what an image is, whatever it is called."""
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "webp"
    return next((codec for begin, codec in CODECS.items() if content.startswith(begin)), "mjpeg")


def _decode(path: Path, limits: Limits) -> VideoFrame:
    try:
        content = path.read_bytes()
        decoder = cast("VideoCodecContext", av.CodecContext.create(codec := _codec(content), "r"))
        decoder.options = {"max_pixels": str(limits.pixels), "err_detect": STRICT.get(codec, "explode+crccheck")}
        frames = [*decoder.decode(av.Packet(content)), *decoder.decode(None)]
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise UnreadableVideo(f"has the unreadable image {path.name}") from error
    if len(frames) != 1 or frames[0].is_corrupt:
        raise UnreadableVideo(f"has the unreadable image {path.name}")
    frames[0].opaque = of_image(content)  # PyAV does not give what the decoder says
    return frames[0]
