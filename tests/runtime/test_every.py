"""A runtime that runs on every k-th frame and holds its prediction between."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deltafine import DeltafineError, DeltaRuntime
from deltafine.jobs.bench import bench
from tests.cli.running import Command
from tests.runtime.models import MODELS, frame_shape, refined, video
from tests.video.painted import write_video

ENGINES = ("numba", "numpy")


@pytest.fixture
def deltafine_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(capsys, monkeypatch)


def frames_of_video(count: int = 10) -> list[np.ndarray]:
    return list(video(frame_shape(MODELS["plain"]()), count))


@pytest.mark.parametrize("engine", ENGINES)
def test_every_kth_frame_is_run_and_its_prediction_held(engine: str) -> None:
    model = refined(MODELS["plain"](), "send-on-delta")
    frames = frames_of_video()
    often, seldom = DeltaRuntime(model, engine=engine), DeltaRuntime(model, engine=engine, every=3)
    for number, frame in enumerate(frames):
        if number % 3 == 0:
            expected = often.step(frame)
        np.testing.assert_array_equal(seldom.step(frame), expected)
        assert seldom.counts is not None
        assert often.counts is not None
        macs = often.counts.total("needed_macs") if number % 3 == 0 else 0
        assert seldom.counts.total("needed_macs") == macs
        assert all(sent == 0 for sent, _ in seldom.counts.events().values()) or number % 3 == 0
    assert seldom.every == 3


def test_a_new_video_begins_with_a_run_and_each_stream_counts_for_itself() -> None:
    model = refined(MODELS["plain"](), "send-on-delta")
    frames = frames_of_video()
    runtime = DeltaRuntime(model, engine="numpy", every=4)
    other = runtime.stream()
    first = runtime.step(frames[0])
    np.testing.assert_array_equal(runtime.step(frames[5]), first)
    np.testing.assert_array_equal(other.step(frames[0]), first)
    runtime.reset()
    assert not np.array_equal(runtime.step(frames[5]), first)


def test_a_prediction_that_is_held_is_not_the_array_that_was_given_before() -> None:
    model = refined(MODELS["plain"](), "send-on-delta")
    frames = frames_of_video()
    runtime = DeltaRuntime(model, engine="numpy", every=2)
    first = runtime.step(frames[0])
    kept = first.copy()
    first[:] = -1
    np.testing.assert_array_equal(runtime.step(frames[1]), kept)


def test_a_frame_that_cannot_be_used_is_left_out_where_it_is_looked_at() -> None:
    model = refined(MODELS["plain"](), "send-on-delta")
    frames = frames_of_video()
    broken = np.full(frames[0].shape, np.nan, np.float32)
    runtime = DeltaRuntime(model, engine="numpy", every=2)
    with pytest.raises(DeltafineError, match="not finite"):
        runtime.step(broken)
    first = runtime.step(frames[0])  # in its place
    np.testing.assert_array_equal(runtime.step(broken), first)
    with pytest.raises(DeltafineError, match="of shape"):
        runtime.step(frames[0][1:])


@pytest.mark.parametrize("use", [lambda run: DeltaRuntime(run, every=0), lambda run: bench(run, run, every=0)])
def test_every_0th_frame_is_refused_in_a_sentence(use: Callable[[Path], object], tmp_path: Path) -> None:
    with pytest.raises(DeltafineError, match="every is 0: give a whole number"):
        use(tmp_path)


def test_run_and_bench_take_every(deltafine_command: Command, tmp_path: Path) -> None:
    refined(MODELS["plain"](), "send-on-delta").save(tmp_path / "model.keras")
    clip = write_video(tmp_path / "videos" / "clip.avi", 31)
    done = deltafine_command("run", tmp_path / "model.keras", clip, "--frames", "5", "--every", "2")
    assert done.code == 0, done.errors
    macs = [line.split("MACs ")[1].split(",")[0] for line in done.output.splitlines() if line.startswith("frame ")]
    assert [amount == "0.0%" for amount in macs] == [False, True, False, True, False]
    timed = bench(tmp_path / "model.keras", tmp_path / "videos", frames=6, threads=None, every=5)
    assert timed.timing.every == 5
    assert timed.timing.frames == 5  # of frames 0, 5, 10, ... the first is not timed
    with pytest.raises(DeltafineError, match=r"No video .* has 41 frames, which --every 40 needs"):
        bench(tmp_path / "model.keras", tmp_path / "videos", frames=6, threads=None, every=40)
