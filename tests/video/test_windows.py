"""Which frames make up which clip."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deltafine.video.windows import chosen_frames, random_starts, window_frames, window_starts

COUNTS = st.integers(0, 300)
SMALL = st.integers(1, 12)


@given(count=COUNTS, frames=SMALL, frame_stride=SMALL, clip_stride=st.none() | SMALL)
def test_windows_lie_inside_and_reach_the_last_frame(
    count: int, frames: int, frame_stride: int, clip_stride: int | None
) -> None:
    starts = window_starts(count, frames=frames, frame_stride=frame_stride, clip_stride=clip_stride)
    ends = [int(window_frames(int(start), frames, frame_stride)[-1]) for start in starts]
    if count < (frames - 1) * frame_stride + 1:
        assert len(starts) == 0
    else:
        assert starts[0] == 0
        assert ends[-1] == count - 1
        assert (np.diff(starts) > 0).all()
        assert np.diff(starts).max(initial=0) <= (clip_stride or frames * frame_stride)


@given(count=COUNTS, frames=SMALL)
def test_windows_cover_every_frame(count: int, frames: int) -> None:
    starts = window_starts(count, frames=frames)
    covered = {int(number) for start in starts for number in window_frames(int(start), frames, 1)}
    assert covered == (set(range(count)) if count >= frames else set())


@given(count=st.integers(1, 300), frames=SMALL, clips=st.integers(1, 20), seed=st.integers(0, 9))
def test_a_number_of_clips_is_spread_or_drawn_without_repeats(count: int, frames: int, clips: int, seed: int) -> None:
    places = max(0, count - frames + 1)
    spread = window_starts(count, frames=frames, clips=clips)
    drawn = random_starts(count, frames=frames, frame_stride=1, clips=clips, generator=np.random.default_rng(seed))
    assert len(drawn) == min(clips, places)
    for starts in (spread, drawn):
        assert len(set(starts.tolist())) == len(starts) <= min(clips, places)
        assert all(0 <= start < places for start in starts)
    if places >= clips > 1:
        assert len(spread) == clips
        assert (spread[0], spread[-1]) == (0, places - 1)


def test_a_single_clip_lies_in_the_middle() -> None:
    assert window_starts(20, frames=8, clips=1).tolist() == [6]


@given(fps=st.floats(1, 120), count=st.integers(1, 200))
def test_resampling_takes_the_nearest_frame_at_every_moment(fps: float, count: int) -> None:
    times = np.arange(count) / 30
    seconds = count / 30
    numbers = chosen_frames(times, seconds, fps=fps)
    assert abs(len(numbers) - seconds * fps) <= 1
    assert (np.diff(numbers) >= 0).all()
    distance = np.abs(times[numbers] - np.arange(len(numbers)) / fps)
    nearest = np.abs(times[None] - (np.arange(len(numbers)) / fps)[:, None]).min(axis=1)
    np.testing.assert_allclose(distance, nearest, atol=1e-6)


@given(start=st.integers(0, 60), length=st.integers(1, 60))
def test_neighbouring_parts_share_no_frame_and_lose_none(start: int, length: int) -> None:
    times = np.round(np.arange(100) / 30, 3)  # as Matroska keeps them
    cut, end = start / 30, (start + length) / 30
    first = chosen_frames(times, 100 / 30, end=cut) if cut else np.empty(0)
    second = chosen_frames(times, 100 / 30, start=cut, end=end)
    third = chosen_frames(times, 100 / 30, start=end)
    assert [*first, *second, *third] == list(range(100))
