"""Recordings as people have them on disk: copied, joined, cut out and named by cameras, and read all the same."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext

from deltafine.errors import DeltafineError
from deltafine.video import Limits, open_dataset
from deltafine.video.conversion import Converter
from deltafine.video.encoded import EncodedVideo
from deltafine.video.frames import FrameIndex, UnreadableVideo, read_frames
from tests.video.painted import SIZE, numbers_of, paint, write_video

B_FRAMES = {"bf": "3", "sc_threshold": "0"}
NO_B = {"bf": "0", "sc_threshold": "0"}
SMALL = Converter((16, 32), 3)


def copy(
    source: Path,
    target: Path,
    *,
    keep: Callable[[int], bool] = lambda number: True,
    change: Callable[[int, Any], None] = lambda number, packet: None,
) -> Path:
    """Put the packets of a file into another one as they are, as ``ffmpeg -c copy`` does."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        before = old.streams.video[0]
        after = new.add_stream_from_template(before)
        avi_of_mp4 = target.suffix == ".avi" and source.suffix == ".mp4"
        converted = BitStreamFilterContext("h264_mp4toannexb", before, after) if avi_of_mp4 else None
        for number, packet in enumerate(old.demux(before)):
            if packet.dts is None or not keep(number):
                continue
            change(number, packet)
            for one in [packet] if converted is None else converted.filter(packet):
                one.stream = after
                new.mux(one)
    return target


def read_through(path: Path) -> tuple[FrameIndex, list[int]]:
    """What reading through a file shows, and the numbers in its frames, which are the same however it is entered."""
    source = EncodedVideo(path)
    index = source.scan(Limits())
    whole = read_frames(source, index, range(index.count), SMALL, Limits())
    for number in range(0, index.count, 7):
        np.testing.assert_array_equal(read_frames(source, index, [number], SMALL, Limits())[0], whole[number])
    return index, [int(number) for number in numbers_of(whole)]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Grows by one with every frame that is decoded."""
    frames: list[object] = []
    monkeypatch.setattr("deltafine.video.decoding.check_pixels", lambda *args: frames.append(args))
    return frames


def test_h264_that_was_copied_into_avi_is_read_whole(tmp_path: Path) -> None:
    mp4 = write_video(tmp_path / "v.mp4", 100, codec="libx264", options=B_FRAMES)
    index, shown = read_through(copy(mp4, tmp_path / "v.avi"))
    assert shown == list(range(100))
    np.testing.assert_allclose(index.times, np.arange(100) / 25, atol=0.001)


@pytest.mark.parametrize("options", [B_FRAMES, NO_B, None])
def test_frames_that_an_avi_has_dropped_are_missing_and_nothing_else(
    tmp_path: Path, options: dict[str, str] | None
) -> None:
    times = [number if number < 20 else number + 60 for number in range(40)]
    if options is None:
        path = write_video(tmp_path / "v.avi", 40, codec="mpeg4", times=times)
    else:
        mp4 = write_video(tmp_path / "v.mp4", 40, codec="libx264", options=options, times=times)
        path = copy(mp4, tmp_path / "v.avi")
    index, shown = read_through(path)
    assert shown == list(range(40))
    steps = np.diff(index.times)
    assert steps.max() == pytest.approx(61 / 25, abs=0.05)
    assert abs(int(steps.argmax()) - 19) <= 4  # AVI tells when frames are decoded, not when they are shown


@pytest.mark.parametrize("name", ["v.mp4", "v.mov", "v.mkv", "v.avi"])
def test_a_last_picture_may_be_shown_long(tmp_path: Path, name: str) -> None:
    def last(number: int, packet: Any) -> None:
        packet.duration = int(10 / packet.time_base) if number == 9 else packet.duration

    source = write_video(tmp_path / "source.mp4", 10, codec="libx264", options=NO_B)
    assert read_through(copy(source, tmp_path / name, change=last))[1] == list(range(10))


@pytest.mark.parametrize("name", ["v.mp4", "v.ts", "v.mkv"])
@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_a_recording_may_begin_between_key_frames(tmp_path: Path, name: str, codec: str) -> None:
    source = write_video(tmp_path / f"source{Path(name).suffix}", 100, codec=codec, options={"bf": "2"}, group=40)
    _, shown = read_through(copy(source, tmp_path / name, keep=lambda number: number >= 15))
    assert shown == list(range(shown[0], 100))
    assert 38 <= shown[0] <= 42


def nal_units(content: bytes) -> list[bytes]:
    parts = content.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")
    return [part for part in parts if part]


def once_told(parts: list[Path], target: Path) -> Path:
    """Parts one after the other in an AVI, each with its parameter sets at its beginning and nowhere else."""
    with av.open(str(target), "w") as new:
        stream: Any = None
        number = 0
        for part in parts:
            with av.open(str(part)) as old:
                if stream is None:
                    stream = new.add_stream_from_template(old.streams.video[0])
                converted = BitStreamFilterContext("h264_mp4toannexb", old.streams.video[0], stream)
                first = True
                for packet in old.demux(video=0):
                    for one in converted.filter(packet) if packet.dts is not None else []:
                        units = [unit for unit in nal_units(bytes(one)) if first or unit[0] & 31 not in (7, 8)]
                        made: Any = av.Packet(b"".join(b"\0\0\0\1" + unit for unit in units))
                        made.pts = made.dts = number
                        made.time_base = Fraction(1, 25)
                        made.is_keyframe = one.is_keyframe
                        made.stream = stream
                        new.mux(made)
                        number, first = number + 1, False
    return target


@pytest.mark.parametrize(
    "others", [{"coder": "vlc"}, {"x264-params": "chroma-qp-offset=12"}], ids=["noticed", "unnoticed"]
)
def test_where_decoding_cannot_begin_at_a_key_frame_it_begins_earlier(
    tmp_path: Path, decoded: list[object], others: dict[str, str]
) -> None:
    """The second part has other headers, told once: without them, decoding fails, or other pictures come out."""
    random = np.random.default_rng(0)
    tints = random.integers(-60, 60, (60, *SIZE, 3))
    parts = [
        write_video(
            tmp_path / f"{n}.mp4",
            pictures=[
                np.clip(np.int32(paint(number, SIZE)) + tints[number], 0, 255).astype(np.uint8)
                for number in range(30 * n, 30 * n + 30)
            ],
            codec="libx264",
            group=10,
            options={**NO_B, "qp": "24", **options},
        )
        for n, options in enumerate(({}, others))
    ]
    source = EncodedVideo(once_told(parts, tmp_path / "v.avi"))
    index = source.scan(Limits())
    assert index.count == 60
    assert index.keys.tolist() == [0, 10, 20, 30]
    whole = read_frames(source, index, range(60), SMALL, Limits())
    for number in (29, 35, 45, 59):
        decoded.clear()
        np.testing.assert_array_equal(read_frames(source, index, [number], SMALL, Limits())[0], whole[number])
        assert len(decoded) < 100


@pytest.mark.parametrize("name", ["v.mp4", "v.ts", "v.avi", "v.h264"])
def test_the_same_pictures_come_from_an_old_x264_in_444_wherever_the_file_is_entered(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 9, (24, *SIZE, 3))
    slope = np.add.outer(3 * np.arange(SIZE[0]), 2 * np.arange(SIZE[1]))[:, :, None]
    pictures = list((slope + noise).astype(np.uint8))
    options = {"x264-params": "qp=0:8x8dct=1:keyint=6:min-keyint=6:scenecut=0:analyse=all"}
    path = write_video(tmp_path / name, codec="libx264", pixels="yuv444p", pictures=pictures, options=options)
    path.write_bytes(re.sub(rb"x264 - core \d+", b"x264 - core 150", path.read_bytes()))
    source = EncodedVideo(path)
    index = source.scan(Limits())
    assert (index.count, len(index.keys)) == (24, 4)
    whole = read_frames(source, index, range(24), SMALL, Limits())
    for number in (5, 7, 14, 20):
        np.testing.assert_array_equal(read_frames(source, index, [number], SMALL, Limits())[0], whole[number])


def test_reading_a_long_file_tells_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deltafine.video.meter.SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr("deltafine.video.caching.HELD_BYTES", 1000)  # as of a file that is read a second time
    write_video(tmp_path / "data/day.mp4", 90, codec="libx264")
    told: list[tuple[int, int, str]] = []
    data = open_dataset(tmp_path / "data", validation=0)
    data.scan(within=lambda *where: told.append(where))
    assert told == [(0, 1, f"frame {number} of about 90  day.mp4") for number in range(1, 91)]
    told.clear()
    data.use_cache(tmp_path / "cache", within=lambda *where: told.append(where))
    data.clips("train", size=SIZE)
    assert told == [(0, 1, f"frame {number} of about 90  day.mp4") for number in (64, 90)]


def test_a_file_that_is_damaged_after_it_was_read_through_says_how(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mkv", 40, codec="ffv1")
    source = EncodedVideo(path)
    index = source.scan(Limits())
    status, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(UnreadableVideo, match=r"of the 40 frames that it had before \(.*(damaged|decoded)"):
        read_frames(source, index, range(40), SMALL, Limits())


def joined(tmp_path: Path) -> Path:
    parts = [
        write_video(tmp_path / f"{n}.ts", 40, first=40 * n, codec="libx264", options=B_FRAMES).read_bytes()
        for n in range(2)
    ]
    (tmp_path / "joined.ts").write_bytes(b"".join(parts))
    return tmp_path / "joined.ts"


def test_a_gap_between_joined_recordings_costs_a_few_pictures(tmp_path: Path) -> None:
    data = open_dataset(joined(tmp_path))
    ((_, stream),) = data.streams(None, size=SIZE)
    shown = [int(number) for number in numbers_of(np.concatenate([frames for frames, _ in stream]))]
    assert 74 <= len(shown) <= 80
    assert shown == [number for number in range(80) if number in set(shown)]
    assert [problem.kind for problem in data.problems] == ["cut"]


@pytest.mark.parametrize("name", ["v.avi", "v.h264", "joined.ts"])
def test_late_frames_are_read_from_the_key_frame_before_without_ascending_time_stamps(
    tmp_path: Path, decoded: list[object], name: str
) -> None:
    mp4 = write_video(tmp_path / "source.mp4", 80, codec="libx264", options=B_FRAMES)
    if name == "joined.ts":
        path = joined(tmp_path)
    elif name == "v.h264":
        path = write_video(tmp_path / name, 80, codec="libx264", options=B_FRAMES)
    else:
        path = copy(mp4, tmp_path / name)
    source = EncodedVideo(path)
    index = source.scan(Limits(), whole=False)
    assert index.stamps is None
    whole = read_frames(source, index, range(index.count), SMALL, Limits())
    for number in range(3, index.count, 11):
        decoded.clear()
        np.testing.assert_array_equal(read_frames(source, index, [number], SMALL, Limits())[0], whole[number])
        assert len(decoded) <= 16


def test_files_that_are_read_at_the_same_time_are_numbered_each_by_itself(tmp_path: Path) -> None:
    path = copy(write_video(tmp_path / "source.mp4", 40, codec="libx264", options=B_FRAMES), tmp_path / "v.avi")
    with ThreadPoolExecutor(2) as pool:
        indexes = list(pool.map(lambda _: EncodedVideo(path).scan(Limits()), range(100)))
    assert all(index.packets is not None for index in indexes)


def test_clips_that_are_far_apart_are_read_one_by_one(tmp_path: Path, decoded: list[object]) -> None:
    data = open_dataset(write_video(tmp_path / "v.mp4", 600, codec="libx264", group=10, options=NO_B))
    data.scan()
    decoded.clear()
    clips = list(data.clips(None, size=SIZE, frames=4, shuffle=True, clips_per_video=40))
    assert sum(len(batch.frames) for batch in clips) == 40
    assert len(decoded) < 40 * 20


def test_no_clip_goes_across_damage(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mkv", 60, codec="ffv1", group=1)
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.pos is not None]
    content = bytearray(path.read_bytes())
    content[places[30] + 20] ^= 255
    path.write_bytes(content)
    data = open_dataset(path)
    for how in ({}, {"clips_per_video": 40}, {"clips_per_video": 40, "sampling": "random"}):
        clips = [numbers_of(clip) for batch in data.clips(None, size=SIZE, frames=4, **how) for clip in batch.frames]
        assert all(np.diff(clip).tolist() == [1, 1, 1] for clip in clips)
        assert 30 not in {number for clip in clips for number in clip}
    assert set(range(60)) - {30} == {
        number
        for batch in data.clips(None, size=SIZE, frames=4)
        for clip in batch.frames
        for number in numbers_of(clip)
    }
    (problem,) = data.problems
    assert (problem.kind, problem.reason) == ("cut", "is damaged at frame 30, and is used without the damaged pictures")
    data.check(0)


def test_a_limit_in_seconds_does_not_count_what_else_the_machine_does(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.avi", 20)
    index = EncodedVideo(path).scan(Limits(seconds=0.5), lambda frame: time.sleep(0.05))
    assert index.count == 20


def test_names_with_a_colon_are_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "v.mp4", 8, codec="libx264")
    (tmp_path / "v.mp4").rename(tmp_path / "2024-05-01T12:30:00.mp4")
    monkeypatch.chdir(tmp_path)
    for path in ("2024-05-01T12:30:00.mp4", "."):
        data = open_dataset(path)
        assert data.scan() == []
        assert len(data.videos) == 1


ENDINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "v.asf": ("v.asf", {"codec": "wmv2"}),
    "v.vob": ("v.vob", {"codec": "mpeg2video"}),
    "v.h264": ("v.h264", {"codec": "libx264"}),
    "v.264": ("v.h264", {"codec": "libx264"}),
    "v.divx": ("v.avi", {"codec": "mpeg4", "options": {"bf": "2"}}),
    "v.mjpg": ("v.mjpg", {"codec": "mjpeg", "pixels": "yuvj420p"}),
    "v.f4v": ("v.f4v", {"codec": "libx264"}),
    "v.m2v": ("v.m2v", {"codec": "mpeg2video"}),
    "v.y4m": ("v.y4m", {"codec": "rawvideo"}),
    "v.mxf": ("v.mxf", {"codec": "mpeg2video"}),
    "v.dv": ("v.dv", {"codec": "dvvideo", "size": (576, 720)}),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_files_of_cameras_and_editors_are_found_and_read(tmp_path: Path, name: str) -> None:
    written, made = ENDINGS[name]
    (tmp_path / "data").mkdir()
    write_video(tmp_path / written, 12, **made).rename(tmp_path / "data" / name)
    data = open_dataset(tmp_path / "data")
    ((_, stream),) = data.streams(None, size=SIZE)
    assert numbers_of(np.concatenate([frames for frames, _ in stream])) == list(range(12))


IMAGES = {
    "png": ("png", "rgb24"),
    "bmp": ("bmp", "bgr24"),
    "tif": ("tiff", "rgb24"),
    "webp": ("libwebp", "yuv420p"),
    "jp2": ("jpeg2000", "rgb24"),
}


def encoded(picture: np.ndarray, codec: str, pixels: str) -> bytes:
    encoder: Any = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height = picture.shape[1], picture.shape[0]
    encoder.pix_fmt = pixels
    encoder.time_base = Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixels)
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("called", ["", "jpg"])
def test_images_of_every_kind_are_frames_whatever_they_are_called(tmp_path: Path, kind: str, called: str) -> None:
    folder = tmp_path / "data/clip"
    folder.mkdir(parents=True)
    for number in range(9):
        (folder / f"{number}.{called or kind}").write_bytes(encoded(paint(number), *IMAGES[kind]))
    data = open_dataset(tmp_path / "data")
    assert [video.name for video in data.videos] == ["clip"]
    ((_, stream),) = data.streams(None, size=SIZE)
    assert numbers_of(np.concatenate([frames for frames, _ in stream])) == list(range(9))
    cut = folder / f"4.{called or kind}"
    cut.write_bytes(cut.read_bytes()[:-20])
    again = open_dataset(tmp_path / "data")
    again.scan()
    assert [problem.reason for problem in again.problems] == [f"has the unreadable image {cut.name}"]


@pytest.mark.parametrize(
    "address", ["rtsp://camera.local/stream", "https://example.org/a.mp4", "0", "/dev/null", "/dev/video0"]
)
def test_addresses_and_cameras_are_refused_with_what_to_do(address: str) -> None:
    with pytest.raises(DeltafineError, match=r"is (an address|a camera) and no file: record it into a file") as refused:
        open_dataset(address)
    assert str(refused.value).startswith(address)


def test_a_single_video_in_a_folder_is_one_to_split_in_time_as_the_file_itself_is(tmp_path: Path) -> None:
    write_video(tmp_path / "data/v.avi")
    for path in (tmp_path / "data", tmp_path / "data/v.avi"):
        data = open_dataset(path)
        assert [video.split for video in data.videos] == ["validation"]
    assert [video.split for video in open_dataset(tmp_path / "data", validation=0).videos] == ["train"]


def test_what_is_not_used_is_listed_in_the_order_of_the_videos(tmp_path: Path) -> None:
    for number in range(12):
        write_video(tmp_path / f"v{number}.avi", 200 if number % 3 == 0 else 2)
        if number % 2 == 0:
            path = tmp_path / f"v{number}.avi"
            path.write_bytes(b"x" * (400_000 if number % 4 else 10))
    data = open_dataset(tmp_path, validation=0)
    data.clips(None, size=SIZE, workers=4)
    listed = [problem.video for problem in data.problems]
    assert listed == sorted(listed, key=[video.name for video in data.videos].index)
    assert len(listed) > 6
