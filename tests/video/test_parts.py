"""Parts of long files: cached alone, and usable where damage lies elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from deltafine.video import Dataset, open_dataset
from tests.video.painted import SIZE, numbers_of, write_video


def write_parts(root: Path, name: str, parts: list[tuple[float, float]]) -> Dataset:
    rows = [{"path": name, "start": start, "end": end, "split": "train"} for start, end in parts]
    (root / "manifest.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return open_dataset(root)


def shown(data: Dataset) -> list[list[int]]:
    return [
        [number for frames, _ in stream for number in numbers_of(frames)]
        for _, stream in data.streams("train", size=SIZE)
    ]


@pytest.mark.parametrize("held", [True, False])
def test_only_the_frames_of_parts_are_cached(tmp_path: Path, held: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not held:
        monkeypatch.setattr("deltafine.video.caching.HELD_BYTES", 5 * SIZE[0] * SIZE[1] * 3)
    write_video(tmp_path / "long.mp4", 250, codec="libx264", size=(32, 64), group=10)
    data = write_parts(tmp_path, "long.mp4", [(0.2, 0.6), (0.4, 0.8), (9.2, 9.6)])
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


def test_frames_between_the_parts_of_a_cache_are_decoded(tmp_path: Path) -> None:
    write_video(tmp_path / "long.avi", 100)
    data = write_parts(tmp_path, "long.avi", [(0.4, 0.8), (3.2, 3.6)])
    data.use_cache(tmp_path / "cache")
    data.clips("train", size=SIZE, frames=5)
    (reader,) = data._cached.values()
    out = np.empty((3, *SIZE, 3), np.uint8)
    reader.read(data.videos[0], np.array([12, 40, 82]), out)
    assert numbers_of(out) == [12, 40, 82]
