"""Which frames damage may have spoilt."""

from __future__ import annotations

import math

from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream


class Doubt:
    """Which frames damage may have spoilt: all that were stored with it or after it, up to the next key frame.

    Of those that were stored before it, some are shown after frames that are lost. They are left out as well, so that
    pictures are missing in one place only.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self._first = self._last = 0  # packets that are not sound
        self._lost = math.inf  # when the first of the lost frames would be shown
        self._over = False
        self._decoded: int | None = None

    def see(self, packet: Packet[VideoStream]) -> None:
        """Take in the next packet, which may be lost."""
        if packet.dts is not None:
            self._decoded = packet.dts
        if self.reason is not None and packet.size:
            self._lost = -math.inf if packet.pts is None else min(self._lost, packet.pts)

    def end(self, place: int, reason: str) -> None:
        """Nothing can be read from here on. What is missing would be decoded, and shown, after what was read."""
        self.begin(place, reason)
        self._lost = min(self._lost, -math.inf if self._decoded is None else self._decoded + 1)

    def begin(self, place: int, reason: str) -> None:
        """A packet is not sound."""
        if self.reason is None:
            self.reason, self._first, self._last = reason, place, place
        self._first, self._last = min(self._first, place), max(self._last, place)

    def passes(self, frame: VideoFrame) -> bool:
        """Whether the next frame that is shown is sound."""
        if self.reason is None:
            return True
        if frame.is_corrupt:
            self._lost = -math.inf if frame.pts is None else min(self._lost, frame.pts)
            return False
        origin = origin_of(frame, self._last + 1 if frame.key_frame else self._last)
        self._over = frame.key_frame and origin > self._last
        return self._over or (origin < self._first and frame.pts is not None and frame.pts < self._lost)

    def spoilt_before(self) -> str | None:
        """What is wrong with the frames between the one that passed and the one before it; None if there are none."""
        if not self._over:
            return None
        reason, self.reason, self._over, self._lost = self.reason, None, False, math.inf
        return reason


def origin_of(frame: VideoFrame, otherwise: int) -> int:
    """The number of the packet that a frame came from, where the decoder tells."""
    return frame.opaque if isinstance(frame.opaque, int) else otherwise
