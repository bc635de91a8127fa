"""Pictures of 16 bits from cameras that use fewer: one scale for all frames of all videos of a data set."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from deltafine.video import Dataset, open_dataset
from deltafine.video.conversion import bits_for
from deltafine.video.dataset_overview import overview
from deltafine.video.live import live_frames

SIZE = (8, 16)


def write_deep(path: Path, value: int, pixels: str = "gray16be") -> None:
    """A PNG file of 16 bits that holds one value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    encoder: Any = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt = SIZE[1], SIZE[0], pixels
    encoder.time_base = Fraction(1, 25)
    frame = av.VideoFrame(SIZE[1], SIZE[0], pixels)
    frame.planes[0].update(np.full(frame.planes[0].buffer_size // 2, value, ">u2").tobytes())
    path.write_bytes(b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)]))


def write_clips(root: Path, clips: dict[str, list[int]], pixels: str = "gray16be") -> Path:
    for name, values in clips.items():
        for number, value in enumerate(values):
            write_deep(root / name / f"{number}.png", value, pixels)
    return root


def levels(data: Dataset, split: Any = None, channels: int = 3) -> dict[str, list[int]]:
    """The level of every frame, all its pixels being the same."""
    found: dict[str, list[int]] = {}
    for video, stream in data.streams(split, size=SIZE, channels=channels):
        frames = np.concatenate([frames for frames, _ in stream])
        assert (frames == frames[:, :1, :1, :1]).all()
        found[video.name] = frames[:, 0, 0, 0].tolist()
    return found


def level(value: int, bits: int) -> int:
    return int(np.floor(value / (2**bits - 1) * 255 + 0.5))


@pytest.mark.parametrize("pixels", ["gray16be", "rgb48be"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_values_of_a_14_bit_camera_fill_the_range_of_14_bits(tmp_path: Path, pixels: str, channels: int) -> None:
    root = write_clips(tmp_path, {"a": [7200, 7500], "b": [0, 16383]}, pixels)
    assert levels(open_dataset(root), channels=channels) == {"a": [level(7200, 14), level(7500, 14)], "b": [0, 255]}


def test_a_dark_video_is_scaled_like_the_bright_ones_on_the_other_side(tmp_path: Path) -> None:
    root = write_clips(tmp_path, {"train/x/dark": [900, 1000], "val/x/bright": [12000, 15000]})
    for split, expected in (("train", [900, 1000]), ("validation", [12000, 15000])):
        ((_, found),) = levels(open_dataset(root), split).items()
        assert found == [level(value, 14) for value in expected]


def test_the_depth_is_said(tmp_path: Path) -> None:
    root = write_clips(tmp_path, {"a": [7200, 16000], "b": [1, 2]})
    data = open_dataset(root)
    assert "Pictures of 16 bits use 14 of them here, so that 16383 is shown as 255" in overview(data).lines
    said: list[str] = []
    data.use_cache(tmp_path / "cache", announce=said.append)
    levels(data)
    assert said[1:] == ["Pictures of 16 bits use 14 of them here, so that 16383 is shown as 255."]


def test_a_cache_holds_the_same_and_is_made_anew_when_the_depth_changes(tmp_path: Path) -> None:
    root = write_clips(tmp_path / "data", {"train/x/a": [900, 1000], "val/x/b": [12000, 15000]})

    def cached() -> list[int]:
        data = open_dataset(root)
        data.use_cache(tmp_path / "cache")
        ((_, found),) = levels(data, "train").items()
        return found

    assert cached() == [level(900, 14), level(1000, 14)]
    assert cached() == [level(900, 14), level(1000, 14)]
    write_deep(root / "val/x/b/0.png", 60000)
    assert cached() == [level(900, 16), level(1000, 16)]


def test_deep_videos_are_scaled_likewise(tmp_path: Path) -> None:
    for name, values in (("a", [4000, 1000]), ("b", [300, 200])):
        with av.open(str(tmp_path / f"{name}.mkv"), "w") as container:
            stream: Any = container.add_stream("ffv1", rate=25)
            stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "gray16le"
            for value in values:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full(SIZE, value, np.uint16), "gray16le")))
            container.mux(stream.encode(None))
    assert levels(open_dataset(tmp_path)) == {
        "a.mkv": [level(4000, 12), level(1000, 12)],
        "b.mkv": [level(300, 12), level(200, 12)],
    }
    assert [frame[0, 0, 0] for frame in live_frames(str(tmp_path / "a.mkv"), SIZE, 3)] == [
        level(4000, 12),
        level(1000, 12),
    ]


def test_played_live_a_folder_is_scaled_by_its_own_depth(tmp_path: Path) -> None:
    root = write_clips(tmp_path, {"a": [7200, 16383]})
    assert [frame[0, 0, 0] for frame in live_frames(str(root / "a"), SIZE, 1)] == [level(7200, 14), 255]


def test_cameras_have_even_depths() -> None:
    assert [bits_for(peak) for peak in (0, 255, 256, 7700, 9000, 16384, 65535)] == [8, 8, 10, 14, 14, 16, 16]
