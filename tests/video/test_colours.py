"""Pixels are what the standards say, to within rounding: compared with the formulas in double precision."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltafine.video import open_dataset
from deltafine.video.conversion import Converter
from deltafine.video.frames import UnreadableVideo
from tests.video.painted import write_video

SHARES = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
"""Of red and blue in luma: ITU-R BT.601, BT.709 and BT.2020."""
MATRICES = {"bt601": 5, "bt709": 1, "bt2020": 9}
LIMITED, FULL = 1, 2
GREY = np.array([0.299, 0.587, 0.114])
ROUNDING = 0.55
"""Half a level, and what swscale's 14-bit coefficients add."""


def flat_frame(pixels: str, values: tuple[int, ...], size: int = 32) -> av.VideoFrame:
    """A frame whose planes hold one value each."""
    frame = av.VideoFrame(size, size, pixels)
    deep = max(component.bits for component in frame.format.components) > 8
    for plane, value in zip(frame.planes, values, strict=True):
        kind = (">u2" if pixels.endswith("be") else "<u2") if deep else "u1"
        plane.update(np.full(plane.buffer_size // np.dtype(kind).itemsize, value, kind).tobytes())
    return frame


def rgb_of(values: tuple[int, ...], bits: int, matrix: str, full: bool) -> np.ndarray:
    """(3,) float64, 0 to 255: what luma and two chroma values mean."""
    red, blue = SHARES[matrix]
    step = 2.0 ** (bits - 8)
    luma = values[0] / (2**bits - 1) if full else (values[0] - 16 * step) / (219 * step)
    u, v = ((value - 128 * step) / (2**bits - 1 if full else 224 * step) for value in values[1:])
    r, b = luma + 2 * (1 - red) * v, luma + 2 * (1 - blue) * u
    g = (luma - red * r - blue * b) / (1 - red - blue)
    return np.clip(np.array([r, g, b]) * 255, 0, 255)


@settings(max_examples=150, deadline=None)
@given(
    pixels=st.sampled_from(
        ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le", "yuv420p10be", "yuv444p12le"]
    ),
    matrix=st.sampled_from(sorted(MATRICES)),
    full=st.booleans(),
    size=st.sampled_from([16, 32, 48]),
    shares=st.tuples(*[st.floats(0, 1)] * 3),
)
def test_coded_colours_become_the_rgb_of_their_matrix_and_range(
    pixels: str, matrix: str, full: bool, size: int, shares: tuple[float, ...]
) -> None:
    bits = int(pixels[7:9]) if len(pixels) > 7 else 8
    values = tuple(round(share * (2**bits - 1)) for share in shares)
    frame = flat_frame(pixels, values)
    frame.colorspace, frame.color_range = MATRICES[matrix], FULL if full else LIMITED
    expected = rgb_of(values, bits, matrix, full)
    picture = Converter((size, size), 3)(frame)
    assert np.abs(picture - expected).max() <= ROUNDING


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv444p", "yuv420p10le"])
@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("full", [False, True])
def test_grey_is_the_bt601_luma_of_the_rgb_picture(pixels: str, matrix: str, full: bool) -> None:
    bits = 10 if "10" in pixels else 8
    convert = Converter((16, 16), 1)
    generator = np.random.default_rng(0)
    for colour in generator.random((20, 3)):
        red, blue = SHARES[matrix]
        luma = np.array([red, 1 - red - blue, blue]) @ colour
        chroma = np.array([(colour[2] - luma) / (2 - 2 * blue), (colour[0] - luma) / (2 - 2 * red)])
        step, top = 2 ** (bits - 8), 2**bits - 1
        scales = (top, top, 0) if full else (219 * step, 224 * step, 16 * step)
        values = np.rint([luma * scales[0] + scales[2], *(chroma * scales[1] + 128 * step)]).clip(0, top)
        frame = flat_frame(pixels, tuple(int(value) for value in values))
        frame.colorspace, frame.color_range = MATRICES[matrix], FULL if full else LIMITED
        expected = rgb_of(tuple(values), bits, matrix, full) @ GREY
        assert np.abs(convert(frame) - expected).max() <= ROUNDING


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("pixels", ["yuv420p", "yuvj420p", "yuv444p", "rgb24", "gray"])
def test_white_is_255_and_black_is_0(pixels: str, channels: int) -> None:
    limited = pixels in ("yuv420p", "yuv444p")
    for level, expected in ((235 if limited else 255, 255), (16 if limited else 0, 0)):
        values = (level, 128, 128) if pixels.startswith("yuv") else (level,)
        assert (Converter((24, 24), channels)(flat_frame(pixels, values)) == expected).all()


@pytest.mark.parametrize("pixels", ["rgb24", "bgr24", "gbrp", "bgr0", "rgba"])
def test_rgb_pictures_are_kept_at_their_own_size_and_averaged_at_half(pixels: str) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (32, 48, 3), np.uint8)
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixels)
    np.testing.assert_array_equal(Converter((32, 48), 3)(frame), picture)
    halves = picture.reshape(16, 2, 24, 2, 3).mean(axis=(1, 3))
    assert np.abs(Converter((16, 24), 3)(frame) - halves).max() <= ROUNDING
    assert np.abs(Converter((32, 48), 1)(frame)[..., 0] - picture @ GREY).max() <= ROUNDING


@pytest.mark.parametrize(("pixels", "top"), [("gbrp10le", 1023), ("gbrp12le", 4095), ("gray10le", 1023)])
def test_deep_pictures_reach_255_at_their_highest_value(pixels: str, top: int) -> None:
    values = np.linspace(0, top, 64).round().astype(np.int64)
    for value in values:
        frame = flat_frame(pixels, (int(value),) * len(av.VideoFrame(32, 32, pixels).planes))
        for channels in (1, 3):
            assert np.abs(Converter((32, 32), channels)(frame) - value / top * 255).max() <= ROUNDING


def test_grey_that_is_tagged_as_limited_is_expanded() -> None:
    for pixels, value in (("gray", 235), ("gray10le", 940)):
        frame = flat_frame(pixels, (value,))
        frame.color_range = LIMITED
        assert (Converter((16, 16), 3)(frame) == 255).all()


def test_a_colour_matrix_that_cannot_be_converted_is_a_reason() -> None:
    frame = flat_frame("yuv420p", (100, 100, 100))
    frame.colorspace = 10
    with pytest.raises(UnreadableVideo, match="has colours that cannot be converted"):
        Converter((16, 16), 3)(frame)


def test_a_saturated_video_comes_out_as_it_went_in(tmp_path: Path) -> None:
    """All the way through a file, where old frames were up to 3 levels too dark."""
    colours = [(255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 120, 40)]
    pictures = [np.full((32, 32, 3), colour, np.uint8) for colour in colours]
    path = write_video(tmp_path / "v.mkv", pictures=pictures, codec="ffv1", pixels="yuv444p")
    (batch,) = open_dataset(path).clips(None, size=(16, 16), frames=5)
    assert np.abs(batch.frames[0].astype(int) - np.array(colours)[:, None, None]).max() <= 2  # 8 bits of chroma
    assert (batch.frames[0, 0] == 255).all()
