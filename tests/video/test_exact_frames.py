"""Frame k is frame k: read back from numbers painted into the pixels, for every codec and container."""

from __future__ import annotations

import gc
import shutil
import struct
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltafine.video import Limits, open_dataset
from deltafine.video.conversion import Converter
from deltafine.video.encoded import EncodedVideo
from deltafine.video.frames import read_frames
from tests.video.painted import SIZE, number_of, numbers_of, paint, write_video
from tests.video.test_recordings import IMAGES, encoded

FRAMES = 40
B_FRAMES = {"bf": "3", "sc_threshold": "0"}
NO_B = {"bf": "0", "sc_threshold": "0"}
MADE: dict[str, dict[str, Any]] = {
    "h264.mp4": {"codec": "libx264"},
    "h264_b.mp4": {"codec": "libx264", "options": B_FRAMES},
    "h264_b.mkv": {"codec": "libx264", "options": B_FRAMES},
    "h264_b.mov": {"codec": "libx264", "options": B_FRAMES},
    "h264_b.avi": {"codec": "libx264", "options": B_FRAMES},
    "h264_b.ts": {"codec": "libx264", "options": B_FRAMES},
    "h264_b.flv": {"codec": "libx264", "options": B_FRAMES},
    "h264_open_groups.mp4": {"codec": "libx264", "options": {**B_FRAMES, "x264-params": "open-gop=1"}},
    "h264_refresh.mp4": {"codec": "libx264", "options": {"x264-params": "intra-refresh=1:keyint=10"}},
    "h264_one_group.mp4": {"codec": "libx264", "group": 1000},
    "h264_fragments.mp4": {"codec": "libx264", "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "h264_10bit.mp4": {"codec": "libx264", "pixels": "yuv420p10le"},
    "h264_interlaced.mkv": {"codec": "libx264", "options": {"x264-params": "interlaced=1"}},
    "unknown_length.mkv": {"codec": "libx264", "options": B_FRAMES, "container_options": {"live": "1"}},
    "hevc_b.mp4": {"codec": "libx265", "options": {"bf": "3", "x265-params": "log-level=none"}},
    "hevc_open_groups.mkv": {"codec": "libx265", "options": {"x265-params": "open-gop=1:keyint=10:log-level=none"}},
    "vp8.webm": {"codec": "libvpx"},
    "vp8_hidden.webm": {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "16"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"cpu-used": "8"}},
    "av1.mp4": {"codec": "libsvtav1", "options": {"preset": "12", "svtav1-params": "enable-stat-report=0"}},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg4_b.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "mpeg4_b.mp4": {"codec": "mpeg4", "options": {"bf": "2"}},
    "mpeg2_b.mpg": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "mpeg2_b.ts": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "mpeg1.mpg": {"codec": "mpeg1video", "options": {"bf": "2"}},
    "mjpeg.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "ffv1.mkv": {"codec": "ffv1"},
    "prores.mov": {"codec": "prores", "pixels": "yuv422p10le"},
    "png.mov": {"codec": "png", "pixels": "rgba"},
    "animation.mov": {"codec": "qtrle", "pixels": "argb"},
    "grey.mkv": {"codec": "ffv1", "pixels": "gray"},
    "raw.avi": {"codec": "rawvideo", "pixels": "bgr24"},
    "flash.flv": {"codec": "flv"},
    "windows.wmv": {"codec": "wmv2"},
    "picture.gif": {"codec": "gif", "pixels": "rgb8"},
    "odd_size.mp4": {"codec": "libx264", "pixels": "yuv444p", "size": (33, 65)},
    "with_sound.avi": {"codec": "mpeg4", "audio": True},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("codecs")


def made(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.exists():
        write_video(path, FRAMES, **{"group": 10, **MADE[name]})
    return path


@pytest.mark.parametrize("name", MADE)
def test_every_window_of_every_codec_holds_its_frames(folder: Path, name: str) -> None:
    source = EncodedVideo(made(folder, name))
    index = source.scan(Limits())
    assert index.count == FRAMES
    convert = Converter((16, 32), 3)
    whole = read_frames(source, index, range(FRAMES), convert, Limits())
    assert numbers_of(whole) == list(range(FRAMES))
    for start in range(0, FRAMES - 4, 3):
        wanted = [start, start + 1, start + 4]
        np.testing.assert_array_equal(read_frames(source, index, wanted, convert, Limits()), whole[wanted])


@pytest.mark.parametrize("name", ["h264_b.mp4", "hevc_b.mp4", "mpeg4.avi", "vp9.webm", "mpeg2_b.ts"])
def test_reading_late_frames_does_not_decode_from_the_beginning(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = EncodedVideo(made(folder, name))
    index = source.scan(Limits())
    decoded = []
    monkeypatch.setattr("deltafine.video.decoding.check_pixels", lambda *args: decoded.append(args))
    read_frames(source, index, [35], Converter(SIZE, 3), Limits())
    assert len(decoded) < 20


@settings(max_examples=40, deadline=None)
@given(wanted=st.sets(st.integers(0, FRAMES - 1), min_size=1), name=st.sampled_from(["h264_b.mp4", "mpeg4.avi"]))
def test_any_choice_of_frames_is_read_exactly(
    tmp_path_factory: pytest.TempPathFactory, wanted: set[int], name: str
) -> None:
    folder = tmp_path_factory.getbasetemp()
    source = EncodedVideo(made(folder, name))
    index = source.scan(Limits())
    frames = read_frames(source, index, sorted(wanted), Converter((16, 32), 1), Limits())
    assert numbers_of(frames) == sorted(wanted)


def test_a_variable_frame_rate_keeps_numbers_and_times(tmp_path: Path) -> None:
    times = [0, 1, 2, 10, 11, 30, 31, 32, 50, 51]
    path = write_video(tmp_path / "a/v.mkv", 10, codec="libx264", options=B_FRAMES, rate=50, times=times)
    data = open_dataset(path)
    index = data.index(data.videos[0])
    assert index is not None
    np.testing.assert_allclose(index.times, np.array(times) / 50, atol=0.001)
    (batch,) = data.clips(None, size=SIZE, frames=5)
    assert [numbers_of(clip) for clip in batch.frames] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


def test_a_frame_rate_takes_the_frame_nearest_in_time(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mkv", 30, rate=30, codec="ffv1")
    data = open_dataset(path)
    ((_, stream),) = data.streams(None, size=SIZE, fps=10)
    assert numbers_of(next(stream)[0]) == list(range(0, 30, 3))
    ((_, stream),) = data.streams(None, size=SIZE, fps=60)
    shown = numbers_of(np.concatenate([frames for frames, _ in stream]))
    assert len(shown) == 60
    assert sorted(set(shown)) == list(range(30))
    batch = next(iter(data.clips(None, size=SIZE, frames=4, fps=10, clip_stride=2)))
    assert [numbers_of(clip) for clip in batch.frames] == [[3 * k for k in range(s, s + 4)] for s in (0, 2, 4, 6)]
    assert batch.starts.tolist() == [0, 6, 12, 18]


def test_frames_cut_off_by_an_edit_list_do_not_count(tmp_path: Path) -> None:
    """A cut without re-encoding: the file starts at a key frame, the edit list says to show it from frame 14."""
    source = write_video(tmp_path / "whole.mp4", FRAMES, codec="libx264", group=10, options=NO_B)
    cut = tmp_path / "cut.mp4"
    with av.open(str(source)) as old, av.open(str(cut), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        first: int | None = None
        for packet in old.demux(video=0):
            if packet.pts is None or packet.dts is None:
                continue
            number = round(float(packet.pts * packet.time_base) * 25)
            if number >= 10:
                first = packet.duration * 14 if first is None else first
                packet.pts, packet.dts = packet.pts - first, packet.dts - first
                packet.stream = stream
                new.mux(packet)
    read = EncodedVideo(cut)
    index = read.scan(Limits())
    frames = read_frames(read, index, range(index.count), Converter(SIZE, 3), Limits())
    assert numbers_of(frames) == list(range(14, FRAMES))
    assert numbers_of(read_frames(read, index, [9, 20], Converter(SIZE, 3), Limits())) == [23, 34]


@pytest.mark.parametrize(
    ("edits", "shown"),
    [
        ([(46, 14)], [range(14, 60)]),
        ([(20, 14)], [range(14, 34)]),
        ([(10, None), (60, 0)], [range(60)]),
        ([(10, 5), (10, 30)], [range(5, 15), range(30, 40)]),
        ([(10, 30), (10, 5)], [range(30, 40), range(5, 15)]),
        ([(20, 0), (20, 0)], [range(20), range(20)]),
    ],
)
def test_edit_lists_are_followed(tmp_path: Path, edits: list[tuple[int, int | None]], shown: list[range]) -> None:
    """Begin and end between key frames, wait, leave out, go back, repeat; with frames stored out of order."""
    plain = write_video(tmp_path / "plain.mp4", 60, codec="libx264", group=12, options=B_FRAMES)
    edited = tmp_path / "edited.mp4"
    edited.write_bytes(_edit(plain.read_bytes(), edits))
    source = EncodedVideo(edited)
    index = source.scan(Limits())
    whole = read_frames(source, index, range(index.count), Converter(SIZE, 3), Limits())
    assert numbers_of(whole) == [number for part in shown for number in part]
    for number in range(0, index.count, 7):
        frame = read_frames(source, index, [number], Converter(SIZE, 3), Limits())
        np.testing.assert_array_equal(frame, whole[number : number + 1])


def _edit(content: bytes, edits: list[tuple[int, int | None]]) -> bytes:
    """Replace the edit list of an mp4 by one of (frames to show, first of them); None shows nothing meanwhile."""
    place = content.index(b"edts") - 4
    size = int.from_bytes(content[place : place + 4])
    offset = int.from_bytes(content[place + 28 : place + 32])  # of the first frame, B-frames being there
    ticks = int.from_bytes(content[content.index(b"mdhd") + 16 :][:4]) // 25
    rows = [
        struct.pack(">IiI", 40 * frames, -1 if first is None else offset + first * ticks, 1 << 16)
        for frames, first in edits
    ]
    body = struct.pack(">II", 0, len(rows)) + b"".join(rows)
    boxes = struct.pack(">I4sI4s", 16 + len(body), b"edts", 8 + len(body), b"elst") + body
    whole = bytearray(content)
    whole[place : place + size] = boxes
    for name in (b"moov", b"trak"):  # what the list is in has another size now
        box = content.index(name) - 4
        whole[box : box + 4] = (int.from_bytes(content[box : box + 4]) + len(boxes) - size).to_bytes(4)
    return bytes(whole)


UPRIGHT = np.zeros((64, 32, 3), np.uint8)
UPRIGHT[:16, :16] = 255  # bright at the top left, and grey below it
UPRIGHT[16:32, :16] = 128
STORED = {  # how each of Exif's eight orientations stores it
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.transpose(1, 0, 2),
    6: np.rot90(UPRIGHT, 1),
    7: np.rot90(UPRIGHT, 1)[:, ::-1],
    8: np.rot90(UPRIGHT, -1),
}
MATRICES = {  # x' = a x + c y and y' = b x + d y of the stored pixel, as (a, b, c, d)
    1: (1, 0, 0, 1),
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}


@pytest.mark.parametrize("number", STORED)
def test_turned_and_mirrored_videos_are_shown_upright(tmp_path: Path, number: int) -> None:
    plain = write_video(tmp_path / "plain.mp4", pictures=[STORED[number]] * 3, codec="libx264", pixels="yuv444p")
    tagged = tmp_path / "tagged.mp4"
    _orient(plain, tagged, MATRICES[number])
    source = EncodedVideo(tagged)
    index = source.scan(Limits())
    assert (index.width, index.height) == (32, 64)
    for size in ((64, 32), (32, 16)):
        (frame,) = read_frames(source, index, [1], Converter(size, 3), Limits())
        expected = UPRIGHT[:: 64 // size[0], :: 32 // size[1]]
        assert np.abs(frame.astype(int) - expected).mean() < 6


@pytest.mark.parametrize("number", STORED)
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_turned_and_mirrored_images_are_shown_upright(tmp_path: Path, number: int, suffix: str) -> None:
    for place in range(2):
        path = tmp_path / f"clip/{place}.{suffix}"
        picture = np.ascontiguousarray(STORED[number])
        if suffix in IMAGES and suffix != "png":
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(encoded(picture, *IMAGES[suffix]))
        else:
            write_image(path, picture)
        path.write_bytes(_with_exif(path.read_bytes(), number, picture.shape))
    ((_, stream),) = open_dataset(tmp_path / "clip").streams(None, size=(64, 32))
    frames, _ = next(stream)
    assert np.abs(frames.astype(int) - UPRIGHT).mean() < 6


def _orient(path: Path, target: Path, matrix: tuple[int, int, int, int]) -> None:
    """Write a display matrix into the track header of an mp4."""
    whole = bytearray(path.read_bytes())
    a, b, c, d = (value << 16 for value in matrix)
    numbers = [a, b, 0, c, d, 0, 0, 0, 1 << 30]
    header = whole.index(b"tkhd") + 4
    place = header + (52 if whole[header] else 40)
    whole[place : place + 36] = b"".join(number.to_bytes(4, "big", signed=True) for number in numbers)
    target.write_bytes(whole)


def _with_exif(content: bytes, orientation: int, shape: tuple[int, ...]) -> bytes:
    """An image with its orientation as Exif has it: in TIFF among the tags of the image itself."""
    if content.startswith(b"II*\0"):
        (first,) = struct.unpack_from("<I", content, 4)
        (count,) = struct.unpack_from("<H", content, first)
        tags = [content[first + 2 + 12 * place :][:12] for place in range(count)]
        tags.append(struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0))
        tags.sort(key=lambda tag: struct.unpack_from("<H", tag))
        table = struct.pack("<H", len(tags)) + b"".join(tags) + bytes(4)
        return content[:4] + struct.pack("<I", len(content)) + content[8:] + table
    exif = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    if content.startswith(b"\x89PNG"):
        chunk = b"eXIf" + exif
        boxed = struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk))
        place = content.index(b"IDAT") - 4
        return content[:place] + boxed + content[place:]
    if content.startswith(b"RIFF"):
        sides = (shape[1] - 1).to_bytes(3, "little") + (shape[0] - 1).to_bytes(3, "little")
        extended = struct.pack("<4sI4s", b"VP8X", 10, b"\x08\0\0\0") + sides
        body = b"WEBP" + extended + content[12:] + struct.pack("<4sI", b"EXIF", len(exif)) + exif
        return b"RIFF" + struct.pack("<I", len(body)) + body
    body = b"Exif\0\0" + exif
    return content[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(body)) + body + content[2:]


def test_black_and_white_come_out_as_0_and_255(tmp_path: Path) -> None:
    pictures = [np.full((16, 16, 3), value, np.uint8) for value in (0, 255)]
    data = open_dataset(write_video(tmp_path / "v.avi", pictures=pictures, codec="libx264"))
    for channels in (1, 3):
        (batch,) = data.clips(None, size=(8, 8), frames=2, channels=channels)
        assert batch.frames[0, 0].max() <= 2  # stored as 16, and 255 as 235
        assert batch.frames[0, 1].min() >= 253


def test_shrinking_averages_and_takes_no_single_pixels(tmp_path: Path) -> None:
    checkers = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    picture = np.repeat(checkers[:, :, None], 3, axis=2)
    path = write_video(tmp_path / "v.mkv", pictures=[picture] * 2, codec="ffv1", pixels="bgr0")
    (batch,) = open_dataset(path).clips(None, size=(16, 16), frames=2)
    assert np.abs(batch.frames.astype(int) - 127).max() < 12


def test_a_folder_of_images_is_a_video_in_natural_order(tmp_path: Path) -> None:
    folder = tmp_path / "data/clip"
    for number in range(12):
        write_image(folder / f"frame{number}.{'png' if number % 2 else 'jpg'}", paint(number))
    (tmp_path / "data/clip/notes.txt").write_text("not a frame")
    shutil.copytree(folder, tmp_path / "data/other")
    data = open_dataset(tmp_path / "data", validation=0)
    assert [video.name for video in data.videos] == ["clip", "other"]
    for batch in data.clips(None, size=SIZE, frames=4):
        for clip, start in zip(batch.frames, batch.starts, strict=True):
            assert numbers_of(clip) == list(range(start, start + 4))
    alone = open_dataset(folder)
    assert alone.summary() == "folder of frame images: 1 video, no labels, 0 train / 1 validation"


def write_image(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    png = path.suffix == ".png"
    encoder: Any = av.CodecContext.create("png" if png else "mjpeg", "w")
    encoder.width, encoder.height = picture.shape[1], picture.shape[0]
    encoder.pix_fmt = "rgb24" if png else "yuvj420p"
    encoder.time_base = Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=encoder.pix_fmt)
    path.write_bytes(b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)]))


def test_the_painted_numbers_can_be_read_back() -> None:
    assert all(number_of(paint(number)) == number for number in range(256))


def test_a_frame_is_let_go_when_it_is_converted(tmp_path: Path) -> None:
    """Of a large video, hundreds of frames that wait for Python's collector are gigabytes."""
    film = write_video(tmp_path / "film.mp4", FRAMES, codec="libx264")

    def decoded() -> int:
        # By type: `isinstance` asks a weak proxy, of which there may be one that points nowhere.
        frames = [one for one in gc.get_objects() if type(one) is av.VideoFrame]
        return sum(frame.height == SIZE[0] for frame in frames)

    convert = Converter((8, 8), 3)
    gc.collect()
    gc.disable()
    try:
        before = decoded()
        with av.open(str(film)) as container:
            for frame in container.decode(video=0):
                convert(frame)
        del frame
        assert decoded() == before
    finally:
        gc.enable()
