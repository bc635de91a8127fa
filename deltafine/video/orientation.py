"""Which way up a picture is shown: turned by quarters, mirrored, or both.

Files say it in two ways. A display matrix maps a stored pixel (x, y) to x' = a x + c y and y' = b x + d y, x to the
right and y down (ISO/IEC 14496-12, 6.2.2; H.264 and HEVC carry one, too). Exif numbers the eight cases.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from av.video.frame import VideoFrame


@dataclass(frozen=True)
class Orientation:
    """How to make the picture that is shown out of the one that is stored.

    Attributes:
        transposed: Rows become columns, first of all.
        upside_down: The order of the rows is reversed then.
        mirrored: And that of the columns.
    """

    transposed: bool = False
    upside_down: bool = False
    mirrored: bool = False

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """A picture (H, W, C) as it is shown, a view of the same memory."""
        if self.transposed:
            picture = picture.transpose(1, 0, 2)
        if self.upside_down:
            picture = picture[::-1]
        return picture[:, ::-1] if self.mirrored else picture


AS_STORED: Final = Orientation()
OF_EXIF: Final = {
    1: AS_STORED,
    2: Orientation(mirrored=True),
    3: Orientation(upside_down=True, mirrored=True),
    4: Orientation(upside_down=True),
    5: Orientation(transposed=True),
    6: Orientation(transposed=True, mirrored=True),
    7: Orientation(transposed=True, upside_down=True, mirrored=True),
    8: Orientation(transposed=True, upside_down=True),
}
"""By the value of Exif's tag ``Orientation``."""

OF_QUARTER_TURNS: Final = (OF_EXIF[1], OF_EXIF[8], OF_EXIF[3], OF_EXIF[6])
ORIENTATION_TAG: Final = 0x0112
MOST_ENTRIES: Final = 1000


def orientation_of(frame: VideoFrame) -> Orientation:
    """How a decoded frame is shown: as whoever decoded it says in ``opaque``, or as its display matrix says."""
    if isinstance(frame.opaque, Orientation):
        return frame.opaque
    try:
        side_data = frame.side_data
    except ValueError:  # beside data that PyAV does not know it gives no matrix, but its angle
        return OF_QUARTER_TURNS[round(frame.rotation / 90) % 4]
    matrix: Any = side_data.get("DISPLAYMATRIX") if len(side_data) else None
    return AS_STORED if matrix is None else of_matrix(bytes(matrix))


def of_matrix(content: bytes) -> Orientation:
    """The orientation nearest to a display matrix: nine 32-bit integers in the machine's order, row by row."""
    a, b, _, c, d, *_ = struct.unpack("=9i", content[:36])
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(transposed=True, upside_down=b < 0, mirrored=c < 0)
    return Orientation(upside_down=d < 0, mirrored=a < 0)


def of_image(content: bytes) -> Orientation:
    """The orientation that the Exif data of an image tell; as stored where there are none."""
    try:
        if content.startswith((b"II*\0", b"MM\0*")):
            exif = content  # TIFF is what Exif data are written in
        elif content.startswith(b"RIFF"):
            exif = _webp_exif(content)
        else:
            exif = _png_exif(content) if content.startswith(b"\x89PNG") else _jpeg_exif(content)
        return OF_EXIF.get(_read_tag(exif), AS_STORED) if exif else AS_STORED
    except struct.error:  # cut off or broken, in what is no part of the picture
        return AS_STORED


def _jpeg_exif(content: bytes) -> bytes:
    place = 2
    while place + 4 <= len(content) and content[place] == 0xFF and content[place + 1] != 0xDA:
        if content[place + 1] == 0xFF:  # padding
            place += 1
            continue
        (size,) = struct.unpack_from(">H", content, place + 2)
        if content[place + 1] == 0xE1 and content[place + 4 : place + 10] == b"Exif\0\0":
            return content[place + 10 : place + 2 + size]
        place += 2 + size
    return b""


def _png_exif(content: bytes) -> bytes:
    place = 8
    while place + 8 <= len(content):
        size, name = struct.unpack_from(">I4s", content, place)
        if name == b"eXIf":
            return content[place + 8 : place + 8 + size]
        place += 12 + size
    return b""


def _webp_exif(content: bytes) -> bytes:
    place = 12
    while place + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, place)
        if name == b"EXIF":
            return content[place + 8 : place + 8 + size].removeprefix(b"Exif\0\0")
        place += 8 + size + size % 2
    return b""


def _read_tag(exif: bytes) -> int:
    order = "<" if exif.startswith(b"II") else ">"
    (first,) = struct.unpack_from(f"{order}I", exif, 4)
    (count,) = struct.unpack_from(f"{order}H", exif, first)
    for number in range(min(count, MOST_ENTRIES)):
        tag, _, _, value = struct.unpack_from(f"{order}HHIH", exif, first + 2 + 12 * number)
        if tag == ORIENTATION_TAG:
            return int(value)
    return 1
