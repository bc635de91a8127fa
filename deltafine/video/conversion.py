"""From decoded frames to pictures of one size: the only place where pixels are scaled.

FFmpeg's swscale converts and scales in one step, with exact rounding so that every machine gets the same bytes:
the average over the area when it shrinks (its bilinear filter blurs more than those that models are trained on),
bilinear when it enlarges. The whole picture is stretched to the size asked for.
Rotation tags are honoured; interlaced video is shown as it is stored; transparency is ignored.
"""

from __future__ import annotations

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

EXACT = Interpolation.ACCURATE_RND | Interpolation.BITEXACT
SHRINKING, ENLARGING = Interpolation.AREA | EXACT, Interpolation.BILINEAR | EXACT
VERSION = "area-1"
"""Changes whenever the same file would give other bytes, so that no cache outlives its meaning."""


class Converter:
    """Makes pictures (height, width, channels) uint8, RGB for 3 channels and grey for 1, 0 to 255.

    Not for use by several threads at once.
    """

    def __init__(self, size: tuple[int, int], channels: int) -> None:
        self.shape = (*size, channels)
        self._reformatter = VideoReformatter()  # kept, because it keeps swscale's tables

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        turns = quarter_turns(frame)
        upright_height, upright_width, channels = self.shape
        height, width = (upright_width, upright_height) if turns % 2 else (upright_height, upright_width)
        scaled = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgb24" if channels == 3 else "gray",
            interpolation=SHRINKING if width <= frame.width and height <= frame.height else ENLARGING,
            threads=1,
        )
        plane = scaled.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[:height]
        picture = rows[:, : width * channels].reshape(height, width, channels)
        return np.rot90(picture, turns) if turns else picture

    def array(self, picture: np.ndarray) -> np.ndarray:
        """The same for a picture (H, W, C) uint8 that is an array already."""
        if picture.shape == self.shape:
            return picture
        return self(array_frame(picture))


def array_frame(picture: np.ndarray) -> VideoFrame:
    """A frame that holds a picture (H, W, 1 or 3) uint8."""
    grey = picture.shape[2] == 1
    pixels = np.ascontiguousarray(picture[:, :, 0] if grey else picture)
    return VideoFrame.from_ndarray(pixels, format="gray" if grey else "rgb24")


def quarter_turns(frame: VideoFrame) -> int:
    """How often to turn the picture by 90 degrees counter-clockwise so that it stands upright."""
    return round(frame.rotation / 90) % 4


def shown_size(frame: VideoFrame) -> tuple[int, int]:
    """Width and height of the picture as it is shown, after rotation."""
    return (frame.height, frame.width) if quarter_turns(frame) % 2 else (frame.width, frame.height)
