"""Which packet of a file gives which frame: how to enter a file whose time stamps do not tell its frames apart.

AVI with frames stored out of order, raw H.264 and files joined end to end have no ascending time stamps. Their packets
have: a place in the file, or a time of decoding.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import count

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

NONE = -(1 << 63)
"""For what a packet does not say."""


@dataclass(frozen=True, eq=False)
class PacketIndex:
    """The packets of a file, in the order in which they are stored.

    Attributes:
        origins: (frames,) int64, the packet that each frame came from; no two from one.
        sizes: (packets,) int64, bytes.
        positions: (packets,) int64, ascending: where packets begin in the file; None where that is not known.
        stamps: (packets,) int64, ascending: when they are decoded, in the container's unit; None where nothing tells.
    """

    origins: np.ndarray
    sizes: np.ndarray
    positions: np.ndarray | None
    stamps: np.ndarray | None

    @cached_property
    def _frames(self) -> np.ndarray:
        """(packets,) int64, the frame of each packet; -1 where it gives none."""
        frames = np.full(len(self.sizes), -1, np.int64)
        frames[self.origins] = np.arange(len(self.origins))
        return frames

    def frame_of(self, frame: VideoFrame) -> int | None:
        """The number of a frame that was decoded from numbered packets; None for one that does not count."""
        number = self._frames[frame.opaque] if isinstance(frame.opaque, int) and frame.opaque < len(self.sizes) else -1
        return int(number) if number >= 0 else None

    def enter(
        self, container: InputContainer, stream: VideoStream, packets: Iterator[Packet[VideoStream]], frame: int
    ) -> Iterator[tuple[int, Packet[VideoStream]]]:
        """Packets with their numbers, from the one that gives ``frame`` or one before it; none if that fails."""
        aim = int(self.origins[frame])
        known = self.stamps if self.positions is None else self.positions
        assert known is not None
        if self.stamps is not None:
            container.seek(int(self.stamps[aim]), stream=stream, backward=True)
        else:
            container.seek(int(known[aim]), unsupported_byte_offset=True)
        for packet in packets:  # a damaged AVI has other times after a seek, and the same places
            at = packet.dts if self.positions is None else packet.pos
            number = len(self.sizes) if at is None else int(np.searchsorted(known, at))
            if number > aim:
                return
            if known[number] == at and self.sizes[number] == packet.size:
                yield number, packet
                yield from self._following(packets, number + 1)
                return

    def _following(
        self, packets: Iterator[Packet[VideoStream]], first: int
    ) -> Iterator[tuple[int, Packet[VideoStream]]]:
        """The packets that come next, as long as they are those that came before."""
        for number, packet in zip(count(first), packets, strict=False):
            if packet.size and (number >= len(self.sizes) or self.sizes[number] != packet.size):
                return
            yield number, packet


class PacketLog:
    """Notes the packets of a file that is read through."""

    def __init__(self) -> None:
        self._stamps, self._positions, self._sizes = array("q"), array("q"), array("q")
        self.end: int | None = None
        """When the last packet's picture is shown no longer, in the container's unit; None where nothing tells."""
        self._begin: int | None = None
        self.decoded: int | None = None
        """When the last packet is decoded: all pictures up to then are there."""

    def note(self, packet: Packet[VideoStream]) -> None:
        """Take in the next one."""
        if not packet.size:
            return
        self._stamps.append(NONE if packet.dts is None else packet.dts)
        self.decoded = packet.dts if packet.dts is not None else self.decoded
        self._positions.append(NONE if packet.pos is None or packet.pos < 0 else packet.pos)
        self._sizes.append(packet.size)
        times = [time for time in (packet.pts, packet.dts) if time is not None]
        if times:
            end = max(times) + (packet.duration or 0)
            self.end = end if self.end is None else max(self.end, end)
            self._begin = min(times) if self._begin is None else min(self._begin, *times)

    @property
    def span(self) -> int:
        """How long the packets' pictures are shown, all together, in the container's unit; 0 where nothing tells."""
        return 0 if self.end is None or self._begin is None else self.end - self._begin

    def index(self, origins: np.ndarray) -> PacketIndex | None:
        """The packets, given which of them each frame came from; None where that does not single out every frame.

        ``origins`` are (frames,) int64, ``NONE`` where nothing tells.
        """
        if (origins == NONE).any() or len(np.unique(origins)) < len(origins):
            return None
        positions, stamps = ascending(self._positions), ascending(self._stamps)
        if positions is None and stamps is None:
            return None
        return PacketIndex(origins, np.array(self._sizes, np.int64), positions, stamps)

    def times(self, origins: np.ndarray) -> np.ndarray | None:
        """(frames,) int64 times of the frames, by those at which packets are decoded; None if these do not tell.

        Frames are decoded in another order than they are shown in, but at the same pace.
        """
        if not len(origins) or (origins == NONE).any():
            return None
        stamps: np.ndarray = np.sort(np.array(self._stamps, np.int64)[origins])
        return None if stamps[0] == NONE or not (np.diff(stamps) > 0).all() else stamps


def ascending(values: array[int]) -> np.ndarray | None:
    """(values,) int64, where all are known and each is larger than the one before; else None."""
    known = np.array(values, np.int64)
    return known if len(known) and NONE not in values and (np.diff(known) > 0).all() else None
