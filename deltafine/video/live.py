"""Frames one by one, as a stream shows them: of a file, a folder of images, a camera, an address, or standard input."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from deltafine.errors import DeltafineError
from deltafine.video.conversion import Converter, bits_for, is_deep
from deltafine.video.decoding import CONTAINERS, check_pixels, open_video, plain_reason
from deltafine.video.encoded import EncodedVideo
from deltafine.video.frames import Limits, UnreadableVideo
from deltafine.video.images import FRAMES_PER_SECOND, ImageFolder
from deltafine.video.named_source import NamedSource, named_sources
from deltafine.video.raw_frames import RawFormat, numbers_from, raw_container

PROTOCOLS = "http,https,tcp,tls,crypto,httpproxy,rtp,rtcp,udp,srtp,srt,rtmp,rtmps,rtsp"
"""What addresses may lead to: no files of this machine."""
FORMATS = f"{CONTAINERS},hls,rtsp,rtp,sdp,mpjpeg"
LONGEST_SILENCE = 20.0
"""Seconds after which a source counts as broken off, however slow it is."""
SILENT = "is silent"
"""What is wrong with a source that neither answers nor ends."""


@dataclass(frozen=True)
class Shot:
    """A frame as it came, not scaled yet.

    Attributes:
        time: seconds, by the clock of the source; None where it has none.
        decoding: milliseconds of decoding.
        pixels: makes the picture of it, (height, width, channels).
    """

    time: float | None
    decoding: float
    pixels: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Opened:
    """A source that gives frames.

    Attributes:
        live: whether they come at their own time, and are gone if nobody takes them.
        shots: the frames. Raises ``UnreadableVideo`` when it breaks off.
    """

    live: bool
    shots: Iterator[Shot]


@contextmanager
def opened(
    source: NamedSource,
    size: tuple[int, int],
    channels: int,
    raw: RawFormat | None = None,
    *,
    patience: tuple[float, float] = (10.0, 10.0),
) -> Iterator[Opened]:
    """Open a source.

    Args:
        source: what to open.
        size: (height, width) that frames are stretched to.
        channels: 3 for RGB, 1 for grey.
        raw: what standard input holds; None for bytes of the size asked for.
        patience: seconds that an address may take to answer, and between two frames.

    Raises:
        UnreadableVideo: it cannot be opened, or breaks off.
    """
    convert = Converter(size, channels)
    if source.kind == "input":
        raw = raw or RawFormat(size[1], size[0], "rgb24" if channels == 3 else "gray")
        if raw.is_numbers:
            yield Opened(False, (Shot(None, 0.0, lambda n=n: n) for n in numbers_from(raw, (*size, channels))))  # type: ignore[misc]
        else:
            with _readable(raw_container(raw)) as container:
                shots = _decoded(container, container.streams.video[0], convert)
                yield Opened(False, (replace(shot, time=None) for shot in shots))  # FFmpeg has made times up
    elif source.kind == "images":
        yield Opened(False, _images(Path(source.text), size, channels))
    elif source.kind == "file":
        path = Path(source.text)
        with open_video(path, Limits()) as (container, stream):
            if stream.codec_context.pix_fmt and is_deep(stream.codec_context.pix_fmt):
                peak = EncodedVideo(path).scan(Limits()).peak
                convert = Converter(size, channels, lambda: bits_for(peak))
            yield Opened(False, _decoded(container, stream, convert))
    elif source.kind == "camera":
        address, kind = _camera(source.text)
        with _readable(lambda: av.open(address, format=kind)) as container:
            yield Opened(True, _decoded(container, _video_of(container), convert, sound=True))
    else:
        with _readable(lambda: _of_address(source.text, patience)) as container:
            rtsp = container.format.name == "rtsp"  # which tells a length of recordings, and gives them in their time
            live = rtsp or not container.duration
            yield Opened(live, _decoded(container, _video_of(container), convert, sound=live))


def live_frames(source: str, size: tuple[int, int], channels: int) -> Iterator[np.ndarray]:
    """The frames of one source, (height, width, channels) uint8.

    Args:
        source: path of a video file or of a folder of images, the number of a camera, an address, or "-".
        size: (height, width) that frames are stretched to.
        channels: 3 for RGB, 1 for grey.

    Raises:
        DeltafineError: there is nothing to read, or it breaks off.
    """
    for named in named_sources([source]):
        try:
            with opened(named, size, channels) as source_opened:
                for shot in source_opened.shots:
                    yield shot.pixels()
        except UnreadableVideo as error:
            raise DeltafineError(said_of(named, str(error))) from error


def said_of(source: NamedSource, reason: str) -> str:
    """The sentence about a source that cannot be used."""
    names = {"file": "The video", "images": "The folder", "camera": "Camera", "address": "The stream"}
    return f"{names[source.kind]} {source.label} {reason}." if source.kind in names else f"Standard input {reason}."


def _images(path: Path, size: tuple[int, int], channels: int) -> Iterator[Shot]:
    folder = ImageFolder(path)
    index = folder.scan(Limits())
    convert = Converter(size, channels, lambda: bits_for(index.peak))
    begin = time.perf_counter()
    for number, frame in enumerate(folder.frames(index, Limits())):
        decoding = 1e3 * (time.perf_counter() - begin)
        yield Shot(number / FRAMES_PER_SECOND, decoding, lambda frame=frame: convert(frame))  # type: ignore[misc]
        begin = time.perf_counter()


def _decoded(
    container: InputContainer, stream: VideoStream, convert: Converter, *, sound: bool = False
) -> Iterator[Shot]:
    """The frames of a container; of a ``sound`` one those that were not guessed. Waiting is no part of decoding."""
    for packet in container.demux(stream):
        begin = time.perf_counter()
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:  # what a stream begins with may need what came before
            if not sound:
                raise
            continue
        decoding = 1e3 * (time.perf_counter() - begin) / max(len(frames), 1)
        for frame in frames:
            if not (sound and frame.is_corrupt):
                yield Shot(frame.time, decoding, lambda frame=frame: convert(frame))  # type: ignore[misc]


@contextmanager
def _readable(open_it: Callable[[], InputContainer]) -> Iterator[InputContainer]:
    try:
        with open_it() as container:
            yield container
    except av.error.ExitError as error:  # FFmpeg's word for a time limit
        raise UnreadableVideo(SILENT) from error
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise UnreadableVideo(f"cannot be read ({plain_reason(error)})") from error


def _video_of(container: InputContainer) -> VideoStream:
    if not container.streams.video:
        raise UnreadableVideo("has no video in it")
    stream = cast("VideoStream", container.streams.best("video") or container.streams.video[0])
    if stream.codec_context is None:
        raise UnreadableVideo("is in a codec that is not supported")
    check_pixels(stream.codec_context.width, stream.codec_context.height, Limits())
    stream.codec_context.options = {"max_pixels": str(Limits().pixels)}
    stream.codec_context.thread_type = "NONE"  # a frame is out as soon as it is in; threads are for other sources
    return stream


def _camera(text: str) -> tuple[str, str]:
    """What FFmpeg calls a camera, and the library that reads it."""
    if sys.platform == "darwin":
        return text, "avfoundation"
    if sys.platform == "win32":
        raise UnreadableVideo("cannot be read on Windows: record a file, or feed DeltaRuntime yourself")
    return (f"/dev/video{text}" if text.isdigit() else text), "v4l2"


def _of_address(address: str, patience: tuple[float, float]) -> InputContainer:
    if ".m3u8" in address:  # which comes in pieces of several seconds
        patience = (patience[0], LONGEST_SILENCE)
    options: dict[str, Any] = {
        "protocol_whitelist": PROTOCOLS,
        "format_whitelist": FORMATS,
        "rtsp_flags": "prefer_tcp",
        "fpsprobesize": "0",
        "analyzeduration": "1000000",
    }
    return av.open(address, container_options=options, metadata_errors="replace", timeout=patience)
