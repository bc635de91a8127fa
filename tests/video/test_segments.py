"""Segments of long files: cached alone, and usable where damage lies elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import av
import h5py
import numpy as np
import pytest

from deltafine.video import Dataset, open_dataset
from tests.video.painted import SIZE, numbers_of, write_video


def write_segments(root: Path, name: str, segments: list[tuple[float, float]]) -> Dataset:
    rows = [{"path": name, "start": start, "end": end, "split": "train"} for start, end in segments]
    (root / "manifest.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return open_dataset(root)


def shown(data: Dataset) -> list[list[int]]:
    return [
        [number for frames, _ in stream for number in numbers_of(frames)]
        for _, stream in data.streams("train", size=SIZE)
    ]


@pytest.mark.parametrize("held", [True, False])
def test_only_the_frames_of_segments_are_cached(tmp_path: Path, held: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not held:
        monkeypatch.setattr("deltafine.video.caching.HELD_BYTES", 5 * SIZE[0] * SIZE[1] * 3)
    write_video(tmp_path / "long.mp4", 250, codec="libx264", size=(32, 64), group=10)
    data = write_segments(tmp_path, "long.mp4", [(0.2, 0.6), (0.4, 0.8), (9.2, 9.6)])
    said: list[str] = []
    data.use_cache(tmp_path / "cache", announce=said.append)
    assert shown(data) == [list(range(5, 15)), list(range(10, 20)), list(range(230, 240))]
    (cache,) = (tmp_path / "cache").iterdir()
    frame = SIZE[0] * SIZE[1] * 3
    assert cache.stat().st_size < 25 * frame + 50_000
    assert f"about {25 * frame / 1000:.1f} kB" in said[0]
    again = open_dataset(tmp_path)
    again.use_cache(tmp_path / "cache")
    assert shown(again) == shown(data)
    for batch in again.clips("train", size=SIZE, frames=5, shuffle=True, batch=2):
        for clip, start in zip(batch.frames, batch.starts, strict=True):
            assert numbers_of(clip) == list(range(start, start + 5))


def test_frames_between_the_segments_of_a_cache_are_decoded(tmp_path: Path) -> None:
    write_video(tmp_path / "long.avi", 100)
    data = write_segments(tmp_path, "long.avi", [(0.4, 0.8), (3.2, 3.6)])
    data.use_cache(tmp_path / "cache")
    data.clips("train", size=SIZE, frames=5)
    (reader,) = data._readers.values()
    out = np.empty((3, *SIZE, 3), np.uint8)
    reader.read(data.videos[0], np.array([12, 40, 82]), out)
    assert numbers_of(out) == [12, 40, 82]


def damage(path: Path, number: int = 100) -> None:
    """Overwrite bytes of a frame, and of those after it where it is small; less than a packet of a transport stream."""
    with av.open(str(path)) as container:
        place = [packet.pos for packet in container.demux(video=0) if packet.pos is not None][number]
    content = bytearray(path.read_bytes())
    content[place + 40 : place + 180] = np.random.default_rng(0).bytes(140)
    path.write_bytes(content)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [("v.mp4", "libx264", {"bf": "2"}), ("v.avi", "mpeg4", {}), ("v.mkv", "libx264", {})],
)
def test_damage_costs_segments_the_pictures_that_it_damages(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], cached: bool
) -> None:
    path = write_video(tmp_path / name, 200, codec=codec, group=20, options=options)
    damage(path)
    data = write_segments(tmp_path, name, [(0.4, 0.8), (3.0, 5.0), (6.4, 6.8), (0.0, 8.0)])
    if cached:
        data.use_cache(tmp_path / "cache")
    used = {
        video.name: numbers for (video, _), numbers in zip(data.streams("train", size=SIZE), shown(data), strict=True)
    }
    assert list(used) == [f"{name} [{segment} s]" for segment in ("0.4-0.8", "3-5", "6.4-6.8", "0-8")]
    first, around, last, whole = used.values()
    late = 160 if name != "v.avi" else last[0]  # whose times are counted, and some that were counted are lost
    assert (first, last) == (list(range(10, 20)), list(range(late, late + 10)))
    assert late < 166
    lost = sorted(set(range(200)) - set(whole))
    assert whole == [number for number in range(200) if number not in lost]
    assert 0 < len(lost) < 40
    assert set(lost) == set(range(min(lost), max(lost) + 1)) <= set(range(97, 140))
    assert around == [number for number in range(75, 125 + late - 160) if number not in lost]
    assert {(problem.video, problem.kind) for problem in data.problems} == {
        (f"{name} [3-5 s]", "cut"),
        (f"{name} [0-8 s]", "cut"),
    }
    if cached:
        again = open_dataset(tmp_path)
        again.use_cache(tmp_path / "cache")
        assert shown(again) == list(used.values())
        assert set(again.problems) == set(data.problems)


def test_a_damaged_cache_of_a_damaged_file_gives_right_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 200, codec="libx264", group=20)
    damage(path)
    write_segments(tmp_path, "v.mp4", [(0.4, 0.8), (6.4, 6.8)]).use_cache(tmp_path / "cache")
    data = open_dataset(tmp_path)
    data.use_cache(tmp_path / "cache")
    assert shown(data) == [list(range(10, 20)), list(range(160, 170))]
    (cache,) = (tmp_path / "cache").iterdir()
    with h5py.File(cache) as opened:
        place = opened["videos/000000/frames"].id.get_offset()
    content = bytearray(cache.read_bytes())
    content[place + 1000] ^= 1
    cache.write_bytes(content)
    again = open_dataset(tmp_path)
    again.use_cache(tmp_path / "cache")
    assert shown(again) == [list(range(10, 20)), list(range(160, 170))]
    assert again.problems == []


def test_segments_before_the_place_where_a_file_is_cut_are_used(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mkv", 200, codec="libx264", group=20)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    data = write_segments(tmp_path, "v.mkv", [(0.4, 0.8), (7.0, 7.4), (1.0, 7.0)])
    first, cut = shown(data)
    assert first == list(range(10, 20))
    assert cut == list(range(25, 25 + len(cut)))  # none of those that are shown after lost ones
    assert 50 < len(cut) < 100
    found = {problem.video: problem for problem in data.problems}
    assert set(found) == {"v.mkv [7-7.4 s]", "v.mkv [1-7 s]"}
    assert found["v.mkv [7-7.4 s]"].kind == "unreadable"
    assert found["v.mkv [1-7 s]"].kind == "cut"
    assert found["v.mkv [1-7 s]"].reason.endswith(", and is used up to there")


def test_a_damaged_video_is_used_as_a_whole_and_in_segments(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 200, codec="libx264", group=20)
    damage(path)
    rows = [{"path": "v.mp4", "split": "train"}, {"path": "v.mp4", "start": 0.4, "end": 0.8, "split": "train"}]
    (tmp_path / "manifest.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    data = open_dataset(tmp_path)
    whole, segment = shown(data)
    assert segment == list(range(10, 20))
    lost = sorted(set(range(200)) - set(whole))
    assert set(lost) == set(range(min(lost), max(lost) + 1)) <= set(range(97, 140))
    assert whole == [number for number in range(200) if number not in lost]
    assert [(problem.video, problem.kind) for problem in data.problems] == [("v.mp4", "cut")]
    assert "is used without the damaged pictures" in data.problems[0].reason
