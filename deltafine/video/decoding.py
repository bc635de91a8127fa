"""Decoding with FFmpeg, as strictly as its decoders allow: a frame is sound, or it is said what is wrong."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import cast

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from deltafine.video.checksums import SliceChecksums
from deltafine.video.frames import Limits, UnreadableVideo

CONTAINERS = (
    "avi,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpeg,mpegts,mpegvideo,flv,asf,ogg,gif,h264,hevc,m4v,mjpeg,ivf,nut"
)
"""Formats that FFmpeg may recognise: none that is a list of other files or addresses."""

LENIENT = ("h264", "mpeg4", "mpeg1video", "mpeg2video")
"""Codecs of which FFmpeg flags every frame that it had to guess. Being strict besides finds no more, and refuses
videos that are cut out of longer ones, or made by old programs, and are shown without a fault."""
STRICT = {
    "hevc": "explode+crccheck",
    "png": "explode+crccheck",
    "ffv1": "explode+crccheck",
    **dict.fromkeys(("wmv1", "wmv2", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3"), "explode+bitstream+buffer"),
}
"""What a decoder takes for an error, rather than guess on: FFmpeg's ``err_detect``, "explode" for all others."""


@contextmanager
def open_video(path: Path, limits: Limits) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Container and video stream of a file.

    It decodes on one thread, because the threads are spent on several files at a time.

    Raises:
        UnreadableVideo: Whatever FFmpeg finds wrong, in here or while the file is open.
    """
    try:
        options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
        with av.open(str(path), metadata_errors="replace", container_options=options) as container:
            if not container.streams.video:
                raise UnreadableVideo("has no video in it")
            stream = cast("VideoStream", container.streams.best("video") or container.streams.video[0])
            context = stream.codec_context
            if context is None:
                raise UnreadableVideo("is in a codec that is not supported")
            check_pixels(context.width, context.height, limits)
            context.thread_type = "NONE"
            context.thread_count = 1
            context.options = _options(context.name, limits)
            yield container, stream
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise UnreadableVideo(f"cannot be decoded ({plain_reason(error)})") from error


def sound_frames(
    container: InputContainer,
    stream: VideoStream,
    limits: Limits,
    *,
    deadline: float = math.inf,
    damaged: Callable[[str], None] | None = None,
) -> Iterator[VideoFrame]:
    """Decoded frames in the order in which they are shown, while they are sound and within the limits.

    A deadline only makes sense where nobody uses the frames meanwhile, however long that takes. Where ``damaged`` is
    given, it is told what is wrong, and the frames go on from the next key frame, which needs nothing from before.
    """
    number = 0
    broken = False
    decode = _decoder(stream, limits)
    checksums = SliceChecksums() if stream.codec_context.name == "ffv1" else None

    def complain(reason: str, error: Exception | None = None) -> None:
        nonlocal broken
        if damaged is None:
            raise UnreadableVideo(reason) from error
        broken = True
        damaged(reason)

    for packet in _packets(container, stream, damaged):
        if time.monotonic() > deadline:
            raise UnreadableVideo(f"takes longer than {limits.seconds:g} seconds to decode")
        if packet.is_corrupt:
            complain(f"is damaged at frame {number}")
        if checksums is not None and packet.size and not checksums.are_right(bytes(packet)):
            complain(f"is damaged at frame {number}")
            continue
        try:
            frames = decode(packet)
        except av.error.FFmpegError as error:
            if not number and damaged is None:
                raise
            beyond = f" beyond frame {number - 1}" if number else ""
            complain(f"cannot be decoded{beyond} ({plain_reason(error)})", error)
            continue
        for frame in frames:
            if frame.is_corrupt:
                complain(f"is damaged at frame {number}")
            broken = broken and (frame.is_corrupt or not frame.key_frame)
            if broken:
                continue
            if number >= limits.frames:
                raise UnreadableVideo(f"has more than {limits.frames} frames")
            check_pixels(frame.width, frame.height, limits)
            yield frame
            number += 1


def _options(codec: str, limits: Limits) -> dict[str, str]:
    options = {"max_pixels": str(limits.pixels)}
    return options if codec in LENIENT else {**options, "err_detect": STRICT.get(codec, "explode")}


def _decoder(stream: VideoStream, limits: Limits) -> Callable[[Packet[VideoStream]], list[VideoFrame]]:
    """What makes frames of packets: the stream's own decoder, or one that finds more damage and gives the same frames.

    FFmpeg's own VP9 decoder shows whatever becomes of damaged data. That of libvpx looks whether all were used up.
    """
    context = stream.codec_context
    if context.name != "vp9" or context.pix_fmt != "yuv420p" or not _has_decoder("libvpx-vp9"):
        return lambda packet: packet.decode()
    careful = av.CodecContext.create("libvpx-vp9", "r")
    careful.thread_count = 1
    careful.extradata = context.extradata
    careful.options = _options("libvpx-vp9", limits)

    def decode(packet: Packet[VideoStream]) -> list[VideoFrame]:
        frames = careful.decode(packet if packet.size else None)
        for frame in frames:
            frame.key_frame = packet.is_keyframe  # type: ignore[misc]  # it does not say that itself, and takes it
        return frames

    return decode


@lru_cache
def _has_decoder(name: str) -> bool:
    try:
        return bool(av.Codec(name, "r"))
    except ValueError:  # PyAV's error for a codec that its FFmpeg was built without
        return False


def _packets(
    container: InputContainer, stream: VideoStream, damaged: Callable[[str], None] | None
) -> Iterator[Packet[VideoStream]]:
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except IndexError as error:  # PyAV's own, where a stream appears that was not there at the beginning
            raise UnreadableVideo("has a stream that begins in its middle, which is not supported") from error
        except av.error.FFmpegError as error:
            if damaged is None:
                raise
            damaged(f"cannot be read to its end ({plain_reason(error)})")
            return
        if packet is None:
            return
        yield packet


def check_pixels(width: int, height: int, limits: Limits) -> None:
    if width * height > limits.pixels:
        raise UnreadableVideo(f"has pictures of {width}x{height}, more than {limits.pixels} pixels")


def plain_reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).strip().rstrip(".")
