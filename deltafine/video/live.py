"""Frames one by one, as a stream shows them: of a video file, a folder of images, or a camera."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from deltafine.errors import DeltafineError
from deltafine.video.conversion import Converter, bits_for, is_deep
from deltafine.video.decoding import open_video
from deltafine.video.encoded import EncodedVideo
from deltafine.video.frames import Limits, UnreadableVideo
from deltafine.video.images import ImageFolder


def live_frames(source: str, size: tuple[int, int], channels: int) -> Iterator[np.ndarray]:
    """The frames of a source, (height, width, channels) uint8.

    Args:
        source: path of a video file or of a folder of images, or the number of a camera.
        size: (height, width) that frames are stretched to.
        channels: 3 for RGB, 1 for grey.

    Raises:
        DeltafineError: there is nothing to read, or it breaks off.
    """
    convert = Converter(size, channels)
    path = Path(source)
    try:
        if not path.exists() and source.isdigit():
            yield from _camera(int(source), convert)
        elif not path.exists():
            raise DeltafineError(f"There is no video at {source}: give a file, a folder of images, or a camera (0).")
        elif path.is_dir():
            folder = ImageFolder(path)
            index = folder.scan(Limits())
            convert = Converter(size, channels, lambda: bits_for(index.peak))
            for _, picture in folder.pictures(index, convert, Limits(), 0, None):
                yield picture
        else:
            with open_video(path, Limits()) as (container, stream):
                if stream.codec_context.pix_fmt and is_deep(stream.codec_context.pix_fmt):
                    peak = EncodedVideo(path).scan(Limits()).peak
                    convert = Converter(size, channels, lambda: bits_for(peak))
                for frame in container.decode(stream):
                    yield convert(frame)
    except UnreadableVideo as error:
        what = "folder" if path.is_dir() else "video"
        raise DeltafineError(f"The {what} {source} {error}.") from error


def _camera(number: int, convert: Converter) -> Iterator[np.ndarray]:
    if sys.platform == "darwin":
        address, kind = str(number), "avfoundation"
    elif sys.platform == "win32":
        raise DeltafineError("Cameras are read on Linux and macOS only: record a file, or feed DeltaRuntime yourself.")
    else:
        address, kind = f"/dev/video{number}", "v4l2"
    try:
        with av.open(address, format=kind) as container:
            for frame in container.decode(video=0):
                yield convert(frame)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DeltafineError(f"Camera {number} ({address}) cannot be read: {reason}.") from error
