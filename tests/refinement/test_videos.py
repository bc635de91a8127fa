"""How a run gets its videos: decoded once, kept, cut and varied as the settings say, checked before it trains."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deltafine import refine
from deltafine.errors import DeltafineError
from deltafine.jobs.measure import measure_model
from deltafine.jobs.refine import Quiet
from deltafine.refinement.run.preparation import Prepared, prepare
from deltafine.settings import resolve
from deltafine.video import encoded
from deltafine.video.reading import DecodedFrames
from tests.small_runs import FAST, FRAMES, write_small_model, write_small_video, write_small_videos


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("material")
    return write_small_model(folder / "small.keras"), write_small_videos(folder / "videos")


def prepared(material: tuple[Path, Path], **settings: Any) -> Prepared:
    model, videos = map(str, material)
    return prepare(resolve(model=model, data=videos, **{**FAST, **settings}), Quiet())


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are opened, and "clip" whenever a clip of frames is decoded for itself."""
    found: list[str] = []
    plain_open, plain_read = encoded.open_video, DecodedFrames.read

    def spy_open(path: Path, limits: Any) -> Any:
        found.append(path.name)
        return plain_open(path, limits)

    def spy_read(self: DecodedFrames, *arguments: Any) -> None:
        found.append("clip")
        plain_read(self, *arguments)

    monkeypatch.setattr(encoded, "open_video", spy_open)
    monkeypatch.setattr(DecodedFrames, "read", spy_read)
    return found


def test_training_reads_frames_that_the_run_keeps_for_itself(
    material: tuple[Path, Path], tmp_path: Path, decoded: list[str]
) -> None:
    out = tmp_path / "run"
    refine(*material, out, **FAST, epochs=1)
    assert "clip" not in decoded
    assert not (out / "cache").exists()


@pytest.fixture
def frames_decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for every frame that is decoded, of whatever file."""
    found: list[int] = []
    plain = encoded.sound_frames

    def spy(*arguments: Any, **more: Any) -> Any:
        for frame in plain(*arguments, **more):
            found.append(1)
            yield frame

    monkeypatch.setattr(encoded, "sound_frames", spy)
    return found


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("cached", [True, False])
def test_a_run_decodes_every_frame_once(
    material: tuple[Path, Path], tmp_path: Path, frames_decoded: list[int], single: bool, cached: bool
) -> None:
    model, videos = material
    data = write_small_video(tmp_path / "day.avi", True, seed=3, frames=80) if single else videos
    how = {**FAST, "cache": str(tmp_path / "cache")} if cached else FAST
    refine(model, data, tmp_path / "run", **how, epochs=2, task="distill")
    assert len(frames_decoded) == (80 if single else 10 * FRAMES)
    if cached:
        measure_model(tmp_path / "run/refined.keras", data, cache=how["cache"])
        refine(model, data, tmp_path / "again", **how, epochs=1, task="distill")
        assert len(frames_decoded) == (80 if single else 10 * FRAMES)


@pytest.mark.parametrize("single", [True, False])
def test_without_room_for_a_cache_every_frame_is_decoded_once_at_the_start(
    material: tuple[Path, Path],
    tmp_path: Path,
    frames_decoded: list[int],
    single: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, videos = material
    data = write_small_video(tmp_path / "day.avi", True, seed=3, frames=80) if single else videos
    said: list[str] = []

    class Listener(Quiet):
        def say(self, text: str) -> None:
            said.append(text)

    full = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr("deltafine.video.caching.shutil.disk_usage", lambda path: full)
    found = prepare(resolve(model=str(model), data=str(data), task="distill", **FAST), Listener(), tmp_path / "own")
    found.clips("train", epoch=1)
    assert len(list(found.data.streams("validation", size=found.size, continued=True))) == (1 if single else 2)
    assert len(frames_decoded) == (80 if single else 10 * FRAMES)
    assert len(list(found.clips("train"))) > 0
    told = [sentence for sentence in said if sentence.startswith("Frames are decoded again in every epoch: ")]
    assert len(told) == (1 if single else 2)  # of a folder for each split


def test_the_frames_of_a_run_that_is_refused_are_taken_away(material: tuple[Path, Path], tmp_path: Path) -> None:
    model, videos = material
    for make in (False, True):
        out = tmp_path / f"run{make}"
        if make:
            out.mkdir()
        with pytest.raises(DeltafineError, match="frames"):
            refine(model, videos, out, **{**FAST, "frames": FRAMES + 1})
        assert not out.exists() or not list(out.iterdir())


@pytest.mark.parametrize("resume", [False, True])
def test_what_a_run_left_that_was_killed_while_it_looked_at_the_videos_is_used(
    material: tuple[Path, Path], tmp_path: Path, frames_decoded: list[int], resume: bool
) -> None:
    model, videos = material
    out = tmp_path / "run"
    settings = resolve(model=str(model), data=str(videos), **FAST)
    prepare(settings, Quiet(), out / "cache")  # and then it was killed
    (out / "cache" / ".frames-x.1a2b3c4d.writing.h5").write_bytes(b"x")
    frames_decoded.clear()
    refine(model, videos, out, **FAST, epochs=1, resume=resume)
    assert frames_decoded == []
    assert (out / "report.json").exists()


def test_a_cache_of_the_users_saves_the_next_run_all_decoding(
    material: tuple[Path, Path], tmp_path: Path, decoded: list[str]
) -> None:
    prepared(material, cache=str(tmp_path / "cache"))
    assert decoded
    decoded.clear()
    again = prepared(material, cache=str(tmp_path / "cache"))
    assert sum(len(batch) for batch in again.clips("train")) == 8 * FRAMES // 4
    for _, pieces in again.data.streams("validation", size=again.size):
        assert sum(len(frames) for frames, _ in pieces) == FRAMES
    assert decoded == []


def test_clips_are_cut_as_the_settings_say(material: tuple[Path, Path]) -> None:
    whole = prepared(material)
    assert whole.clips("train").clips == 8 * FRAMES // 4
    one = prepared(material, clips_per_video=1, sampling="random", frame_stride=3, passes=1)
    batches = [batch for epoch in range(4) for batch in one.clips("train", epoch=epoch)]
    assert sum(map(len, batches)) == 4 * 8
    assert len({start for batch in batches for start in batch.starts}) == 3  # of 12 frames, 4 in steps of 3: 0, 1, 2
    assert one.clips("validation").clips == 2 * FRAMES // 4  # what is measured stays whole
    assert len(prepared(material, batch=2).clips("train", epoch=1)) == 50 // 12 * 12  # few clips are repeated
    assert len(prepared(material, batch=2, epochs=3).clips("train", epoch=1)) == 12


def test_training_clips_are_varied_and_others_are_not(material: tuple[Path, Path]) -> None:
    plain, varied = prepared(material), prepared(material, brightness=0.5, flip=True, seed=3, validation=0.2)
    same = prepared(material, seed=3)

    def frames(source: Any) -> np.ndarray:
        return np.concatenate([batch.frames for batch in source])

    assert (frames(varied.clips("train")) != frames(same.clips("train"))).mean() > 0.5
    np.testing.assert_array_equal(frames(varied.clips("validation")), frames(same.clips("validation")))
    assert frames(plain.clips("train")).shape == frames(varied.clips("train")).shape


def test_streams_without_a_split_are_all_measured(material: tuple[Path, Path], tmp_path: Path) -> None:
    for number in range(3):
        write_small_video(tmp_path / f"{number}.avi", light=True, seed=90 + number)
    assert len(prepared(material, streams=str(tmp_path)).streams.select("validation")) == 3


def test_streams_may_not_hold_what_is_trained_on(material: tuple[Path, Path], tmp_path: Path) -> None:
    (trained, *_) = prepared(material).data.select("train")
    shutil.copy(trained.path, tmp_path / "copy.avi")
    write_small_video(tmp_path / "other.avi", light=True, seed=99)
    with pytest.raises(DeltafineError, match=r"(copies|a copy) of the same content .*copy\.avi"):
        prepared(material, streams=str(tmp_path))
    with pytest.raises(DeltafineError, match="both in the training and in the validation"):
        prepared(material, streams=str(material[1]))


def test_bad_streams_are_found_before_the_training(material: tuple[Path, Path], tmp_path: Path) -> None:
    write_small_video(tmp_path / "good.avi", light=True, seed=99)
    (tmp_path / "bad.avi").write_bytes(b"nothing")
    with pytest.raises(DeltafineError, match=r"1 of 2 videos in .* more than the 0 allowed \(bad\.avi cannot"):
        prepared(material, streams=str(tmp_path))
    assert prepared(material, streams=str(tmp_path), max_bad_videos=1).streams.problems
