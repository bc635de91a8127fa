"""Decoding with FFmpeg, as strictly as its decoders allow: a frame is sound, or it is said what is wrong."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import cast

import av
from av.codec.context import Flags
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from deltafine.video.checksums import SliceChecksums
from deltafine.video.doubt import Doubt, origin_of
from deltafine.video.frames import Limits, UnreadableVideo

CONTAINERS = (
    "avi,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpeg,mpegts,mpegvideo,flv,asf,ogg,gif,h264,hevc,m4v,mjpeg,ivf,nut,"
    "yuv4mpegpipe,mxf,dv"
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


DAMAGED = "is damaged at frame {0}"

_X264 = re.compile(rb"x264 - core (\d+)")
_FAULTLESS_X264 = 151
"""The first version of x264 of which FFmpeg makes up for no fault."""
_BEFORE_PICTURE = 4096
"""Bytes of a packet in which x264 may have named itself."""


@contextmanager
def open_video(path: Path, limits: Limits) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Container and video stream of a file, as ``open_stream`` gives them.

    Raises:
        UnreadableVideo: Whatever FFmpeg finds wrong, in here or while the file is open.
    """
    with errors_as_unreadable():
        container, stream = open_stream(path, limits)
        with container:
            yield container, stream


@contextmanager
def errors_as_unreadable() -> Iterator[None]:
    """Within the block, whatever FFmpeg finds wrong is an ``UnreadableVideo``."""
    try:
        yield
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise UnreadableVideo(f"cannot be decoded ({plain_reason(error)})") from error


def open_stream(path: Path, limits: Limits) -> tuple[InputContainer, VideoStream]:
    """Container and video stream of a file, to be closed by who asks; errors are FFmpeg's.

    It decodes on one thread, because the threads are spent on several files at a time.
    """
    options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
    # "file:" keeps a name like 12:30.mp4 from being taken for an address
    container = av.open(f"file:{path}", metadata_errors="replace", container_options=options)
    try:
        if not container.streams.video:
            raise UnreadableVideo("has no video in it")
        stream = cast("VideoStream", container.streams.best("video") or container.streams.video[0])
        context = stream.codec_context
        if context is None:
            raise UnreadableVideo("is in a codec that is not supported")
        check_pixels(context.width, context.height, limits)
        context.thread_type = "NONE"
        context.thread_count = 1
        context.flags |= Flags.copy_opaque
        context.options = _options(context.name, limits)
    except BaseException:
        container.close()
        raise
    return container, stream


def sound_frames(
    container: InputContainer,
    stream: VideoStream,
    limits: Limits,
    *,
    deadline: float = math.inf,
    damaged: Callable[[str], None] | None = None,
    packets: Iterable[tuple[int, Packet[VideoStream]]] | None = None,
    log: Callable[[Packet[VideoStream]], None] = lambda packet: None,
) -> Generator[VideoFrame]:
    """Decoded frames in the order in which they are shown, while they are sound and within the limits.

    Each has in ``opaque`` the number of the packet that it came from, where the decoder tells.

    Where ``damaged`` is given, damage costs the frames that it may have spoilt: those that were stored with it or
    after it, up to the next key frame, which needs nothing from before. It is told what is wrong before the first
    frame that is shown after them, or in the end.

    Args:
        container, stream: What is read.
        limits: What it may take.
        deadline: Seconds of processor time of this thread. Only makes sense where nobody uses the frames meanwhile.
        damaged: Told what is wrong. Without, ``UnreadableVideo`` is raised.
        packets: Packets with their numbers, where not all are to be read.
        log: Told of every packet.
    """
    shown = 0
    doubt = Doubt()
    ended: list[str] = []  # why it ends before its end
    decode = _decoder(stream, limits)
    checksums = SliceChecksums() if stream.codec_context.name == "ffv1" else None

    def complain(place: int, reason: str, error: Exception | None = None) -> None:
        """``reason`` may have places for the number of the frame, and for that of the one before."""
        if damaged is None:
            raise UnreadableVideo(reason.format(shown, shown - 1)) from error
        doubt.begin(place, reason)

    tolerated = None if damaged is None else ended
    for place, packet in enumerate(packets_of(container, stream, tolerated)) if packets is None else packets:
        if time.thread_time() > deadline:
            raise UnreadableVideo(f"takes longer than {limits.seconds:g} seconds of processor time to decode")
        log(packet)
        if ended:
            doubt.end(place, ended[0])
        if packet.is_corrupt:
            complain(place, DAMAGED)
        doubt.see(packet)
        if checksums is not None and packet.size and not checksums.are_right(bytes(packet)):
            complain(place, DAMAGED)
            doubt.see(packet)
            continue
        packet.opaque = _PacketNumber(place)
        try:
            frames = decode(packet)
        except av.error.FFmpegError as error:
            if not shown and damaged is None:
                raise
            beyond = " beyond frame {1}" if shown else ""
            complain(place, f"cannot be decoded{beyond} ({_braced(plain_reason(error))})", error)
            doubt.see(packet)
            continue
        for frame in frames:
            if frame.is_corrupt:
                complain(origin_of(frame, place), DAMAGED)
            if not doubt.passes(frame):
                continue
            if limits.frames is not None and shown >= limits.frames:
                raise UnreadableVideo(f"has more than {limits.frames} frames")
            check_pixels(frame.width, frame.height, limits)
            reason = doubt.spoilt_before()
            if reason is not None and damaged is not None:
                damaged(reason.format(shown, shown - 1))
            yield frame
            shown += 1
    if doubt.reason is not None and damaged is not None:
        damaged(doubt.reason.format(shown, shown - 1))


def meet_encoder(container: InputContainer, stream: VideoStream) -> Packet[VideoStream]:
    """Let the decoder of a file that is entered in its middle know what it would know from the beginning.

    FFmpeg makes up for faults of old versions of x264, among them in 4:4:4 without loss. Only the first packet names
    the version. Without it, other pictures come out, flagged as damaged or not even that.

    Returns:
        The first packet.
    """
    packet = next(packets_of(container, stream))
    version = version_of_x264(bytes(packet)) if stream.codec_context.name == "h264" else None
    if version is not None and version < _FAULTLESS_X264:
        with suppress(av.error.FFmpegError):  # its picture does not matter
            packet.decode()
    return packet


def version_of_x264(packet: bytes) -> int | None:
    """The version that x264 names in a packet; None where it does not."""
    version = _X264.search(packet, 0, _BEFORE_PICTURE)
    return None if version is None else int(version[1])


class _PacketNumber(int):
    """The number of a packet, in an object of its own.

    PyAV keeps what is in ``opaque`` by the object's address, for all files. Python has one object for each small
    number, so a packet of another file that is read at the same time would take it away.
    """


def _braced(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


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
    careful.flags |= Flags.copy_opaque
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


def packets_of(
    container: InputContainer, stream: VideoStream, ended: list[str] | None = None
) -> Iterator[Packet[VideoStream]]:
    """All packets, and an empty one at the end. What cannot be read ends them; ``ended`` is told why."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except IndexError as error:  # PyAV's own, where a stream appears that was not there at the beginning
            raise UnreadableVideo("has a stream that begins in its middle, which is not supported") from error
        except av.error.FFmpegError as error:
            if ended is None:
                raise
            ended.append(f"cannot be read to its end ({_braced(plain_reason(error))})")
            packet = cast("Packet[VideoStream]", Packet())
            packet.stream = stream
            packets = iter(())
        if packet is None:
            return
        yield packet


def check_pixels(width: int, height: int, limits: Limits) -> None:
    if width * height > limits.pixels:
        raise UnreadableVideo(f"has pictures of {width}x{height}, more than {limits.pixels} pixels")


def plain_reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).strip().rstrip(".")
