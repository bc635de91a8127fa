"""Small encoded videos with the frame number painted into the pixels, so that tests can read it back."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

BITS = 8
SIZE = (32, 64)  # height, width: two rows of four blocks of 16 pixels


def paint(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """(H, W, 3) uint8: black and white blocks, one per bit of ``number``, lowest bit first."""
    bits = (number >> np.arange(BITS)) & 1
    blocks = np.where(bits.reshape(2, BITS // 2), 235, 16).astype(np.uint8)
    rows = np.arange(size[0]) * 2 // size[0]
    columns = np.arange(size[1]) * (BITS // 2) // size[1]
    return np.repeat(blocks[rows][:, columns][:, :, None], 3, axis=2)


def number_of(picture: np.ndarray) -> int:
    """The number painted into a picture (H, W, C) of any size."""
    height, width = picture.shape[:2]
    bright = [
        picture[height * (2 * row + 1) // 4, width * (2 * column + 1) // BITS].mean() > 125
        for row in range(2)
        for column in range(BITS // 2)
    ]
    return sum(bit << place for place, bit in enumerate(bright))


def numbers_of(pictures: np.ndarray) -> list[int]:
    """The numbers painted into pictures (T, H, W, C)."""
    return [number_of(picture) for picture in pictures]


def write_video(
    path: Path,
    frames: int = 24,
    *,
    first: int = 0,
    size: tuple[int, int] = SIZE,
    codec: str = "mpeg4",
    pixels: str = "yuv420p",
    rate: int = 25,
    group: int = 12,
    times: list[int] | None = None,
    pictures: list[np.ndarray] | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    audio: bool = False,
) -> Path:
    """Encode frames painted with ``first``, ``first + 1``, ... or the given pictures.

    ``times`` gives each frame's time in ticks of 1/rate seconds, for a variable frame rate.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if pictures is None:
        pictures = [paint(first + number, size) for number in range(frames)]
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream: Any = container.add_stream(codec, rate=rate, options={"g": str(group), **(options or {})})
        stream.width, stream.height = pictures[0].shape[1], pictures[0].shape[0]
        stream.pix_fmt = pixels
        if stream.codec_context.bit_rate is not None and codec in ("mpeg4", "mpeg2video", "mpeg1video"):
            stream.bit_rate = 2_000_000
        sound: Any = container.add_stream("mp2", rate=44100) if audio else None
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts = times[number] if times else number
            frame.time_base = Fraction(1, rate)
            container.mux(stream.encode(frame))
        if sound is not None:
            noise = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), format="s16", layout="mono")
            noise.sample_rate = 44100
            container.mux(sound.encode(noise))
            container.mux(sound.encode(None))
        container.mux(stream.encode(None))
    return path


def write_classes(root: Path, classes: dict[str, int], frames: int = 16) -> Path:
    """A folder per class, each with so many videos ``v0.avi``, ``v1.avi``, ... of differing content."""
    first = 0
    for name, count in classes.items():
        for number in range(count):
            write_video(root / name / f"v{number}.avi", frames, first=first)
            first += 1
    return root
