"""Holding a frame ready for the kernels: read where it lies if that is possible, and as bytes whenever it is bytes.

Frames of bytes are looked through fastest: the kernels compare them with the bytes that were sent last. A frame of
other numbers leaves no such bytes behind; they are taken up again from what the state holds.
"""

from __future__ import annotations

import math

import numpy as np

from deltafine.runtime.kernels import columns as layout
from deltafine.runtime.kernels.frame_intake import reads_beyond
from deltafine.runtime.kernels.vectors import LANES
from deltafine.runtime.plan import Plan

_BYTE, _NUMBER = np.dtype(np.uint8), np.dtype(np.float32)
_NO_PIXELS, _NO_NUMBERS = np.zeros(0, np.uint8), np.zeros(0, np.float32)
_LONGEST_WAIT = 64


class FrameReader:
    """The frames of one stream.

    Args:
        plan: what they are for.
        sent_bytes: uint8, of the stream's memory; the kernels keep in it the bytes that were sent.
        sent: (height, width, channels), a view of what the stream sent last of its frames.

    Attributes:
        numbers: float32, flat: the frame to be read, unless ``pixels`` has any.
        pixels: uint8, flat: the frame to be read.
    """

    def __init__(self, plan: Plan, sent_bytes: np.ndarray, sent: np.ndarray) -> None:
        operation = plan.operations[0]
        finish, arrays = operation.finish, plan.arrays
        self._size = math.prod(sent.shape)
        self._buffer, self._bytes = _NO_NUMBERS, _NO_PIXELS  # until a frame cannot be read where it lies
        self._exact = not reads_beyond(*sent.shape[1:])
        self._sent_bytes, self._sent = sent_bytes, sent
        self._scale = arrays[finish.scale] if finish.scale else np.float32(1)
        self._shift = arrays[finish.shift] if finish.shift else np.float32(0)
        rule = finish.delta.rule if finish.delta is not None else ""
        self._holds = layout.RULE_CODES.get(rule) == layout.R_SEND_ON_DELTA
        self.reset()

    def reset(self) -> None:
        """The next frame is a first one."""
        self._in_bytes = True
        self._wait = self._tried = 0
        self._bytes_in_buffer = False
        self.release()

    def release(self) -> None:
        """Hold no frame of the caller's."""
        self.numbers, self.pixels = _NO_NUMBERS, _NO_PIXELS

    def take_no_bytes_as_sent(self) -> None:
        """What was sent last did not come from here."""
        self._in_bytes = self._bytes_in_buffer = False

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """What it holds: buffers, once it needs them."""
        return self._buffer, self._bytes

    def take_in(self, frame: np.ndarray, fresh: bool) -> None:
        """Hold a frame (height, width, channels) of any number type ready, until the next one or ``release``."""
        if frame.dtype == _BYTE:
            if not self._in_bytes and not fresh:
                self._in_bytes = self._take_up_bytes()
            if self._in_bytes:
                pixels = self._as_it_is(frame)
                if pixels is None:
                    pixels = self._bytes = self._copied(frame, self._bytes)
                self.numbers, self.pixels = _NO_NUMBERS, pixels
                return
            self._bytes_in_buffer = True
        else:
            self._in_bytes = self._bytes_in_buffer = False
            self._wait = self._tried = 0
        numbers = self._as_it_is(frame) if frame.dtype == _NUMBER else None
        if numbers is None:
            numbers = self._buffer = self._copied(frame, self._buffer)
        self.numbers, self.pixels = numbers, _NO_PIXELS

    def _copied(self, frame: np.ndarray, buffer: np.ndarray) -> np.ndarray:
        """The frame in a buffer, a new one if that is empty."""
        if not len(buffer):
            buffer = np.zeros(self._size + 4 * LANES, buffer.dtype)  # kernels may read, and ignore, more
        buffer[: self._size].reshape(frame.shape)[...] = frame
        return buffer

    def _as_it_is(self, frame: np.ndarray) -> np.ndarray | None:
        """The frame, flat, where it lies; None if kernels cannot read it there."""
        usable = self._exact and frame.flags.c_contiguous and frame.flags.aligned
        return frame.reshape(-1) if usable else None

    def _take_up_bytes(self) -> bool:
        """Find bytes that stand for what was sent last; False if some of it never was a byte."""
        if not self._holds:  # then it is the frame before
            if self._bytes_in_buffer:
                self._sent_bytes[: self._size] = self._buffer[: self._size]
            return self._bytes_in_buffer
        if self._wait:  # what was held then is held now, most of it
            self._wait -= 1
            return False
        with np.errstate(all="ignore"):
            found = np.nan_to_num(np.rint((self._sent - self._shift) / self._scale)).clip(0, 255).astype(np.float32)
            same = np.array_equal(found * self._scale + self._shift, self._sent)
        if same:
            self._sent_bytes[: self._size] = found.reshape(-1)
        else:
            self._tried += 1
            self._wait = min(1 << self._tried, _LONGEST_WAIT)
        return same
