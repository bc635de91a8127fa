"""Whatever state a file is in: it is used, or listed with its reason, and never stops the others."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from deltafine.errors import DeltafineError
from deltafine.video import Dataset, Limits, open_dataset
from tests.video.painted import SIZE, numbers_of, paint, write_video


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("good") / "good.mp4", 40, codec="libx264")


def beside_a_good_one(tmp_path: Path, good: Path, name: str, content: bytes = b"") -> Path:
    """A path for a bad file, in a folder with a sound one."""
    folder = tmp_path / "data/class"
    folder.mkdir(parents=True)
    shutil.copy(good, folder / "good.mp4")
    (folder / name).write_bytes(content)
    return folder / name


def reasons_of(data: Dataset) -> dict[str, str]:
    """The reasons why videos are bad, an epoch having gone through with the good one only."""
    used = {data.videos[video].name for batch in data.clips(None, size=SIZE) for video in batch.videos}
    assert used == {"class/good.mp4"}
    return {problem.video: problem.reason for problem in data.problems}


def reason(tmp_path: Path, limits: Limits | None = None) -> str:
    ((_, why),) = reasons_of(open_dataset(tmp_path / "data", validation=0, limits=limits)).items()
    return why


def test_an_empty_file(tmp_path: Path, good: Path) -> None:
    beside_a_good_one(tmp_path, good, "bad.mp4")
    assert reason(tmp_path) == "is empty"


def test_a_pointer_of_git_lfs(tmp_path: Path, good: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"
    beside_a_good_one(tmp_path, good, "bad.mp4", pointer)
    assert reason(tmp_path).startswith("is a Git LFS pointer")


@pytest.mark.parametrize("content", [b"\0" * 3000, b"not a video at all " * 200, bytes(range(256)) * 40])
def test_a_file_that_is_no_video(tmp_path: Path, good: Path, content: bytes) -> None:
    beside_a_good_one(tmp_path, good, "bad.mp4", content)
    assert reason(tmp_path).startswith("cannot be decoded (")


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_a_truncated_file_without_its_table(tmp_path: Path, good: Path, share: float) -> None:
    content = write_video(tmp_path / "whole.mp4", 100, codec="libx264", size=(64, 128), group=50).read_bytes()
    beside_a_good_one(tmp_path, good, "bad.mp4", content[: int(share * len(content))])
    assert reason(tmp_path).startswith(("cannot be decoded ", "ends after ", "is damaged"))


@pytest.mark.parametrize("share", [0.6, 0.8])
@pytest.mark.parametrize("options", [{"bf": "0"}, {"bf": "3"}])
@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv"])
def test_a_truncated_file_is_used_up_to_the_cut(
    tmp_path: Path, share: float, options: dict[str, str], name: str
) -> None:
    front = {"movflags": "faststart"} if name.endswith("mp4") else {}
    whole = write_video(tmp_path / name, 100, codec="libx264", options=options, container_options=front, group=50)
    content = whole.read_bytes()
    whole.write_bytes(content[: int(share * len(content))])
    data = open_dataset(whole)
    ((_, stream),) = data.streams(None, size=SIZE)
    shown = numbers_of(np.concatenate([frames for frames, _ in stream]))
    assert shown == list(range(len(shown)))
    assert 0 < len(shown) < 100
    (problem,) = data.problems
    assert problem.kind == "cut"
    assert problem.reason.endswith(", and is used up to there")


def test_an_avi_cut_between_two_frames_is_used_as_far_as_it_goes(tmp_path: Path) -> None:
    """Nothing in what is left of it says that there was more."""
    whole = write_video(tmp_path / "whole.avi", 100, codec="mjpeg", pixels="yuvj420p").read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole[: whole.rindex(b"00dc", 0, len(whole) // 2)])
    ((_, stream),) = open_dataset(cut).streams(None, size=SIZE)
    shown = numbers_of(np.concatenate([frames for frames, _ in stream]))
    assert 40 < len(shown) < 55
    assert shown == list(range(len(shown)))


def test_noise_in_the_middle_of_a_stream(tmp_path: Path, good: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = list(rng.integers(0, 255, (30, 64, 64, 3), np.uint8))
    content = bytearray(write_video(tmp_path / "whole.mp4", pictures=pictures, codec="libx264").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20_000] = rng.bytes(20_000)
    bad = beside_a_good_one(tmp_path, good, "bad.mp4", bytes(content))
    data = open_dataset(bad)
    index = data.index(data.videos[0])
    assert index is not None
    assert 0 < index.count < 30
    (problem,) = data.scan()
    assert problem.kind == "cut"
    assert problem.reason.startswith(("cannot be decoded ", "is damaged at frame "))


def test_sound_without_pictures(tmp_path: Path, good: Path) -> None:
    import av

    bad = beside_a_good_one(tmp_path, good, "bad.mp4")
    with av.open(str(bad), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert reason(tmp_path) == "has no video in it"


def test_a_file_with_no_frame(tmp_path: Path, good: Path) -> None:
    write_video(beside_a_good_one(tmp_path, good, "bad.avi"), pictures=[np.zeros((16, 16, 3), np.uint8)])
    content = (tmp_path / "data/class/bad.avi").read_bytes()
    (tmp_path / "data/class/bad.avi").write_bytes(content.replace(b"00dc", b"99xx"))
    assert reason(tmp_path) in ("holds no frame", "has no video in it")


def test_a_single_frame_is_short_and_still_a_stream(tmp_path: Path) -> None:
    data = open_dataset(write_video(tmp_path / "one.mp4", 1, codec="libx264"))
    with pytest.raises(DeltafineError, match=r"one.mp4 has 1 frame, a clip needs 8"):
        data.clips(None, size=SIZE)
    ((_, stream),) = data.streams(None, size=SIZE)
    assert numbers_of(np.concatenate([frames for frames, _ in stream])) == [0]
    (batch,) = data.clips(None, size=SIZE, frames=1)
    assert len(batch) == 1


def test_8k_and_a_limit_below_it(tmp_path: Path, good: Path) -> None:
    bad = beside_a_good_one(tmp_path, good, "big.mkv")
    write_video(bad, pictures=[paint(3, (4320, 7680))], codec="mjpeg", pixels="yuvj420p")
    (batch,) = open_dataset(bad).clips(None, size=SIZE, frames=1)
    assert numbers_of(batch.frames[0]) == [3]
    assert reason(tmp_path, Limits(pixels=4000 * 4000)) == "has pictures of 7680x4320, more than 16000000 pixels"


def test_too_many_frames_and_too_long_a_time(tmp_path: Path, good: Path) -> None:
    write_video(beside_a_good_one(tmp_path, good, "long.avi"), 60)
    assert reason(tmp_path, Limits(frames=50)) == "has more than 50 frames"
    with pytest.raises(DeltafineError, match="takes longer than 1e-09 seconds"):
        open_dataset(tmp_path / "data", validation=0, limits=Limits(seconds=1e-9)).clips(None, size=SIZE)


def test_slow_use_of_a_stream_is_not_slow_decoding(tmp_path: Path) -> None:
    write_video(tmp_path / "v.avi", 40)
    data = open_dataset(tmp_path / "v.avi", limits=Limits(seconds=0.5))
    ((_, stream),) = data.streams(None, size=SIZE, chunk=1)
    count = 0
    for _ in stream:
        count += 1
        time.sleep(0.02)
    assert count == 40
    assert data.problems == []


def test_names_that_are_long_or_not_ascii(tmp_path: Path, good: Path) -> None:
    for number, name in enumerate(["straße 歩く 🚶 'a\"b%03d.mp4", "x" * 250 + ".mp4", "file:a,b|c.mp4", "-i.mp4"]):
        path = tmp_path / "data/çlaß" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(tmp_path / "plain.mp4", 8, first=10 * number, codec="libx264")
        shutil.move(tmp_path / "plain.mp4", path)
    data = open_dataset(tmp_path / "data", validation=0)
    (batch,) = data.clips(None, size=SIZE)
    assert data.classes == ("çlaß",)
    assert sorted(clip[0] for clip in map(numbers_of, batch.frames)) == [0, 10, 20, 30]


def test_names_that_are_no_text_at_all(tmp_path: Path, good: Path) -> None:
    folder = tmp_path / "data" / os.fsdecode(b"\xfd")
    folder.mkdir(parents=True)
    shutil.copy(good, folder / os.fsdecode(b"\xff\xfe.mp4"))
    data = open_dataset(tmp_path / "data", validation=0)
    assert len(data.fingerprint()) > 16
    assert sum(len(batch) for batch in data.clips(None, size=SIZE)) == 5
    data.use_cache(tmp_path / "cache")
    assert sum(len(batch) for batch in data.clips(None, size=SIZE)) == 5
    (cache,) = (tmp_path / "cache").iterdir()
    assert open_dataset(cache).videos[0].name == data.videos[0].name
    assert open_dataset(cache).classes == data.classes


def test_links_that_lead_in_circles_end(tmp_path: Path, good: Path) -> None:
    beside_a_good_one(tmp_path, good, "bad.mp4").unlink()
    (tmp_path / "data/class/loop").symlink_to(tmp_path / "data")
    (tmp_path / "data/class/self.mp4").symlink_to("self.mp4")
    (tmp_path / "data/class/gone.mp4").symlink_to("nowhere.mp4")
    found = reasons_of(open_dataset(tmp_path / "data", validation=0))
    assert set(found) == {"class/self.mp4", "class/gone.mp4"}
    assert all(why.startswith("cannot be opened (") for why in found.values())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_fifo_is_not_waited_for(tmp_path: Path, good: Path) -> None:
    pipe = beside_a_good_one(tmp_path, good, "pipe.mp4")
    pipe.unlink()
    os.mkfifo(pipe)
    assert reason(tmp_path) == "is not a regular file"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter, unlike pytest's own."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)
        if root:
            os.seteuid(0)


def become_somebody() -> None:
    """Nothing is forbidden to root, so the tests go on as nobody."""
    np.random.default_rng()  # loads modules that nobody may not be allowed to read
    if os.geteuid() == 0:
        os.seteuid(65534)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs permissions")
def test_a_file_that_may_not_be_read(open_folder: Path, good: Path) -> None:
    beside_a_good_one(open_folder, good, "secret.mp4", b"x" * 100).chmod(0)
    become_somebody()
    assert reason(open_folder) == "cannot be decoded (Permission denied)"


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs permissions")
def test_a_folder_that_may_not_be_read_is_named(open_folder: Path, good: Path) -> None:
    folder = beside_a_good_one(open_folder, good, "bad.mp4").parent
    folder.chmod(0)
    become_somebody()
    for path in (open_folder / "data", folder):
        with pytest.raises(DeltafineError, match=f"{folder}.* cannot be read: Permission denied"):
            open_dataset(path)


def test_a_list_of_addresses_is_not_followed(tmp_path: Path, good: Path) -> None:
    """FFmpeg would open what a playlist names, whatever the file is called."""
    playlist = f"#EXTM3U\n#EXTINF:1,\n{good}\n#EXT-X-ENDLIST\n".encode()
    beside_a_good_one(tmp_path, good, "bad.mp4", playlist)
    assert reason(tmp_path).startswith("cannot be decoded (")
    (tmp_path / "data/class/bad.mp4").write_bytes(f"ffconcat version 1.0\nfile '{good}'\n".encode())
    assert reason(tmp_path).startswith("cannot be decoded (")


def test_a_file_that_grows_while_it_is_read(tmp_path: Path, good: Path) -> None:
    bad = beside_a_good_one(tmp_path, good, "growing.avi")
    write_video(bad, 2000, pictures=None)
    stop = threading.Event()

    def grow() -> None:
        while not stop.is_set():
            with bad.open("ab") as file:
                file.write(b"\0" * 64)
            time.sleep(0.001)

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        why = reason(tmp_path)
    finally:
        stop.set()
        thread.join()
    assert why in ("changed while it was read", "changed while it was in use")


@pytest.mark.parametrize(
    ("codec", "pixels"),
    [
        ("ffv1", "bgra"),
        ("ffv1", "yuva420p"),
        ("ffv1", "gray"),
        ("ffv1", "gray16le"),
        ("ffv1", "yuv420p10le"),
        ("ffv1", "yuv444p12le"),
        ("ffv1", "bgr0"),
        ("png", "rgba"),
    ],
)
def test_alpha_grey_and_deep_colours_give_the_same_numbers(tmp_path: Path, codec: str, pixels: str) -> None:
    path = write_video(tmp_path / "v.avi", 8, codec=codec, pixels=pixels)
    for channels in (1, 3):
        (batch,) = open_dataset(path).clips(None, size=SIZE, channels=channels)
        assert numbers_of(batch.frames[0]) == list(range(8))


def test_an_unreadable_image_spoils_its_folder_only(tmp_path: Path, good: Path) -> None:
    beside_a_good_one(tmp_path, good, "bad.mp4").unlink()
    folder = tmp_path / "data/class/frames"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(b"\x89PNG nothing")
    assert reason(tmp_path) == "has the unreadable image 0.png"


def test_more_bad_videos_than_allowed_is_an_error(tmp_path: Path, good: Path) -> None:
    bad = beside_a_good_one(tmp_path, good, "bad0.mp4", b"x")
    for number in (1, 2, 3):
        shutil.copy(bad, bad.with_name(f"bad{number}.mp4"))
    data = open_dataset(tmp_path / "data", validation=0)
    data.check(4)
    with pytest.raises(DeltafineError, match=r"4 of 5 videos .* 3 allowed .*bad0.mp4.* and 1 more"):
        data.check(3)


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("v.mp4", "libx264"),
        ("v.avi", "mpeg4"),
        ("v.webm", "libvpx"),
        ("v.ts", "mpeg2video"),
        ("v.mkv", "mjpeg"),
        ("v.gif", "gif"),
    ],
)
def test_damage_anywhere_gives_frames_or_a_reason(tmp_path: Path, name: str, codec: str) -> None:
    pixels = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
    whole = write_video(tmp_path / name, 20, codec=codec, pixels=pixels).read_bytes()
    generator = np.random.default_rng(7)
    for _ in range(25):
        content = bytearray(whole)
        for place in generator.integers(len(content), size=generator.integers(1, 30)):
            content[place] = generator.integers(256)
        (tmp_path / name).write_bytes(bytes(content[: generator.integers(len(content) // 2, len(content) + 1)]))
        data = open_dataset(tmp_path / name, limits=Limits(frames=2000, seconds=20))
        index = data.index(data.videos[0])
        if index is None:
            assert data.problems[0].reason
        else:
            ((_, stream),) = data.streams(None, size=SIZE)
            frames = sum(len(frames) for frames, _ in stream)
            assert frames == index.count or data.problems
