"""Files that are kept open between two clips: the same frames in any order, few files, and never an old one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltafine.video import Limits, open_dataset, open_files
from deltafine.video.conversion import Converter
from deltafine.video.encoded import EncodedVideo
from deltafine.video.frames import FrameIndex, UnreadableVideo, read_frames
from deltafine.video.open_files import OPEN_FILES, OpenFiles
from tests.video.painted import SIZE, numbers_of, write_video
from tests.video.test_exact_frames import MADE, made
from tests.video.test_recordings import B_FRAMES, NO_B, copy, joined, once_told

CLIP = 4
KINDS = [
    "h264_b.mp4",
    "h264_b.mkv",
    "h264_open_groups.mp4",
    "h264_refresh.mp4",
    "h264_fragments.mp4",
    "h264_interlaced.mkv",
    "unknown_length.mkv",
    "hevc_b.mp4",
    "hevc_open_groups.mkv",
    "vp8_hidden.webm",
    "vp9.webm",
    "av1.mp4",
    "mpeg4_b.avi",
    "mpeg4_b.mp4",
    "mpeg2_b.ts",
    "mjpeg.avi",
    "ffv1.mkv",
    "animation.mov",
    "windows.wmv",
    "with_sound.avi",
]


@pytest.fixture(autouse=True)
def _none_open() -> Any:
    OPEN_FILES.close()
    yield
    OPEN_FILES.close()


def clip(path: Path, index: FrameIndex, start: int) -> np.ndarray:
    small = Converter((16, 32), 3)  # one for each thread
    return read_frames(EncodedVideo(path), index, range(start, start + CLIP), small, Limits())


def once_told_of_several_encoders(folder: Path) -> Path:
    """Key frames without parameter sets: what the sets before say of colours differs, which no decoder can notice."""
    pictures = list(np.random.default_rng(0).integers(0, 256, (30, *SIZE, 3), np.uint8))
    parts = []
    for offset in (0, 12):
        options = {**NO_B, "x264-params": f"chroma-qp-offset={offset}"}
        path = folder / f"part{offset}.mp4"
        parts.append(write_video(path, pictures=pictures, codec="libx264", group=10, options=options))
    return once_told(parts, folder / "once_told.avi")


def old_x264(folder: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 9, (24, *SIZE, 3))
    pictures = list((np.add.outer(3 * np.arange(SIZE[0]), 2 * np.arange(SIZE[1]))[:, :, None] + noise).astype(np.uint8))
    options = {"x264-params": "qp=0:8x8dct=1:keyint=6:min-keyint=6:scenecut=0:analyse=all"}
    path = write_video(folder / "old.mp4", codec="libx264", pixels="yuv444p", pictures=pictures, options=options)
    path.write_bytes(re.sub(rb"x264 - core \d+", b"x264 - core 150", path.read_bytes()))
    return path


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, FrameIndex, list[np.ndarray]]]:
    """Files, what is known of them, and their clips as newly opened files give them."""
    folder = tmp_path_factory.mktemp("recordings")
    paths = [made(folder, name) for name in KINDS]
    paths += [
        copy(folder / "h264_b.mp4", folder / "copied.avi"),
        joined(folder),
        old_x264(folder),
        once_told_of_several_encoders(folder),
    ]
    found = []
    for path in paths:
        index = EncodedVideo(path).scan(Limits(), whole=False)
        clips = []
        for start in range(index.count - CLIP + 1):
            OPEN_FILES.close()
            clips.append(clip(path, index, start))
        found.append((path, index, clips))
    return found


@settings(max_examples=60, deadline=None)
@given(order=st.data())
def test_clips_in_any_order_are_those_of_newly_opened_files(
    recordings: list[tuple[Path, FrameIndex, list[np.ndarray]]], order: st.DataObject
) -> None:
    chosen = order.draw(st.lists(st.sampled_from(range(len(recordings))), min_size=1, max_size=3))
    for _ in range(order.draw(st.integers(1, 12))):
        path, index, clips = recordings[order.draw(st.sampled_from(chosen))]
        start = order.draw(st.integers(0, len(clips) - 1))
        np.testing.assert_array_equal(clip(path, index, start), clips[start])


@pytest.mark.parametrize("seed", range(3))
def test_clips_in_a_random_order_are_those_of_newly_opened_files_in_threads(
    recordings: list[tuple[Path, FrameIndex, list[np.ndarray]]], seed: int
) -> None:
    places = [(number, start) for number, (_, _, clips) in enumerate(recordings) for start in range(len(clips))]
    np.random.default_rng(seed).shuffle(places)

    def same(place: tuple[int, int]) -> bool:
        path, index, clips = recordings[place[0]]
        return bool((clip(path, index, place[1]) == clips[place[1]]).all())

    with ThreadPoolExecutor(4) as pool:
        wrong = [place for place, right in zip(places, pool.map(same, places), strict=True) if not right]
    assert not wrong
    assert len(OPEN_FILES) > 5


@pytest.fixture
def openings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Grows by the path of every file that is opened to be entered."""
    opened: list[Path] = []
    real = open_files.open_stream
    monkeypatch.setattr(open_files, "open_stream", lambda path, limits: opened.append(path) or real(path, limits))
    return opened


@pytest.mark.parametrize(
    "name", ["h264_b.mp4", "h264_b.mkv", "hevc_b.mp4", "mpeg4.avi", "mjpeg.avi", "vp9.webm", "av1.mp4", "copied.avi"]
)
def test_a_file_is_opened_once_for_many_clips(tmp_path: Path, openings: list[Path], name: str) -> None:
    if name == "copied.avi":
        (tmp_path / "data").mkdir()
        path = copy(made(tmp_path, "h264_b.mp4"), tmp_path / "data/copied.avi")
    else:
        grows = [
            np.random.default_rng(number).integers(0, 2 + 5 * number, (*SIZE, 3), np.uint8) for number in range(40)
        ]
        path = write_video(tmp_path / "data" / name, pictures=grows, **{"group": 10, **MADE[name]})
    data = open_dataset(path.parent)
    clips = data.clips(None, size=SIZE, frames=CLIP, shuffle=True, clips_per_video=20, workers=1)
    assert sum(len(batch) for batch in clips) == 20
    assert openings == [path]


def open_in_this_process(folder: Path) -> int:
    if not Path("/proc/self/fd").exists():
        pytest.skip("reads from /proc which files are open")
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return sum(os.path.realpath(link).startswith(str(folder)) for link in links)


def test_no_more_files_stay_open_than_the_limit_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = OpenFiles(most_files=3)
    monkeypatch.setattr("deltafine.video.encoded.OPEN_FILES", files)
    paths = [write_video(tmp_path / f"{n}.mp4", 30, codec="libx264", group=10, options=NO_B) for n in range(7)]
    indexes = [EncodedVideo(path).scan(Limits()) for path in paths]
    for number in [0, 1, 2, 3, 4, 5, 6, 6, 0, 3]:
        clip(paths[number], indexes[number], 15)
        assert len(files) <= 3
        assert open_in_this_process(tmp_path) == len(files)
    assert len(files) == 3
    files.close()
    assert open_in_this_process(tmp_path) == 0


def test_no_more_memory_is_held_than_the_limit_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [write_video(tmp_path / f"{n}.mp4", 30, codec="libx264", group=10, options=NO_B) for n in range(3)]
    of_one = 30 * open_files.BYTES_OF_FRAME + SIZE[0] * SIZE[1] * open_files.BYTES_OF_PIXEL
    for most, held in ((of_one - 1, 0), (2 * of_one, 2)):
        files = OpenFiles(most_bytes=most)
        monkeypatch.setattr("deltafine.video.encoded.OPEN_FILES", files)
        for path in paths:
            clip(path, EncodedVideo(path).scan(Limits()), 15)
        assert len(files) == held
        files.close()


def test_a_file_that_another_one_has_replaced_is_noticed(tmp_path: Path, openings: list[Path]) -> None:
    """Even one of the same size and age, as the same program writes it in the same moment."""
    path, other = (
        write_video(tmp_path / name, 30, first=first, codec="mpeg4", group=10)
        for name, first in (("v.avi", 0), ("other.avi", 100))
    )
    content = [file.read_bytes() for file in (path, other)]
    size = max(map(len, content))
    for file, whole in zip((path, other), content, strict=True):
        file.write_bytes(whole + b"JUNK" + (size - len(whole)).to_bytes(4, "little") + bytes(size - len(whole)))
        os.utime(file, ns=(10**18, 10**18))
    index = EncodedVideo(path).scan(Limits())
    assert numbers_of(clip(path, index, 15)) == [15, 16, 17, 18]
    other.replace(path)
    assert numbers_of(clip(path, index, 15)) == [115, 116, 117, 118]
    assert openings == [path, path]
    assert open_in_this_process(tmp_path) == 1  # and the old one is not open any more


def test_a_file_that_has_changed_is_noticed(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 30, codec="libx264", group=10, options=NO_B)
    index = EncodedVideo(path).scan(Limits())
    clip(path, index, 15)
    assert len(OPEN_FILES) == 1
    os.utime(path, ns=(10**18, 10**18))
    with pytest.raises(UnreadableVideo, match="changed while it was in use"):
        clip(path, index, 15)


def test_after_an_error_a_file_is_opened_anew(tmp_path: Path, openings: list[Path]) -> None:
    noise = list(np.random.default_rng(0).integers(0, 256, (60, *SIZE, 3), np.uint8))
    path = write_video(tmp_path / "v.mp4", pictures=noise, codec="libx264", group=10, options=B_FRAMES)
    index = EncodedVideo(path).scan(Limits())
    before = clip(path, index, 15)
    stamp, content = path.stat().st_mtime_ns, path.read_bytes()
    start = content.index(b"mdat") + 4
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(len(content) - start))
    os.utime(path, ns=(stamp, stamp))
    with pytest.raises(UnreadableVideo, match="of the 60 frames that it had before"):
        clip(path, index, 35)
    assert len(OPEN_FILES) == 0
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(stamp, stamp))
    openings.clear()
    np.testing.assert_array_equal(clip(path, index, 15), before)
    assert openings == [path]


FORKED = """
import os, sys
from pathlib import Path
import numpy as np
from deltafine.video import Limits
from deltafine.video.conversion import Converter
from deltafine.video.conversion import Converter
from deltafine.video.encoded import EncodedVideo
from deltafine.video.frames import read_frames
from deltafine.video.open_files import OPEN_FILES
source, small = EncodedVideo(Path(sys.argv[1])), Converter((16, 32), 3)
index = source.scan(Limits())
whole = read_frames(source, index, range(120), small, Limits())
def right(seed):
    starts = np.random.default_rng(seed).integers(10, 116, 200).tolist()
    return all((read_frames(source, index, range(s, s + 4), small, Limits()) == whole[s : s + 4]).all() for s in starts)
assert right(0) and len(OPEN_FILES) == 1
child = os.fork()
if not child:
    os._exit(3 if len(OPEN_FILES) else 0 if right(1) else 4)
assert right(2)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="has no fork")
def test_a_forked_process_opens_files_of_its_own(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 120, codec="libx264", group=10, options=B_FRAMES)
    subprocess.run([sys.executable, "-c", FORKED, str(path)], check=True, timeout=120)
