"""The first and the last picture of a video, small: by these it is told which video may go on where another ends."""

from __future__ import annotations

import numpy as np
from av.video.frame import VideoFrame

from deltafine.video.conversion import Converter, is_deep

SIDE = 16
"""Pictures are compared at about this height and width."""


class Ends:
    """Takes the frames of a video that is read through, and keeps both ends.

    Pictures of 16 bits are not taken, because how deep they are is known when all videos were read.

    Args:
        convert: Makes the pictures.
    """

    def __init__(self, convert: Converter) -> None:
        self._convert: Converter | None = convert
        self._count = 0
        self._first: np.ndarray | None = None
        self._last: VideoFrame | None = None
        self._both: np.ndarray | None = None

    def take(self, frame: VideoFrame) -> None:
        """See one more."""
        if self._convert is None or is_deep(frame.format.name):
            return
        if self._first is None:
            self._first = self._convert(frame).copy()
        self._last = frame
        self._count += 1

    def finish(self) -> None:
        """There are no more: what is large is let go of."""
        if self._convert is not None and self._first is not None and self._last is not None:
            self._both = small(np.stack([self._first, self._convert(self._last)])).astype(np.uint8)
        self._convert = self._first = self._last = None

    def pictures(self, count: int) -> np.ndarray | None:
        """(2, values) uint8, see ``small``; None where these are not the ends of ``count`` frames."""
        return self._both if count == self._count else None


def small(frames: np.ndarray) -> np.ndarray:
    """(n, H, W, C) uint8 to (n, values) float64: whole numbers, so that distances are the same on every machine."""
    rows, columns = (max(1, side // SIDE) for side in frames.shape[1:3])
    height, width = frames.shape[1] // rows, frames.shape[2] // columns
    blocks = frames[:, : height * rows, : width * columns].reshape(len(frames), height, rows, width, columns, -1)
    return np.rint(blocks.mean(axis=(2, 4))).reshape(len(frames), -1)
