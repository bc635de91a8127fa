"""Clips that were cut out of longer videos are put together again, and given what came before them."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltafine.video import Dataset, open_dataset
from deltafine.video.continuity import before
from tests.video.painted import numbers_of, write_video

SIZE = (32, 64)
PIECE = 10


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


def test_a_video_follows_the_one_that_ends_as_it_begins_and_none_of_another_scene(data: Dataset) -> None:
    clips = data.clips("train", size=SIZE, frames=PIECE, lead_in=1, batch=7)
    (batch,) = clips
    before_of = {data.videos[video].name: lead[0] for video, lead in zip(batch.videos, batch.lead_in, strict=True)}
    scenes = [scene(seed, 3 * PIECE) for seed in range(3)]
    expected = {
        "a/x.avi": scenes[0][PIECE - 1],
        "b/k.avi": scenes[0][2 * PIECE - 1],
        "b/c.avi": scenes[1][PIECE - 1],
        "a/m.avi": scenes[1][2 * PIECE - 1],
        "b/y.avi": scenes[2][1],  # its own second frame: time runs backwards
    }
    for name, picture in expected.items():
        np.testing.assert_array_equal(before_of[name], picture, err_msg=name)


def test_videos_follow_each_other_as_in_one_scene(data: Dataset) -> None:
    names = [video.name for video, _ in data.streams("train", size=SIZE, continued=True)]
    assert sorted(names) == sorted(video.name for video in data.videos)
    following = set(itertools.pairwise(names))
    assert {("a/x.avi", "b/k.avi"), ("b/z.avi", "b/c.avi"), ("b/c.avi", "a/m.avi")} <= following


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_clip_is_led_in_by_its_own_video_and_backwards_where_that_begins(
    tmp_path: Path, cached: bool, stride: int
) -> None:
    write_video(tmp_path / "films" / "film.avi", 20)
    data = open_dataset(tmp_path / "films", validation=0)
    if cached:
        data.use_cache(tmp_path / "cache")
    clips = data.clips(None, size=SIZE, frames=4, frame_stride=stride, clip_stride=3, lead_in=5, batch=3, shuffle=True)
    plain = data.clips(None, size=SIZE, frames=4, frame_stride=stride, clip_stride=3, batch=3, shuffle=True)
    for batch, without in zip(clips, plain, strict=True):
        np.testing.assert_array_equal(batch.frames, without.frames)
        assert without.lead_in.shape[1] == 0
        for lead, start in zip(batch.lead_in, batch.starts, strict=True):
            steps = range(start - 5 * stride, start, stride)
            first = start % stride
            # Reflected at the first frame that there is, as often as needed.
            last = start + 3 * stride - first
            expected = [step - first for step in steps]
            while min(expected) < 0 or max(expected) > last:
                expected = [-step if step < 0 else 2 * last - step if step > last else step for step in expected]
            assert numbers_of(lead) == [step + first for step in expected]


def test_parts_of_a_batch_have_their_lead_in_and_variation_covers_it(data: Dataset) -> None:
    from deltafine.video.augmentation import Augmentation

    settings = {"size": SIZE, "frames": 4, "lead_in": 6, "batch": 5, "shuffle": True}
    plain = list(data.clips(None, **settings))
    for number, whole in enumerate(plain):
        parts = [list(data.clips(None, **settings, part=(which, 3)))[number] for which in range(3)]
        np.testing.assert_array_equal(np.concatenate([part.lead_in for part in parts]), whole.lead_in)
    for batch, varied in zip(plain, data.clips(None, **settings, augmentation=Augmentation(flip=True)), strict=True):
        for clip, lead, turned, lead_turned in zip(
            batch.frames, batch.lead_in, varied.frames, varied.lead_in, strict=True
        ):
            mirrored = not np.array_equal(clip, turned)
            np.testing.assert_array_equal(turned, clip[:, :, ::-1] if mirrored else clip)
            np.testing.assert_array_equal(lead_turned, lead[:, :, ::-1] if mirrored else lead)


@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    lead_in=st.integers(0, 20),
    stride=st.integers(1, 3),
    data=st.data(),
)
def test_what_comes_before_is_in_order_and_ends_where_the_clip_begins(
    counts: list[int], lead_in: int, stride: int, data: st.DataObject
) -> None:
    video = data.draw(st.integers(0, len(counts) - 1))
    start = data.draw(st.integers(0, counts[video] - 1))
    predecessors = {number: number - 1 for number in range(1, len(counts))}
    pieces = before(lead_in, stride, video, start, counts.__getitem__, predecessors)
    one_by_one: list[tuple[int, int]] = []
    number, at = video, start - stride
    while len(one_by_one) < lead_in and number >= 0:
        if at < 0:
            number, at = number - 1, counts[number - 1] - 1
        else:
            one_by_one.append((number, at))
            at -= stride
    assert [(n, place) for n, places in pieces for place in places.tolist()] == one_by_one[::-1]
