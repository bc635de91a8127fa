"""Clips are varied as a whole, and by the seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltafine.errors import DeltafineError
from deltafine.video import Augmentation, open_dataset
from tests.video.painted import write_classes

ALL = Augmentation(flip=True, crop=0.9, scale=0.3, brightness=0.2, contrast=0.2, saturation=0.3)


def still(frames: int = 4, seed: int = 0) -> np.ndarray:
    picture = np.random.default_rng(seed).integers(0, 255, (24, 32, 3), np.uint8)
    return np.stack([picture] * frames)


@pytest.mark.parametrize("channels", [1, 3])
def test_what_stands_still_stays_still(channels: int) -> None:
    for seed in range(20):
        varied = ALL(still()[..., :channels], np.random.default_rng(seed))
        assert varied.shape == (4, 24, 32, channels)
        assert varied.dtype == np.uint8
        assert (varied == varied[:1]).all()


def test_every_variation_changes_something_and_none_changes_nothing() -> None:
    clip = still()
    np.testing.assert_array_equal(Augmentation()(clip, np.random.default_rng(0)), clip)
    for setting in ({"flip": True}, {"crop": 0.8}, {"scale": 0.3}, {"brightness": 0.2}, {"contrast": 0.2}):
        varied = [Augmentation(**setting)(clip, np.random.default_rng(seed)) for seed in range(6)]  # type: ignore[arg-type]
        assert any((one != clip).any() for one in varied)
    assert (Augmentation(saturation=0.5)(clip, np.random.default_rng(0)) != clip).any()


def test_a_flip_mirrors_half_of_the_clips() -> None:
    clip = still()
    varied = [Augmentation(flip=True)(clip, np.random.default_rng(seed)) for seed in range(40)]
    mirrored = [np.array_equal(one, clip[:, :, ::-1]) for one in varied]
    assert 10 < sum(mirrored) < 30
    assert all(m or np.array_equal(one, clip) for m, one in zip(mirrored, varied, strict=True))


def test_switching_one_variation_on_leaves_the_others_alone() -> None:
    for seed in range(10):
        flipped = Augmentation(flip=True)(still(), np.random.default_rng(seed))
        both = Augmentation(flip=True, brightness=0.1)(still(), np.random.default_rng(seed))
        signs = np.sign(both.astype(int) - flipped)
        assert signs.min() * signs.max() >= 0  # brighter everywhere or darker everywhere


def test_clips_are_varied_by_seed_and_epoch_whoever_reads_them(tmp_path: Path) -> None:
    data = open_dataset(write_classes(tmp_path / "data", {"a": 3}), validation=0)

    def run(epoch: int = 0, workers: int = 2, start_batch: int = 0) -> np.ndarray:
        source = data.clips(
            None, size=(16, 32), augmentation=ALL, epoch=epoch, workers=workers, start_batch=start_batch, batch=2
        )
        return np.concatenate([batch.frames for batch in source])

    first = run()
    np.testing.assert_array_equal(first, run(workers=4))
    np.testing.assert_array_equal(first[2:], run(start_batch=1))
    assert (first != run(epoch=1)).any()
    data.use_cache(tmp_path / "cache")
    np.testing.assert_array_equal(first, run())


def test_batches_tell_which_clips_are_mirrored(tmp_path: Path) -> None:
    data = open_dataset(write_classes(tmp_path / "data", {"a": 5, "b": 5}), validation=0)
    augmentation = Augmentation(flip=True)
    plain = list(data.clips(None, size=(16, 32), batch=4))
    varied = list(data.clips(None, size=(16, 32), batch=4, augmentation=augmentation))
    seen = set()
    for before, after in zip(plain, varied, strict=True):
        assert before.mirrored is None
        assert after.mirrored is not None
        for clip, mirrored in enumerate(after.mirrored):
            expected = before.frames[clip][:, :, ::-1] if mirrored else before.frames[clip]
            np.testing.assert_array_equal(after.frames[clip], expected)
            assert after.clips[clip] == (after.videos[clip], after.starts[clip], mirrored)
        seen.update(after.mirrored.tolist())
    assert seen == {False, True}


@pytest.mark.parametrize("cached", [False, True], ids=["decoded", "cached"])
def test_a_mixed_clip_has_a_rectangle_of_the_next_and_no_label(cached: bool, tmp_path: Path) -> None:
    data = open_dataset(write_classes(tmp_path / "data", {"a": 9, "b": 8}), validation=0)
    if cached:
        data.use_cache(tmp_path / "cache")
    how: dict[str, Any] = {"size": (16, 32), "batch": 4, "seed": 2}
    plain = list(data.clips(None, **how))
    mixed = list(data.clips(None, **how, augmentation=Augmentation(mix=0.5)))
    found = []
    for before, after in zip(plain, mixed, strict=True):
        assert after.clips == before.clips
        for place in range(len(before)):
            other = (place + 1) % len(before)
            changed = (after.frames[place] != before.frames[place]).any((0, 3))
            found.append(after.labels[place] == -1)
            if not found[-1]:
                assert not changed.any()
                assert after.labels[place] == before.labels[place]
                continue
            rows, columns = (np.flatnonzero(changed.any(axis)) for axis in (1, 0))
            part = np.s_[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) else np.s_[:0]
            expected = before.frames[place].copy()
            expected[part] = before.frames[other][part]
            np.testing.assert_array_equal(after.frames[place], expected)
    assert 0 < sum(found) < len(found)
    again = list(data.clips(None, **how, augmentation=Augmentation(mix=0.5), start_batch=2))
    for one, same in zip(again, mixed[2:], strict=True):
        np.testing.assert_array_equal(one.frames, same.frames)


@given(height=st.integers(1, 300), width=st.integers(1, 300), seed=st.integers(0, 10**6))
def test_a_mixed_part_lies_within_the_frame(height: int, width: int, seed: int) -> None:
    part = Augmentation(mix=1.0).mixed_part(height, width, np.random.default_rng(seed))
    assert part is not None
    rows, columns = part
    assert 0 <= rows.start < rows.stop <= height
    assert 0 <= columns.start < columns.stop <= width
    assert Augmentation().mixed_part(height, width, np.random.default_rng(seed)) is None


@pytest.mark.parametrize("wrong", [{"crop": 0.0}, {"crop": 1.5}, {"scale": -1.0}, {"brightness": 2.0}])
def test_variations_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(DeltafineError, match="must"):
        Augmentation(**wrong)  # type: ignore[arg-type]
