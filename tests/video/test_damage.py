"""No clip holds guessed pictures, as far as the decoder can tell: damage is looked for with every codec."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from av.video.frame import VideoFrame

from deltafine.video import Limits, open_dataset
from deltafine.video.encoded import EncodedVideo
from deltafine.video.frames import UnreadableVideo
from tests.video.painted import write_video
from tests.video.test_exact_frames import write_image

QUIET = {"x265-params": "log-level=none"}
MADE: dict[str, tuple[float, dict[str, Any]]] = {  # and what share of the damage is found at least
    "h264.mp4": (1.0, {"codec": "libx264"}),
    "hevc.mp4": (0.45, {"codec": "libx265", "options": QUIET}),
    "vp9.webm": (0.8, {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "deadline": "realtime"}}),
    "vp9.mp4": (0.8, {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "deadline": "realtime"}}),
    "av1.mp4": (1.0, {"codec": "libsvtav1", "options": {"preset": "12", "svtav1-params": "enable-stat-report=0"}}),
    "mpeg4.avi": (1.0, {"codec": "mpeg4"}),
    "mpeg2.ts": (1.0, {"codec": "mpeg2video"}),
    "mjpeg.avi": (0.5, {"codec": "mjpeg", "pixels": "yuvj420p"}),
    "ffv1.mkv": (1.0, {"codec": "ffv1"}),
    "png.mov": (1.0, {"codec": "png", "pixels": "rgb24"}),
    "windows.wmv": (0.8, {"codec": "wmv2"}),
}
TRIES = 16


def textured(count: int, size: tuple[int, int] = (96, 128)) -> list[np.ndarray]:
    """Pictures of smooth noise that moves."""
    noise = np.random.default_rng(0).integers(0, 256, (size[0] // 4 + 10, size[1] // 4 + 10, 3)).astype(np.float64)
    large = np.kron(noise, np.ones((4, 4, 1)))
    for _ in range(3):
        large = (large + np.roll(large, 1, 0) + np.roll(large, 1, 1) + np.roll(large, (1, 1), (0, 1))) / 4
    return [large[k : k + size[0], k : k + size[1]].astype(np.uint8) for k in range(count)]


def shown(path: Path) -> list[bytes] | None:
    """The frames of a file as they are decoded; None when it is bad."""
    frames: list[bytes] = []

    def keep(frame: VideoFrame) -> None:
        frames.append(frame.to_ndarray().tobytes())

    try:
        EncodedVideo(path).scan(Limits(seconds=30), keep)
    except UnreadableVideo:
        return None
    return frames


@pytest.mark.parametrize("name", MADE)
def test_overwritten_bytes_are_found_or_do_no_harm(tmp_path: Path, name: str) -> None:
    share, made = MADE[name]
    path = write_video(tmp_path / name, pictures=textured(20), **made)
    whole, sound = path.read_bytes(), shown(path)
    assert sound is not None
    assert len(sound) == 20
    generator = np.random.default_rng(1)
    harmed = 0
    for _ in range(TRIES):
        content = np.frombuffer(whole, np.uint8).copy()
        begin = int(len(whole) * generator.uniform(0.2, 0.7))
        places = np.minimum(begin + generator.integers(0, 2000, 20), len(whole) - 1)
        content[places] = generator.integers(0, 256, 20)
        path.write_bytes(content.tobytes())
        frames = shown(path)
        harmed += frames is not None and frames != sound
    assert harmed <= (1 - share) * TRIES


@pytest.mark.parametrize("name", [*MADE, "picture.gif"])
def test_a_cut_file_shows_no_frame_that_the_whole_one_does_not(tmp_path: Path, name: str) -> None:
    _, made = MADE.get(name, (1, {"codec": "gif", "pixels": "rgb8"}))
    path = write_video(tmp_path / name, pictures=textured(12), **made)
    whole, sound = path.read_bytes(), shown(path)
    assert sound is not None
    for share in np.linspace(0.3, 0.95, 9):
        path.write_bytes(whole[: int(share * len(whole))])
        frames = shown(path)
        assert frames is None or frames == sound[: len(frames)]


@pytest.mark.parametrize("options", [{"level": "1"}, {"level": "3", "slicecrc": "0"}, {"level": "3", "slices": "9"}])
def test_ffv1_is_read_with_checksums_and_without(tmp_path: Path, options: dict[str, str]) -> None:
    path = write_video(tmp_path / "v.mkv", pictures=textured(5), codec="ffv1", options=options)
    frames = shown(path)
    assert frames is not None
    assert len(frames) == 5


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("share", [1 / 3, 0.9])
def test_a_cut_image_spoils_its_folder(tmp_path: Path, suffix: str, share: float) -> None:
    pictures = textured(3)
    for number, picture in enumerate(pictures):
        write_image(tmp_path / f"clip/{number}.{suffix}", np.ascontiguousarray(picture))
    cut = tmp_path / f"clip/1.{suffix}"
    cut.write_bytes(cut.read_bytes()[: int(share * cut.stat().st_size)])
    data = open_dataset(tmp_path / "clip")
    data.scan()
    assert [problem.reason for problem in data.problems] == [f"has the unreadable image 1.{suffix}"]


def test_a_png_whose_bytes_were_changed_is_unreadable(tmp_path: Path) -> None:
    for number, picture in enumerate(textured(2)):
        write_image(tmp_path / f"clip/{number}.png", np.ascontiguousarray(picture))
    damaged = tmp_path / "clip/0.png"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 4
    damaged.write_bytes(content)
    data = open_dataset(tmp_path / "clip")
    data.scan()
    assert [problem.reason for problem in data.problems] == ["has the unreadable image 0.png"]


def test_an_image_is_read_as_what_it_is_whatever_it_is_called(tmp_path: Path) -> None:
    for number, picture in enumerate(textured(2)):
        write_image(tmp_path / f"clip/{number}.png", np.ascontiguousarray(picture))
        (tmp_path / f"clip/{number}.png").rename(tmp_path / f"clip/{number}.jpg")
    data = open_dataset(tmp_path / "clip")
    data.scan()
    assert data.problems == []
