"""Frames without a container, on standard input: one behind the other, all of one size."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import av
import numpy as np

from deltafine.errors import DeltafineError
from deltafine.video.frames import UnreadableVideo

NUMBERS: Final = "float32"
"""Pixels as the model takes them, in the machine's order of bytes; of the model's size."""
_FORMAT = re.compile(r"(?:(\d{1,5})x(\d{1,5}):)?([a-z0-9_]+)")


@dataclass(frozen=True)
class RawFormat:
    """What raw frames are.

    Attributes:
        width, height: in pixels; 0 for the model's size.
        pixels: FFmpeg's name of their format, or ``float32``.
    """

    width: int
    height: int
    pixels: str

    @property
    def is_numbers(self) -> bool:
        return self.pixels == NUMBERS


def raw_format(text: str) -> RawFormat:
    """What ``640x480:bgr24`` or ``float32`` says.

    Raises:
        DeltafineError: it says nothing, or a format that FFmpeg does not have.
    """
    match = _FORMAT.fullmatch(text)
    refusal = f"'{text}' describes no raw frames: give WIDTHxHEIGHT:FORMAT, such as 640x480:bgr24, or {NUMBERS}."
    if match is None or (match[1] is None) != (match[3] == NUMBERS):
        raise DeltafineError(refusal)
    width, height, pixels = int(match[1] or 0), int(match[2] or 0), match[3]
    if pixels != NUMBERS:
        try:
            av.VideoFormat(pixels)
        except ValueError as error:
            raise DeltafineError(f"{refusal[:-1]}; FFmpeg knows no format '{pixels}'.") from error
        if not (width and height):
            raise DeltafineError(refusal)
    return RawFormat(width, height, pixels)


def raw_container(raw: RawFormat) -> Callable[[], Any]:
    """What opens standard input as a video of raw frames."""
    options = {"pixel_format": raw.pixels, "video_size": f"{raw.width}x{raw.height}"}
    return lambda: av.open(_StandardInput(), format="rawvideo", container_options=options)


def numbers_from(raw: RawFormat, shape: tuple[int, int, int]) -> Iterator[np.ndarray]:
    """Frames (height, width, channels) float32 from standard input."""
    source = _StandardInput()
    size = 4 * int(np.prod(shape))
    number = 0
    while True:
        content = bytearray()
        while len(content) < size and (piece := source.read(size - len(content))):
            content += piece
        if not content:
            return
        if len(content) < size:
            raise UnreadableVideo(f"ends within frame {number}: {len(content)} of {size} bytes")
        yield np.frombuffer(content, np.float32).reshape(shape)
        number += 1


class _StandardInput(io.RawIOBase):
    """Standard input without Python's buffer: what is there is given at once, and nobody waits for it at the end."""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return os.read(0, size if size > 0 else io.DEFAULT_BUFFER_SIZE)
