"""Batches of clips and whole streams: the right frames, in the same order every time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deltafine.errors import DeltafineError
from deltafine.video import Augmentation, Batch, Dataset, open_dataset
from tests.video.painted import numbers_of, write_classes, write_video

SIZE = (32, 64)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("data"), {"a": 4, "b": 4}, frames=20)


@pytest.fixture
def data(root: Path) -> Dataset:
    return open_dataset(root, validation=0)


def same(one: Batch, other: Batch) -> bool:
    return all(
        np.array_equal(getattr(one, part), getattr(other, part)) for part in ("frames", "labels", "videos", "starts")
    )


def test_a_batch_has_the_shapes_and_labels_it_promises(data: Dataset) -> None:
    source = data.clips("train", frames=8, size=(24, 48), batch=5)
    batches = list(source)
    assert len(source) == len(batches) == 5  # 8 videos of 20 frames: starts 0, 8, 12
    assert [len(batch) for batch in batches] == [5, 5, 5, 5, 4]
    first = batches[0]
    assert first.frames.shape == (5, 8, 24, 48, 3)
    assert first.frames.dtype == np.uint8
    assert first.labels.dtype == np.int64
    assert first.frame_labels is None
    for batch in batches:
        expected = [data.videos[video].label for video in batch.videos]
        np.testing.assert_array_equal(batch.labels, expected)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("stride", [1, 3])
def test_every_clip_holds_the_frames_that_it_names(data: Dataset, shuffle: bool, stride: int) -> None:
    for batch in data.clips(None, frames=5, size=SIZE, frame_stride=stride, clip_stride=4, shuffle=shuffle):
        for clip, video, start in zip(batch.frames, batch.videos, batch.starts, strict=True):
            first = video + start  # video k is painted from number k on
            assert numbers_of(clip) == [first + stride * step for step in range(5)]


def test_grey_frames_have_one_channel(data: Dataset) -> None:
    batch = next(iter(data.clips(None, frames=5, size=SIZE, channels=1)))
    assert batch.frames.shape[-1] == 1
    assert numbers_of(batch.frames[0]) == [0, 1, 2, 3, 4]


def test_order_depends_on_seed_and_epoch_and_not_on_threads(data: Dataset) -> None:
    def run(**settings: Any) -> list[Batch]:
        return list(data.clips(None, frames=4, size=(8, 16), shuffle=True, **settings))

    assert all(map(same, run(workers=1), run(workers=4)))
    assert not all(map(same, run(seed=0), run(seed=1)))
    assert not all(map(same, run(epoch=0), run(epoch=1)))


def test_a_source_can_be_iterated_again_and_resumed(data: Dataset) -> None:
    source = data.clips(None, frames=4, size=(8, 16), shuffle=True, batch=7)
    whole = list(source)
    assert all(map(same, whole, source))
    rest = list(data.clips(None, frames=4, size=(8, 16), shuffle=True, batch=7, start_batch=3))
    assert len(rest) == len(whole) - 3
    assert all(map(same, whole[3:], rest))


@pytest.mark.parametrize("order", [{"shuffle": True}, {"continued": True}])
def test_several_passes_are_as_many_epochs_one_after_the_other(data: Dataset, order: dict[str, Any]) -> None:
    how: dict[str, Any] = {"frames": 4, "size": (8, 16), "batch": 7, "seed": 3, **order}

    def clips(**settings: Any) -> list[tuple[int, int]]:
        batches = data.clips(None, **how, **settings)
        return [place for batch in batches for place in zip(batch.videos.tolist(), batch.starts.tolist(), strict=True)]

    assert clips(epoch=2, passes=3) == [place for epoch in (4, 5, 6) for place in clips(epoch=epoch)]
    source = data.clips(None, **how, epoch=2, passes=3)
    assert len(source) == -(-len(clips(epoch=2, passes=3)) // 7)
    rest = data.clips(None, **how, epoch=2, passes=3, start_batch=5)
    assert all(map(same, list(source)[5:], rest))
    assert data.clips(None, **how, epoch=2).digest() == data.clips(None, **how, epoch=2, passes=1).digest()
    assert source.digest() != data.clips(None, **how, epoch=2).digest()


def test_a_clip_is_varied_differently_in_every_pass(data: Dataset) -> None:
    varied = Augmentation(brightness=0.3)
    source = data.clips(None, frames=4, size=(8, 16), batch=1, augmentation=varied, epoch=1, passes=2)
    batches = list(source)
    half = len(batches) // 2
    assert [batch.starts.tolist() for batch in batches[:half]] == [batch.starts.tolist() for batch in batches[half:]]
    differ = [bool((a.frames != b.frames).any()) for a, b in zip(batches[:half], batches[half:], strict=True)]
    assert sum(differ) > 0.9 * half


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_shards_of_batches_are_the_batches_and_some_may_be_empty(
    data: Dataset, tmp_path: Path, cached: bool, shuffle: bool
) -> None:
    if cached:
        data.use_cache(tmp_path)
    how: dict[str, Any] = {"frames": 4, "size": (8, 16), "shuffle": shuffle, "batch": 6, "start_batch": 1}
    whole = list(data.clips(None, **how))
    assert [len(batch) for batch in whole][-1] == 4
    shards = [list(data.clips(None, **how, shard=(which, 5))) for which in range(5)]
    assert any(not len(batch) for shard in shards for batch in shard)
    for batch, *cut in zip(whole, *shards, strict=True):
        assert [shard.first for shard in cut] == np.cumsum([0, *map(len, cut)])[:-1].tolist()
        for name in ("frames", "labels", "videos", "starts"):
            together = np.concatenate([getattr(shard, name) for shard in cut])
            np.testing.assert_array_equal(together, getattr(batch, name))


def test_every_so_many_th_batch_is_one_of_all(data: Dataset) -> None:
    how: dict[str, Any] = {"frames": 4, "size": (8, 16), "batch": 6}
    whole = list(data.clips(None, **how))
    for which in range(3):
        assert all(map(same, whole[which::3], list(data.clips(None, **how, batches=(which, 3)))))


def test_random_clips_change_with_the_epoch(data: Dataset) -> None:
    def starts(epoch: int) -> list[int]:
        source = data.clips(None, frames=4, size=(8, 16), clips_per_video=2, sampling="random", epoch=epoch, batch=99)
        (batch,) = source
        return batch.starts.tolist()

    assert starts(0) == starts(0)
    assert starts(0) != starts(1)
    assert len(starts(0)) == 16


def test_short_and_bad_videos_are_left_out_and_listed_once(tmp_path: Path) -> None:
    write_video(tmp_path / "a/long.avi", 12)
    write_video(tmp_path / "a/short.avi", 3)
    (tmp_path / "a/broken.avi").write_bytes(b"RIFF" + bytes(5000))
    data = open_dataset(tmp_path, validation=0)
    for _ in range(2):
        (batch,) = data.clips("train", frames=8, size=SIZE)
        assert {data.videos[video].name for video in batch.videos} == {"a/long.avi"}
    kinds = {problem.video: problem.kind for problem in data.problems}
    assert kinds == {"a/broken.avi": "unreadable", "a/short.avi": "short"}
    assert len(data.problems) == 2
    assert {p.reason for p in data.problems if p.kind == "short"} == {"has 3 frames, a clip needs 8"}
    data.check(1)
    with pytest.raises(DeltafineError, match=r"1 of 3 videos .* more than the 0 allowed \(a/broken.avi"):
        data.check(0)


def test_nothing_but_short_videos_is_an_error(tmp_path: Path) -> None:
    write_video(tmp_path / "a/short.avi", 3)
    data = open_dataset(tmp_path, validation=0)
    with pytest.raises(DeltafineError, match=r"None of the 1 train videos .*a/short.avi has 3 frames"):
        data.clips("train", frames=8, size=SIZE)
    with pytest.raises(DeltafineError, match="There are no validation videos"):
        data.clips("validation", frames=8, size=SIZE)


def test_a_file_that_changes_after_the_scan_loses_its_clips_and_nothing_else(tmp_path: Path) -> None:
    write_video(tmp_path / "a/one.avi", 16)
    write_video(tmp_path / "a/two.avi", 16, first=50)
    data = open_dataset(tmp_path, validation=0)
    source = data.clips("train", frames=8, size=SIZE, batch=2)
    write_video(tmp_path / "a/one.avi", 9)
    (batch,) = source
    assert numbers_of(batch.frames[0]) == list(range(50, 58))
    assert [p.reason for p in data.problems] == ["changed while it was in use"]


def test_streams_give_every_frame_once_to_the_tail(data: Dataset) -> None:
    for number, (video, stream) in enumerate(data.streams(None, size=SIZE, chunk=6)):
        chunks = list(stream)
        assert [len(frames) for frames, _ in chunks] == [6, 6, 6, 2]
        seen = [found for frames, _ in chunks for found in numbers_of(frames)]
        assert seen == list(range(number, number + 20))
        for _, labels in chunks:
            assert labels is not None
            assert set(labels.tolist()) == {video.label}


def test_a_stream_left_early_does_not_block_the_next(data: Dataset) -> None:
    firsts = []
    for _, stream in data.streams(None, size=SIZE, chunk=2, frame_stride=2):
        frames, _ = next(stream)
        firsts.append(numbers_of(frames))
    assert firsts == [[number, number + 2] for number in range(8)]


def test_clips_of_streams_carry_the_labels_of_their_frames(tmp_path: Path) -> None:
    write_video(tmp_path / "s.avi", 10)
    rows = [f"s.avi,{frame},{'ab'[frame >= 3]}" for frame in range(10)]
    (tmp_path / "labels.csv").write_text("\n".join(["video,frame,label", *rows]))
    data = open_dataset(tmp_path)
    (batch,) = data.clips("validation", frames=5, size=SIZE)
    assert batch.frame_labels is not None
    assert batch.frame_labels.tolist() == [[0, 0, 0, 1, 1], [1, 1, 1, 1, 1]]
    assert batch.labels.tolist() == [0, 1]
    (_, stream) = next(data.streams("validation", size=SIZE))
    ((_, labels),) = stream
    assert labels is not None
    assert labels.tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1, 1]


def test_the_fingerprint_follows_contents_labels_and_splits(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 3, "b": 3}, frames=4)
    before = open_dataset(tmp_path).fingerprint()
    assert open_dataset(tmp_path).fingerprint() == before
    assert open_dataset(tmp_path, classes=["b", "a"]).fingerprint() != before
    assert open_dataset(tmp_path, validation=0).fingerprint() != before
    write_video(tmp_path / "a/v0.avi", 4, first=77)
    assert open_dataset(tmp_path).fingerprint() != before


@pytest.mark.parametrize(
    "wrong", [{"frames": 0}, {"batch": 0}, {"channels": 4}, {"size": (0, 5)}, {"sampling": "best"}]
)
def test_settings_that_make_no_sense_are_refused(data: Dataset, wrong: dict[str, Any]) -> None:
    with pytest.raises(DeltafineError):
        data.clips(None, **{"size": SIZE, **wrong})


def test_batches_come_as_a_tf_dataset(data: Dataset) -> None:
    source = data.clips(None, frames=5, size=(8, 16), shuffle=True, batch=6)
    dataset = source.as_tf_dataset()
    assert dataset.cardinality().numpy() == len(source)
    for batch, (frames, labels) in zip(source, dataset, strict=True):
        np.testing.assert_array_equal(batch.frames, frames.numpy())
        np.testing.assert_array_equal(batch.labels, labels.numpy())


def test_reading_videos_does_not_load_tensorflow(root: Path) -> None:
    code = (
        "import sys; from deltafine.video import open_dataset; "
        f"list(open_dataset({str(root)!r}).clips('train', size=(8, 8))); assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
