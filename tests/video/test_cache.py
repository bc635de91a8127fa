"""The cache gives what decoding gives, survives what can happen to it, and says what it takes."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from deltafine.errors import DeltafineWarning
from deltafine.video import Dataset, open_dataset
from deltafine.video import encoded as encoded_module
from tests.video.painted import number_of, numbers_of, write_classes, write_video

SIZE = (16, 32)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = write_classes(tmp_path / "data", {"a": 3, "b": 3}, frames=20)
    (root / "a/broken.avi").write_bytes(b"RIFF" + bytes(3000))
    return root


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was decoded after this point; nothing may be, when the cache serves."""
    opened: list[str] = []
    plain = encoded_module.open_video

    def spy(path: Path, limits: object) -> object:
        opened.append(path.name)
        return plain(path, limits)  # type: ignore[arg-type]

    monkeypatch.setattr(encoded_module, "open_video", spy)
    return opened


def frames_of(data: Dataset, **settings: object) -> np.ndarray:
    source = data.clips(None, **{"size": SIZE, "frames": 5, "shuffle": True, **settings})  # type: ignore[arg-type]
    return np.concatenate([batch.frames for batch in source])


def open_cached(root: Path, cache: Path, said: list[str] | None = None, most_bytes: int | None = None) -> Dataset:
    data = open_dataset(root, validation=0)
    messages = [] if said is None else said
    data.use_cache(cache, announce=messages.append, most_bytes=most_bytes)
    return data


@pytest.mark.parametrize("frame_stride", [1, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_cache_gives_the_same_clips_in_the_same_order(
    root: Path, cache: Path, channels: int, frame_stride: int
) -> None:
    plain = frames_of(open_dataset(root, validation=0), channels=channels, frame_stride=frame_stride)
    for _ in range(2):
        kept = frames_of(open_cached(root, cache), channels=channels, frame_stride=frame_stride)
        np.testing.assert_array_equal(kept, plain)


def test_a_second_run_decodes_nothing_and_still_knows_what_is_bad(
    root: Path, cache: Path, no_decoding: list[str]
) -> None:
    first = open_cached(root, cache)
    frames_of(first)
    assert sorted(set(no_decoding)) == ["broken.avi", "v0.avi", "v1.avi", "v2.avi"]
    no_decoding.clear()
    second = open_cached(root, cache)
    frames_of(second)
    for _, stream in second.streams(None, size=SIZE):
        assert sum(len(frames) for frames, _ in stream) == 20
    assert no_decoding == []
    assert second.problems == first.problems
    assert [p.video for p in second.problems] == ["a/broken.avi"]


@pytest.fixture(params=["held", "written"])
def length(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether videos are few frames that are held, or too many, and lie in the cache in pieces."""
    if request.param == "written":
        monkeypatch.setattr("deltafine.video.caching.HELD_BYTES", 5 * SIZE[0] * SIZE[1] * 3)
        monkeypatch.setattr("deltafine.video.kept_frames.CHUNK_BYTES", 3 * SIZE[0] * SIZE[1] * 3)
    return str(request.param)


def test_building_decodes_every_video_once(root: Path, cache: Path, no_decoding: list[str], length: str) -> None:
    frames_of(open_cached(root, cache))
    assert len(no_decoding) == 2 * 7  # the estimate of the size looks at the header


def test_a_file_in_pieces_gives_any_frames(root: Path, cache: Path, length: str) -> None:
    (root / "a/broken.avi").unlink()
    for _ in range(2):
        data = open_cached(root, cache)
        for video in data.videos:
            wanted = np.array([0, 0, 2, 3, 4, 5, 6, 11, 19, 19])
            reader = data._reader(None, SIZE, 3, 2)
            out = np.empty((len(wanted), *SIZE, 3), np.uint8)
            reader.read(video, wanted, out)
            assert [number - number_of(out[0]) for number in numbers_of(out)] == wanted.tolist()


def test_a_file_that_is_cut_off_is_written_up_to_where_it_is_sound(
    tmp_path: Path, cache: Path, length: str, no_decoding: list[str]
) -> None:
    options = {"bf": "2", "g": "30"}
    write_video(tmp_path / "long.ts", 60, codec="libx264", options=options)
    shutil.copy(tmp_path / "long.ts", tmp_path / "cut.ts")
    whole = (tmp_path / "cut.ts").read_bytes()
    (tmp_path / "cut.ts").write_bytes(whole[: len(whole) * 2 // 3])
    plain = open_dataset(tmp_path / "cut.ts", validation=0)
    data = open_cached(tmp_path / "cut.ts", cache)
    no_decoding.clear()
    np.testing.assert_array_equal(frames_of(data), frames_of(plain))


def test_the_size_is_announced_before(root: Path, cache: Path) -> None:
    said: list[str] = []
    frames_of(open_cached(root, cache, said))
    (message,) = said
    assert message.startswith("Keeping the decoded frames of 7 videos, about 184.3 kB, in ")
    said.clear()
    frames_of(open_cached(root, cache, said))
    assert said == []


def test_a_cache_that_would_be_too_large_is_not_made(root: Path, cache: Path) -> None:
    said: list[str] = []
    kept = frames_of(open_cached(root, cache, said, most_bytes=100_000))
    np.testing.assert_array_equal(kept, frames_of(open_dataset(root, validation=0)))
    assert said[0].startswith("Frames are decoded again in every epoch: keeping them would take 184.3 kB")
    assert list(cache.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_said_and_not_fatal(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    said: list[str] = []
    assert len(frames_of(open_cached(root, tmp_path / "file", said)))
    assert said[0].startswith("Frames are decoded again in every epoch: The folder ")
    assert "cannot be made" in said[0]


def test_settings_and_contents_make_their_own_files(root: Path, cache: Path) -> None:
    for settings in ({}, {"size": (8, 8)}, {"channels": 1}):
        frames_of(open_cached(root, cache), **settings)
    assert len(list(cache.iterdir())) == 3
    write_video(root / "a/v0.avi", 20, first=90)
    frames = frames_of(open_cached(root, cache))
    assert len(list(cache.iterdir())) == 4
    assert any(max(numbers_of(clip)) >= 90 for clip in frames)


def test_frames_of_another_conversion_are_kept_apart_and_announced(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache of the old colours is not read, and that a new one is made is said."""
    with monkeypatch.context() as old:
        old.setattr("deltafine.video.caching.VERSION", "area-1")
        frames_of(open_cached(root, cache))
    said: list[str] = []
    frames_of(open_cached(root, cache, said))
    assert len(list(cache.iterdir())) == 2
    assert said[0].startswith("Keeping the decoded frames of 7 videos")


def test_a_file_that_was_only_touched_keeps_its_cache(root: Path, cache: Path, no_decoding: list[str]) -> None:
    frames_of(open_cached(root, cache))
    os.utime(root / "a/v0.avi", (1, 1))
    no_decoding.clear()
    frames_of(open_cached(root, cache))
    assert no_decoding == []


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_torn_cache_is_made_again_and_said(root: Path, cache: Path, share: float) -> None:
    plain = frames_of(open_cached(root, cache))
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.warns(
        DeltafineWarning, match=r"^Kept frames are not used, and decoded again: .*frames-\w+\.h5 \(.*\)\.$"
    ):
        np.testing.assert_array_equal(frames_of(open_cached(root, cache)), plain)
    assert file.stat().st_size == len(whole)


@pytest.mark.parametrize("table", ["table", "times"])
def test_tables_that_changed_are_not_believed(root: Path, cache: Path, table: str) -> None:
    plain = frames_of(open_cached(root, cache))
    (file,) = cache.iterdir()
    with h5py.File(file, "r+") as opened:
        if table == "times":
            opened["times"][3] += 1
        else:
            text = opened["table"][()].decode().replace('"count": 20', '"count": 19', 1)
            del opened["table"]
            opened["table"] = text
    with pytest.warns(DeltafineWarning, match=r"its tables have changed"):
        np.testing.assert_array_equal(frames_of(open_cached(root, cache)), plain)


def test_a_cache_of_an_earlier_version_is_read(root: Path, cache: Path, no_decoding: list[str]) -> None:
    plain = frames_of(open_cached(root, cache))
    (file,) = cache.iterdir()
    with h5py.File(file, "r+") as opened:
        del opened.attrs["tables"]  # which it kept no checksum of
    no_decoding.clear()
    np.testing.assert_array_equal(frames_of(open_cached(root, cache)), plain)
    assert no_decoding == []


def test_damage_inside_a_cache_is_noticed_and_mended(root: Path, cache: Path, length: str) -> None:
    plain = frames_of(open_cached(root, cache))
    (file,) = cache.iterdir()
    with h5py.File(file) as opened:
        frames = opened["videos/000003/frames"].id
        offset = frames.get_offset() if length == "held" else frames.get_chunk_info(2).byte_offset
    content = bytearray(file.read_bytes())
    content[offset + 1000] ^= 1
    file.write_bytes(content)
    with pytest.warns(DeltafineWarning, match=r"the frames of .* have changed"):
        np.testing.assert_array_equal(frames_of(open_cached(root, cache)), plain)
    assert not file.exists()
    np.testing.assert_array_equal(frames_of(open_cached(root, cache)), plain)
    assert file.exists()


def _build(root: Path, cache: Path) -> None:
    assert len(frames_of(open_cached(root, cache))) == 24


def test_two_processes_can_build_at_once(root: Path, cache: Path) -> None:
    processes = [multiprocessing.get_context("spawn").Process(target=_build, args=(root, cache)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(list(cache.iterdir())) == 1
    _build(root, cache)


def test_what_a_killed_build_left_is_cleared_after_a_day(root: Path, cache: Path) -> None:
    cache.mkdir()
    for name, age in (
        ("old.h5.1.part", 100_000),
        ("old.1a2b3c4d.writing.h5", 100_000),
        ("new.1a2b3c4d.writing.h5", 10),
    ):
        part = cache / f".frames-{name}"
        part.write_bytes(b"x")
        os.utime(part, (time.time() - age, time.time() - age))
    frames_of(open_cached(root, cache))
    assert sorted(path.name[:11] for path in cache.iterdir() if path.name.startswith(".")) == [".frames-new"]


def test_the_cache_is_a_dataset_of_its_own(root: Path, cache: Path, length: str) -> None:
    frames_of(open_cached(root, cache))
    (file,) = cache.iterdir()
    again = open_dataset(file)
    assert again.summary() == "HDF5: 6 videos, 2 classes, 6 train / 0 validation"
    assert again.videos[0].name == "a/v0.avi"
    np.testing.assert_array_equal(frames_of(again), frames_of(open_dataset(root, validation=0), shuffle=True))


def test_videos_too_long_to_hold_are_written_bit_by_bit(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deltafine.video.caching.HELD_BYTES", 5 * SIZE[0] * SIZE[1] * 3)
    plain = frames_of(open_dataset(root, validation=0))
    np.testing.assert_array_equal(frames_of(open_cached(root, cache)), plain)


def test_the_cache_serves_when_the_videos_are_gone(root: Path, cache: Path) -> None:
    data = open_cached(root, cache)
    source = data.clips(None, size=SIZE, frames=5)
    before = np.concatenate([batch.frames for batch in source])
    shutil.rmtree(root)
    np.testing.assert_array_equal(np.concatenate([batch.frames for batch in source]), before)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs limits of POSIX")
def test_a_disk_that_fills_meanwhile_is_said_in_one_sentence_and_the_frames_are_decoded(
    root: Path, cache: Path, length: str
) -> None:
    import resource

    plain = frames_of(open_dataset(root, validation=0))
    said: list[str] = []
    data = open_cached(root, cache, said)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        frames = frames_of(data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    np.testing.assert_array_equal(frames, plain)
    assert said[1:] == [sentence for sentence in said[1:] if sentence.startswith("Frames are decoded again in every")]
    assert len(said) == 2
    assert "cannot be written: File too large" in said[1]
    assert said[1].count(". ") == 0
    assert [problem.video for problem in data.problems] == ["a/broken.avi"]
    assert list(cache.iterdir()) == []
