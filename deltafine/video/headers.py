"""What packets tell a decoder that holds from there on: parameter sets and other headers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from av.packet import Packet
from av.video.stream import VideoStream

HEADERS: Mapping[str, Callable[[int], bool]] = {
    "h264": lambda first: first & 31 in (7, 8, 13, 15),
    "hevc": lambda first: first >> 1 & 63 in (32, 33, 34),
    "mpeg4": lambda first: first not in (0xB3, 0xB6),
}
"""By the first byte of a piece of a packet, whether it tells the decoder something that holds from there on."""
_KINDS: Mapping[str, Callable[[int], int | None]] = {
    "h264": lambda first: first & 31 if first & 31 in (7, 8) else None,
    "hevc": lambda first: first >> 1 & 63 if first >> 1 & 63 in (32, 33, 34) else None,
    "mpeg4": lambda first: 0x20 if first & 0xF0 == 0x20 else None,
}
"""The kind of header that pictures cannot be decoded without; None for other pieces."""


class HeaderLog:
    """Notes where the headers of a file change, while it is read through, and where it can be entered after that.

    Parts that were joined end to end may have headers of their own at their beginning alone. A decoder that enters such
    a part in its middle has those of another, and may show other pictures without noticing.

    Args:
        stream: what is read.
    """

    def __init__(self, stream: VideoStream) -> None:
        self._codec = str(stream.codec_context.name)
        self._told = stream.codec_context.extradata or b""
        self._count = 0
        self._known: set[bytes] | None = None  # what a newly opened file tells
        self._kinds: set[int] = set()
        self._changed: int | None = None
        self._whole: set[int] = set()  # packets from there on with headers of all kinds

    def note(self, packet: Packet[VideoStream]) -> None:
        """Take in the next packet."""
        number, self._count = self._count, self._count + 1
        kind_of = _KINDS.get(self._codec)
        if kind_of is None or not packet.size:
            return
        found: dict[bytes, int] = {}
        for piece in pieces_of(bytes(packet), self._codec, self._told):
            kind = kind_of(piece[0])
            if kind is not None:
                found[piece] = kind
        self._kinds.update(found.values())
        if self._known is None:
            self._known = set(found)
        elif self._changed is None and any(piece not in self._known and piece not in self._told for piece in found):
            self._changed = number
        if self._changed is not None and self._kinds == set(found.values()):
            self._whole.add(number)

    def may_enter(self, packet: object) -> bool:
        """Whether a decoder that begins at the packet with this number, and knows the first, knows all that holds."""
        return self._changed is None or (isinstance(packet, int) and (packet < self._changed or packet in self._whole))


def pieces_of(content: bytes, codec: str, told: bytes) -> list[bytes]:
    """The pieces (NAL units, or what follows a start code) of a packet, none of them empty."""
    if codec != "mpeg4" and told[:1] == b"\1" and len(told) > 21:  # ISO/IEC 14496-15: each after its length
        size = 1 + (told[4 if codec == "h264" else 21] & 3)
        pieces, place = [], 0
        while place + size < len(content):
            end = place + size + int.from_bytes(content[place : place + size])
            pieces.append(content[place + size : end])
            place = end
        if place == len(content):  # else it is not so, whatever was told
            return [piece for piece in pieces if piece]
    return [piece for piece in (one.rstrip(b"\0") for one in content.split(b"\0\0\1")[1:]) if piece]
