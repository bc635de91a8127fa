"""Files that were entered in their middle, kept open for the next clip of theirs.

FFmpeg reads the whole index of an MP4, AVI or Matroska file when it opens it, so opening costs the more the longer the
file is. A file is kept only while its decoder, once emptied by a seek, gives what that of a newly opened one does.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from deltafine.video.decoding import errors_as_unreadable, meet_encoder, open_stream, version_of_x264
from deltafine.video.frames import Limits
from deltafine.video.headers import HEADERS, pieces_of

MOST_FILES: Final = 16
MOST_BYTES: Final = 512 << 20
BYTES_OF_FRAME: Final = 64
"""What the index of a frame takes in memory, at most."""
BYTES_OF_PIXEL: Final = 32
"""What a decoder keeps for each pixel of a picture: up to 17 pictures."""

INDEXED = ("mov", "matroska", "avi")
"""Formats of which FFmpeg reads the index first, and then finds any place as if it had not been anywhere else."""
SELF_CONTAINED = ("vp8", "vp9", "av1", "libdav1d")
"""Codecs of which a key frame needs nothing that was told before."""


@dataclass(eq=False)
class OpenFile:
    """A file that can be entered, and by one reader only.

    Attributes:
        container, stream: What is read.
        place: Tells the file from others, and from what it was before it changed.
        weight: Bytes of memory that it may take.
        sound: Whether its decoder knows what it would know in a newly opened file.
    """

    container: InputContainer
    stream: VideoStream
    place: tuple[object, ...]
    weight: int
    sound: bool = False
    _first: bytes = field(default=b"", repr=False)
    _told: bytes = field(default=b"", repr=False)

    def begin(self) -> None:
        """Read the first packet: what it tells is known from then on."""
        packet = meet_encoder(self.container, self.stream)
        self._first, self._told = bytes(packet), self.stream.codec_context.extradata or b""
        codec = self.stream.codec_context.name
        known = codec in HEADERS or codec in SELF_CONTAINED or codec == "mjpeg"
        self.sound = known and self.container.format.name.startswith(INDEXED)

    def note(self, packet: Packet[VideoStream]) -> None:
        """Take in a packet that is decoded."""
        if self.sound and packet.size:
            self.sound = not self._tells_new(packet)

    def _tells_new(self, packet: Packet[VideoStream]) -> bool:
        """Whether a packet tells the decoder what it would not know in a newly opened file."""
        if any(packet.has_sidedata(kind) for kind in ("new_extradata", "param_change", "palette")):
            return True
        codec = self.stream.codec_context.name
        if codec in SELF_CONTAINED:
            return False
        content = bytes(packet)
        if codec == "mjpeg":  # tables hold until others come
            return any((marker in content) != (marker in self._first) for marker in (b"\xff\xc4", b"\xff\xdb"))
        if codec == "h264" and version_of_x264(content) not in (None, version_of_x264(self._first)):
            return True
        is_header = HEADERS[codec]
        return any(is_header(piece[0]) and piece not in self._told for piece in pieces_of(content, codec, self._told))


class OpenFiles:
    """Open files that nobody reads at the moment. May be used by several threads at once.

    Args:
        most_files: Most of them.
        most_bytes: Most memory that they may take together.
    """

    def __init__(self, most_files: int = MOST_FILES, most_bytes: int = MOST_BYTES) -> None:
        self._most_files, self._most_bytes = most_files, most_bytes
        self._lock = threading.Lock()
        self._idle: list[OpenFile] = []

    def __len__(self) -> int:
        return len(self._idle)

    @contextmanager
    def entered(self, path: Path, limits: Limits, frames: int) -> Iterator[OpenFile]:
        """A file to seek in and to read within the block, by nobody else meanwhile. After an error it is closed.

        Args:
            path: Of the file.
            limits: What it may take.
            frames: How many it has.

        Raises:
            UnreadableVideo: As ``open_video`` does.
        """
        with errors_as_unreadable():
            status = path.stat()
            place = (path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, limits)
            opened = self._take(place) or _open(path, place, limits, frames)
            try:
                yield opened
            except GeneratorExit:  # the reader has what it wanted
                self._give(opened)
                raise
            except BaseException:
                opened.container.close()
                raise
            else:
                self._give(opened)

    def close(self) -> None:
        """Close all that nobody reads."""
        with self._lock:
            idle, self._idle = self._idle, []
        for opened in idle:
            opened.container.close()

    def _take(self, place: tuple[object, ...]) -> OpenFile | None:
        with self._lock:
            found = next((opened for opened in reversed(self._idle) if opened.place == place), None)
            gone = [one for one in self._idle if one.place[0] == place[0] and one.place[1:-1] != place[1:-1]]
            self._idle = [one for one in self._idle if one is not found and one not in gone]
        for opened in gone:
            opened.container.close()
        return found

    def _give(self, opened: OpenFile) -> None:
        surplus = []
        with self._lock:
            self._idle.append(opened)
            if not opened.sound:
                surplus.append(self._idle.pop())
            while len(self._idle) > self._most_files or sum(one.weight for one in self._idle) > self._most_bytes:
                surplus.append(self._idle.pop(0))
        for one in surplus:
            one.container.close()

    def after_fork(self) -> None:
        """In a forked process: let go of what the other process goes on reading, and of a lock that it may hold."""
        self._lock = threading.Lock()
        self.close()


OPEN_FILES = OpenFiles()
"""Those of this process."""
atexit.register(OPEN_FILES.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=OPEN_FILES.after_fork)


def _open(path: Path, place: tuple[object, ...], limits: Limits, frames: int) -> OpenFile:
    container, stream = open_stream(path, limits)
    try:
        context = stream.codec_context
        weight = frames * BYTES_OF_FRAME + context.width * context.height * BYTES_OF_PIXEL
        opened = OpenFile(container, stream, place, weight)
        opened.begin()
    except BaseException:
        container.close()
        raise
    return opened
