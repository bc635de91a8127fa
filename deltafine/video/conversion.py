"""From decoded frames to pictures of one size: the only place where pixels are scaled.

FFmpeg's swscale converts and scales in one step, with exact rounding so that every machine gets the same bytes:
the average over the area when it shrinks (its bilinear filter blurs more than those that models are trained on),
bilinear when it enlarges. The whole picture is stretched to the size asked for.

Its way to packed RGB halves the colours and loses up to 3 levels, and it divides deep values by powers of two. So
it gives planes here, which are right to within rounding, of 16 bits where 8 would not do. Rotation and mirroring
are honoured; interlaced video is shown as it is stored; transparency is ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import av
import numpy as np
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import Interpolation, VideoReformatter

from deltafine.video.frames import UnreadableVideo
from deltafine.video.orientation import Orientation, orientation_of

EXACT = (
    Interpolation.ACCURATE_RND | Interpolation.BITEXACT | Interpolation.FULL_CHR_H_INP | Interpolation.FULL_CHR_H_INT
)
SHRINKING, ENLARGING = Interpolation.AREA | EXACT, Interpolation.BILINEAR | EXACT
REARRANGING = Interpolation.POINT | EXACT
VERSION = "area-2"
"""Changes whenever the same file would give other bytes, so that no cache outlives its meaning."""

LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)
"""Share of red, green and blue in grey (ITU-R BT.601)."""
FULL_RANGE, LIMITED_RANGE = 2, 1
NEVER_TOO_BLUE: Final = bytes(range(236))
"""Chroma of 8 bits that no luma lets overflow; see ``_is_beyond_blue``."""
FEW_BYTES: Final = 16384
"""So many are looked through faster without NumPy."""
BT601: Final = (0, 2, 4, 5, 6)
"""FFmpeg's numbers of the matrices that are treated as BT.601: none, unknown, and its variants."""


class Converter:
    """Makes pictures (height, width, channels) uint8, RGB for 3 channels and grey for 1, 0 to 255.

    Not for use by several threads at once.

    Args:
        size: Height and width in pixels.
        channels: 3 or 1.
        depth: Tells how many bits the values of pictures of 16 bits really use: 2^bits - 1 becomes 255. None where
            that is not known; such pictures raise ``UnreadableVideo`` then.
    """

    def __init__(self, size: tuple[int, int], channels: int, depth: Callable[[], int] | None = None) -> None:
        self.shape = (*size, channels)
        self._depth = depth
        self._scaler = VideoReformatter()  # kept, because it keeps swscale's tables
        self._packer = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        name = frame.format.name
        channels, bits = self.shape[2], 16
        if is_deep(name):
            if self._depth is None:
                raise UnreadableVideo("has pictures of 16 bits, of which nothing tells how many are used")
            bits = self._depth()
        if name == "rgb24" and channels == 3 and (frame.height, frame.width) in (self.shape[:2], self.shape[1::-1]):
            orientation = orientation_of(frame)
            if (frame.height, frame.width) == self._stored(transposed=orientation.transposed):
                return orientation(_plane(frame.planes[0], np.uint8, 3))
        way = _way(name, frame.colorspace, frame.color_range, channels, bits)
        if way.wider is not None and _is_beyond_blue(frame, way):
            way = way.wider
        scaled, orientation = self._scaled(frame, way.format)
        if way.table is not None and way.rounded is not None:
            return orientation(_narrowed(scaled, way.table, way.rounded, channels))
        if channels == 3:  # faster than to do it in NumPy
            scaled = self._packer.reformat(scaled, format="rgb24", interpolation=REARRANGING, threads=1)
        return orientation(_plane(scaled.planes[0], np.uint8, channels))

    def _stored(self, *, transposed: bool) -> tuple[int, int]:
        """Height and width before the picture is turned."""
        height, width, _ = self.shape
        return (width, height) if transposed else (height, width)

    def _scaled(self, frame: VideoFrame, form: str) -> tuple[VideoFrame, Orientation]:
        """A frame that is scaled and not turned yet, and how to turn it.

        The small frame has the matrix, too. Whoever asks the large one keeps it until Python's collector comes: PyAV's
        side data and its frame hold each other, and hundreds of large frames are a gigabyte.
        """
        told = frame.opaque if isinstance(frame.opaque, Orientation) else None
        turned = round(frame.rotation / 90) % 2 == 1 if told is None else told.transposed
        scaled = self._scale(frame, *self._stored(transposed=turned), form)
        orientation = orientation_of(scaled) if told is None else told
        if orientation.transposed != turned:  # a matrix that is no quarter of a turn
            scaled = self._scale(frame, *self._stored(transposed=orientation.transposed), form)
        return scaled, orientation

    def _scale(self, frame: VideoFrame, height: int, width: int, form: str) -> VideoFrame:
        try:
            return self._scaler.reformat(
                frame,
                width=width,
                height=height,
                format=form,
                interpolation=SHRINKING if width <= frame.width and height <= frame.height else ENLARGING,
                threads=1,
            )
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise UnreadableVideo(
                f"has colours that cannot be converted (format {frame.format.name}, matrix {frame.colorspace})"
            ) from error

    def array(self, picture: np.ndarray) -> np.ndarray:
        """The same for a picture (H, W, C) uint8 that is an array already."""
        if picture.shape == self.shape:
            return picture
        return self(array_frame(picture))


@dataclass(frozen=True, eq=False)
class _Way:
    """How to come from frames of one kind to pictures.

    Attributes:
        format: What swscale is asked for: planes of grey, or of green, blue and red.
        table: Where these are of 16 bits: (65536,) float32, what their values mean from 0 to 255.
        rounded: The same as uint8.
        wider: The way to take where this one would overflow.
        depth: Bits of the values that it starts from.
    """

    format: str
    table: np.ndarray | None = None
    rounded: np.ndarray | None = None
    wider: _Way | None = None
    depth: int = 8


@lru_cache(maxsize=256)
def _way(name: str, matrix: int, color_range: int, channels: int, bits: int) -> _Way:
    """The way for frames of a pixel format, with the numbers of their matrix and range, to so many channels."""
    kind, depth = _kind_and_depth(name)
    if kind == "coded":
        limited = color_range != FULL_RANGE and not name.startswith("yuvj")
    else:
        limited = kind == "grey" and color_range == LIMITED_RANGE  # not expected of grey, and not seen to by swscale
    plain = depth <= 8 and not (kind == "grey" and limited)
    of_colours = channels == 1 and kind == "coded" and matrix not in BT601  # luma is something else then
    if channels == 3 and kind == "coded" and limited:
        return _Way("gbrp", wider=_wide("gbrp16le", 0, 255 << 8), depth=depth)
    if channels == 3 and plain:
        return _Way("gbrp")
    if channels == 1 and plain and not of_colours:
        return _Way("gray")
    # swscale keeps the upper bits where they are in all of these, except where it expands luma itself
    wide = "gray16le" if channels == 1 and kind == "coded" and not of_colours else "gbrp16le"
    black, white = 0, 65535
    if is_deep(name):
        white = (1 << bits) - 1
    elif limited and kind == "grey":
        black, white = 16 << 8, 235 << 8
    elif limited and wide == "gbrp16le":
        white = 255 << 8
    elif not limited and kind != "float":
        white = ((1 << depth) - 1) << (16 - depth)
    return _wide(wide, black, white)


def _wide(form: str, black: int, white: int) -> _Way:
    """A way by 16 bits, from what becomes 0 and what becomes 255."""
    values = (np.arange(65536) - black) * (255 / (white - black))
    table = np.clip(values, 0, 255).astype(np.float32)
    return _Way(form, table, _rounded(table))


def _is_beyond_blue(frame: VideoFrame, way: _Way) -> bool:
    """Whether the blue of a frame of limited range may come to 512 or more, which swscale's 8 bits make 0.

    Only values that no camera gives, such as luma and chroma of 255, lead there; no other colour gets as far.
    """
    planes = frame.planes
    kind, step = (np.uint8, 1) if way.depth <= 8 else (_deep_kind(frame), 1 << (way.depth - 8))
    chroma = planes[1] if len(planes) > 1 else planes[0]
    if way.depth <= 8 and chroma.buffer_size < FEW_BYTES and not bytes(chroma).translate(None, NEVER_TOO_BLUE):
        return False
    if 255 * 239 / 219 + _blue_of(int(np.frombuffer(memoryview(chroma), kind).max()) / step) < 511:
        return False  # not even with the padding of its lines, which is faster to look through than to leave out
    blue = _blue_of(int(_plane(chroma, kind, 0 if len(planes) > 2 else 2).max()) / step)
    luma = int(_plane(planes[0], kind, 0 if len(planes) > 1 else 2).max()) / step
    return 255 * (luma - 16) / 219 + blue >= 511


def _blue_of(chroma: float) -> float:
    """What chroma adds to blue at most, that of BT.2020."""
    return 255 * 2 * (1 - 0.0593) * (chroma - 128) / 224


@lru_cache(maxsize=256)
def _kind_and_depth(name: str) -> tuple[str, int]:
    """What the components of a pixel format are (grey, rgb, coded as luma and chroma, float), and their bits."""
    form = VideoFormat(name)
    depth = max(component.bits for component in form.components)
    if depth > 16 or "f16" in name:
        return "float", depth
    if form.is_rgb or form.has_palette:
        return "rgb", depth
    return "grey" if sum(not component.is_alpha for component in form.components) == 1 else "coded", depth


def _narrowed(scaled: VideoFrame, table: np.ndarray, rounded: np.ndarray, channels: int) -> np.ndarray:
    """(H, W, channels) uint8 of planes of 16 bits; grey of three is their weighted sum."""
    planes = [_plane(plane, "<u2") for plane in scaled.planes]
    if len(planes) == 1:
        return np.stack([rounded[planes[0]]] * channels, axis=-1)
    planes = [planes[2], planes[0], planes[1]]  # red, green, blue
    if channels == 3:
        return np.stack([rounded[plane] for plane in planes], axis=-1)
    return _rounded(sum(share * table[plane] for share, plane in zip(LUMA, planes, strict=True)))[..., None]


def _rounded(values: Any) -> np.ndarray:
    return (values + np.float32(0.5)).astype(np.uint8)


def _plane(plane: VideoPlane, kind: Any, values: int = 0) -> np.ndarray:
    """(H, W) of a plane, or (H, W, values) where it holds so many for every pixel."""
    each = np.dtype(kind).itemsize
    if not values:
        return np.ndarray((plane.height, plane.width), kind, memoryview(plane), 0, (plane.line_size, each))
    shape, strides = (plane.height, plane.width, values), (plane.line_size, values * each, each)
    return np.ndarray(shape, kind, memoryview(plane), 0, strides)


def array_frame(picture: np.ndarray) -> VideoFrame:
    """A frame that holds a picture (H, W, 1 or 3) uint8."""
    grey = picture.shape[2] == 1
    pixels = np.ascontiguousarray(picture[:, :, 0] if grey else picture)
    return VideoFrame.from_ndarray(pixels, format="gray" if grey else "rgb24")


@lru_cache(maxsize=256)
def is_deep(pixel_format: str) -> bool:
    """Whether a pixel format has 16 bits, which need not be used up: cameras give 10, 12 or 14."""
    kind, depth = _kind_and_depth(pixel_format)
    return depth == 16 and kind in ("grey", "rgb")


def _deep_kind(frame: VideoFrame) -> str:
    """NumPy's name of the values of more than 8 bits that a frame holds."""
    return ">u2" if frame.format.name.endswith("be") else "<u2"


def peak_of(frame: VideoFrame) -> int:
    """The highest value of a frame of 16 bits, transparency left out; 0 for other frames."""
    name = frame.format.name
    if not is_deep(name):
        return 0
    kind = _deep_kind(frame)
    components = frame.format.components
    packed = len(frame.planes) == 1
    colours = [place for place, component in enumerate(components) if not component.is_alpha]
    if packed:
        return int(_plane(frame.planes[0], kind, len(components))[..., colours].max())
    return max(int(_plane(frame.planes[place], kind).max()) for place in colours)


def bits_for(peak: int) -> int:
    """How many bits a camera has whose highest value is this: 8, 10, 12, 14 or 16."""
    return next(bits for bits in (8, 10, 12, 14, 16) if peak < 1 << bits)


def say_depth(bits: int) -> str:
    """What was done with pictures of 16 bits, in one sentence."""
    return f"Pictures of 16 bits use {bits} of them here, so that {2**bits - 1} is shown as 255."


def shown_size(frame: VideoFrame) -> tuple[int, int]:
    """Width and height of the picture as it is shown, after rotation."""
    return (frame.height, frame.width) if orientation_of(frame).transposed else (frame.width, frame.height)
