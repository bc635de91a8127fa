"""Clips that were cut out of longer videos are put together again."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltafine.video import Batch, Dataset, open_dataset
from deltafine.video.augmentation import Augmentation
from deltafine.video.clips import ClipSettings, _side_by_side
from tests.video.painted import write_classes, write_video

SIZE = (32, 64)
PIECE = 10
JOINTS = {("a/q.avi", "a/x.avi"), ("a/x.avi", "b/k.avi"), ("b/z.avi", "b/c.avi"), ("b/c.avi", "a/m.avi")}


def scene(seed: int, frames: int) -> list[np.ndarray]:
    """A bright square that crosses a picture of its own."""
    random = np.random.default_rng(seed)
    ground = np.kron(random.integers(40, 160, (4, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    pictures = []
    for frame in range(frames):
        picture = ground.copy()
        picture[12:20, 2 * frame : 2 * frame + 8] = 250
        pictures.append(picture)
    return pictures


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes in three pieces each, whose names and classes say nothing of their order, and a third one."""
    root = tmp_path_factory.mktemp("scenes")
    names = {"a/x": (0, 1), "a/q": (0, 0), "b/k": (0, 2), "b/z": (1, 0), "a/m": (1, 2), "b/c": (1, 1), "b/y": (2, 0)}
    for name, (seed, piece) in names.items():
        pictures = scene(seed, 3 * PIECE)[piece * PIECE :][:PIECE]
        write_video(root / f"{name}.avi", pictures=pictures, codec="ffv1", pixels="bgr0")
    return root


@pytest.fixture
def data(root: Path) -> Dataset:
    return open_dataset(root, validation=0)


def test_videos_follow_each_other_as_in_the_scene_that_they_were_cut_from(data: Dataset) -> None:
    names = [video.name for video, _ in data.streams("train", size=SIZE, continued=True)]
    assert sorted(names) == sorted(video.name for video in data.videos)
    assert set(pairwise(names)) >= JOINTS


class Watched:
    """Data that notes which videos were shown, in their order."""

    def __init__(self, data: Dataset) -> None:
        self._data = data
        self.classes, self.examination = data.classes, data.examination
        self.shown: list[str] = []

    def select(self, split: Any) -> Any:
        return self._data.select(split)

    def streams(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        for video, pieces in self._data.streams(*args, **kwargs):
            self.shown.append(video.name)
            yield video, pieces


@pytest.mark.parametrize("spliced", [False, True])
def test_videos_measured_as_one_stream_follow_each_other_as_in_the_scene(data: Dataset, spliced: bool) -> None:
    import keras

    from deltafine.measurement.probe import Probe
    from deltafine.measurement.side_by_side import measure_streams
    from deltafine.model import insert_deltas

    inputs = keras.Input((*SIZE, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(2, 3, activation="relu")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(pooled))
    watched = Watched(data)
    measure_streams({"original": Probe(insert_deltas(model, []))}, watched, split="train", spliced=spliced)
    assert sorted(watched.shown) == sorted(video.name for video in data.videos)
    assert (set(pairwise(watched.shown)) >= JOINTS) == spliced


@pytest.mark.parametrize("cached", [False, True])
def test_each_clip_goes_on_where_the_one_in_its_place_had_ended(data: Dataset, tmp_path: Path, cached: bool) -> None:
    if cached:
        data.use_cache(tmp_path)
    chain = [video.name for video, _ in data.streams("train", size=SIZE, continued=True)]
    next_video = dict(zip(chain, [*chain[1:], chain[0]], strict=True))
    for epoch in (1, 2):
        batches = list(data.clips("train", frames=5, size=SIZE, batch=4, continued=True, epoch=epoch))
        assert len(batches) == 4  # 14 clips, two of which come twice
        assert {(int(v), int(s)) for b in batches for v, s in zip(b.videos, b.starts, strict=True)} == {
            (video, start) for video in range(7) for start in (0, 5)
        }
        for one, following in pairwise(batches):
            assert len(one) == len(following) == 4
            for place in range(4):
                old, new = (data.videos[int(batch.videos[place])].name for batch in (one, following))
                if one.starts[place] == 0:
                    assert (new, following.starts[place]) == (old, 5)
                else:
                    assert (new, following.starts[place]) == (next_video[old], 0)


def begins(batches: list[Batch]) -> list[tuple[int, int]]:
    return [(int(video), int(start)) for video, start in zip(batches[0].videos, batches[0].starts, strict=True)]


def test_every_epoch_goes_through_the_videos_from_other_places(data: Dataset) -> None:
    epochs = [
        begins(list(data.clips("train", frames=5, size=SIZE, batch=4, continued=True, epoch=e))) for e in range(8)
    ]
    assert len({tuple(epoch) for epoch in epochs}) > 2


def test_parts_and_resumed_epochs_are_the_same_clips(data: Dataset) -> None:
    settings = {"frames": 5, "size": SIZE, "batch": 4, "continued": True, "epoch": 3}
    whole = list(data.clips("train", **settings))
    shards = [list(data.clips("train", **settings, shard=(which, 3))) for which in range(3)]
    for number, batch in enumerate(whole):
        np.testing.assert_array_equal(np.concatenate([shard[number].frames for shard in shards]), batch.frames)
        assert [shard[number].first for shard in shards] == [0, 1, 2]
    rest = list(data.clips("train", **settings, start_batch=2))
    for one, other in zip(rest, whole[2:], strict=True):
        np.testing.assert_array_equal(one.frames, other.frames)


def test_what_goes_on_is_varied_as_it_was_before(data: Dataset) -> None:
    settings = {"frames": 5, "size": SIZE, "batch": 4, "continued": True}
    mirrored: dict[int, set[tuple[int, bool]]] = {}
    for epoch in range(4):
        plain = data.clips("train", **settings, epoch=epoch)
        varied = data.clips("train", **settings, epoch=epoch, augmentation=Augmentation(flip=True))
        for one, other in zip(plain, varied, strict=True):
            for place, (clip, turned) in enumerate(zip(one.frames, other.frames, strict=True)):
                flipped = not np.array_equal(clip, turned)
                np.testing.assert_array_equal(turned, clip[:, :, ::-1] if flipped else clip)
                mirrored.setdefault(place, set()).add((epoch, flipped))
    for place, seen in mirrored.items():
        assert len(seen) == 4, f"place {place} was turned within an epoch: {seen}"
    assert {flipped for seen in mirrored.values() for _, flipped in seen} == {False, True}


def test_what_goes_on_is_mixed_in_the_same_place(data: Dataset) -> None:
    settings = {"frames": 5, "size": SIZE, "batch": 4, "continued": True}
    for epoch in range(4):
        mixed = data.clips("train", **settings, epoch=epoch, augmentation=Augmentation(mix=0.5))
        unlabelled = {tuple((batch.labels == -1).tolist()) for batch in mixed if len(batch) == 4}
        assert len(unlabelled) == 1


def test_a_single_video_and_videos_that_are_all_alike_have_an_order_too(tmp_path: Path) -> None:
    write_classes(tmp_path / "alike", {"a": 3, "b": 3}, frames=4)
    for root, count in ((tmp_path / "alike" / "a", 3), (tmp_path / "alike", 6)):
        data = open_dataset(root, validation=0)
        names = [video.name for video, _ in data.streams(None, size=(8, 8), continued=True)]
        assert len(set(names)) == len(names) == count
    single = tmp_path / "single"
    write_video(single / "film.avi", 9)
    data = open_dataset(single, validation=0)
    batches = list(data.clips(None, frames=3, size=(8, 8), batch=8, continued=True))
    assert [sorted(batch.starts.tolist()) for batch in batches] == [[0, 3, 6]]


@given(clips=st.integers(1, 200), batch=st.integers(1, 20), seed=st.integers(0, 9), epoch=st.integers(0, 9))
def test_all_clips_come_in_full_batches_and_go_on_place_by_place(clips: int, batch: int, seed: int, epoch: int) -> None:
    settings = ClipSettings(
        frames=2, frame_stride=1, clip_stride=None, clips_per_video=None, sampling="uniform", fps=None,
        augmentation=None, batch=batch, shuffle=False, continued=True, seed=seed, epoch=epoch,
    )  # fmt: skip
    order = _side_by_side(clips, settings)
    places = min(batch, clips)
    assert len(order) % places == 0
    assert len(order) < clips + places
    assert set(order.tolist()) == set(range(clips))
    for one, following in pairwise(order.reshape(-1, places)):
        np.testing.assert_array_equal(following, (one + 1) % clips)
