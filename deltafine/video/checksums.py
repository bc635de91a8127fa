"""The checksums in FFV1's packets, which FFmpeg's decoder compares and does not report.

Every slice of a packet ends with its size (3 bytes), a status (1 byte) and a value (4 bytes) that makes the CRC-32 of
the whole slice 0 (RFC 9043, 4.9). Files may be without; these end with the size only.
"""

from __future__ import annotations

import zlib
from typing import Final

FOOTER: Final = 8
_MIRRORED: Final = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))
_ONES: Final = 0xFFFFFFFF


class SliceChecksums:
    """Compares the packets of one file, in their order."""

    def __init__(self) -> None:
        self._used = False
        self._failed = False

    def are_right(self, packet: bytes) -> bool:
        """Whether no packet so far was found to be damaged; a file has checksums if those of one packet are right."""
        right = _are_right(packet)
        self._used = self._used or right
        if not self._used:
            self._failed = self._failed or not right
            return True
        failed, self._failed = self._failed, False
        return right and not failed


def _are_right(packet: bytes) -> bool:
    end = len(packet)
    while end >= FOOTER:
        begin = end - FOOTER - int.from_bytes(packet[end - FOOTER : end - FOOTER + 3])
        if begin < 0 or _crc(packet[begin:end]):
            return False
        end = begin
    return end == 0


def _crc(content: bytes) -> int:
    """CRC-32 with the most significant bit first and 0 to begin with: zlib's of mirrored bytes."""
    return zlib.crc32(content.translate(_MIRRORED), _ONES) ^ _ONES
