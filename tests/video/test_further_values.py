"""Numbers that belong to frames: each frame comes with its own, however clips and streams are taken."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deltafine.errors import DeltafineError
from deltafine.video import Augmentation, Dataset, open_dataset
from deltafine.video.further_values import Wanted, given_values, lines_for, packed, unpacked, values_for, wanted_of
from tests.video.painted import SIZE, numbers_of, write_video

VIDEOS, FRAMES = 4, 24
SPEED = (Wanted("speed", "speed"),)


def speed_of(number: int) -> float:
    """What the list says of the frame with this number painted into it; no two frames have the same."""
    return float(np.float32(1.5 * number - 7))


def write_list(folder: Path, rows: Sequence[Sequence[Any]], name: str = "labels.csv") -> None:
    with (folder / name).open("w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos with the numbers 0 to 95 painted into their frames, and a speed for each frame."""
    root = tmp_path_factory.mktemp("videos")
    rows: list[list[Any]] = [["video", "frame", "label", "split", "Speed"]]
    for video in range(VIDEOS):
        write_video(root / f"{video}.avi", FRAMES, first=FRAMES * video)
        rows += [
            [f"{video}.avi", frame, "ab"[frame % 2], "train", speed_of(FRAMES * video + frame)]
            for frame in range(FRAMES)
        ]
    write_list(root, rows)
    return root


@pytest.fixture
def data(folder: Path) -> Dataset:
    found = open_dataset(folder)
    found.give_further(values_for(SPEED, found.columns, {}, str(folder)))
    return found


def require_own_numbers(frames: np.ndarray) -> None:
    """Each picture (n, height + lines, width, channels) has the speed of the number that is painted into it."""
    pictures, speeds = unpacked(frames, SIZE[0], 1)
    assert [speed_of(number) for number in numbers_of(pictures)] == speeds[:, 0].tolist()


@pytest.mark.parametrize(
    "how",
    [
        {"clip_stride": 3},
        {"frame_stride": 3},
        {"fps": 10.0},
        {"fps": 7.0, "frame_stride": 2},
        {"clips_per_video": 3, "sampling": "random", "epoch": 2},
        {"continued": True, "epoch": 1, "batch": 3},
        {"start_batch": 2, "clip_stride": 2},
        {"shard": (1, 2), "clip_stride": 2},
        {"passes": 2, "epoch": 1},
    ],
)
@pytest.mark.parametrize("cached", [False, True])
def test_every_frame_of_a_clip_has_its_own_number(how: dict[str, Any], cached: bool, data: Dataset, tmp_path) -> None:
    if cached:
        data.use_cache(tmp_path / "frames")
    settings: dict[str, Any] = {"frames": 4, "size": SIZE, "batch": 2, "shuffle": True, "seed": 3, **how}
    seen = 0
    for batch in data.clips("train", **settings):
        assert batch.frames.dtype == np.uint8
        for clip in batch.frames:
            require_own_numbers(clip)
            seen += 1
    assert seen > 2


def test_a_mirrored_clip_keeps_its_numbers(data: Dataset) -> None:
    clips = data.clips("train", frames=4, size=SIZE, augmentation=Augmentation(flip=True, brightness=0.1), seed=1)
    for batch in clips:
        for clip, mirrored in zip(batch.frames, batch.mirrored, strict=True):
            pictures, speeds = unpacked(clip, SIZE[0], 1)
            shown = pictures[:, :, ::-1] if mirrored else pictures
            assert [speed_of(number) for number in numbers_of(shown)] == speeds[:, 0].tolist()


@pytest.mark.parametrize("how", [{}, {"fps": 10.0}, {"frame_stride": 3}, {"seed": 5}, {"continued": True}])
def test_every_frame_of_a_stream_has_its_own_number(how: dict[str, Any], data: Dataset) -> None:
    streams = list(data.streams("train", size=SIZE, chunk=5, **how))
    assert len(streams) == VIDEOS
    for _, pieces in streams:
        for frames, labels in pieces:
            require_own_numbers(frames)
            assert len(labels) == len(frames)


def test_the_same_batches_as_a_tensorflow_dataset_have_the_numbers(data: Dataset) -> None:
    for frames, _ in data.clips("train", frames=3, size=SIZE).as_tf_dataset():
        for clip in frames.numpy():
            require_own_numbers(clip)


def test_pieces_of_one_file_that_are_joined_keep_the_number_of_each(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", FRAMES)
    header = ["path", "start_frame", "end_frame", "label", "split", "gear"]
    pieces = [["a.avi", 0, 10, "x", "validation", 1], ["a.avi", 10, 24, "x", "validation", 4]]
    write_list(tmp_path, [header, *pieces], "manifest.csv")
    found = open_dataset(tmp_path)
    found.give_further(values_for((Wanted("gear", "gear", whole=True),), found.columns, {}, ""))
    ((_, stream),) = found.streams(None, size=SIZE, whole=True)
    frames = np.concatenate([frames for frames, _ in stream])
    pictures, gears = unpacked(frames, SIZE[0], 1)
    assert numbers_of(pictures) == list(range(FRAMES))
    assert gears[:, 0].tolist() == [1.0] * 10 + [4.0] * 14


def test_a_frame_without_a_number_is_refused_by_name(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", 6)
    write_list(tmp_path, [["video", "frame", "speed"], *[["a.avi", frame, 1] for frame in (0, 1, 2, 4, 5)]])
    found = open_dataset(tmp_path)
    found.give_further(values_for(SPEED, found.columns, {}, ""))
    found.scan()
    with pytest.raises(DeltafineError, match=r"labels.csv has nothing in the column 'speed' for frame 3 of a.avi"):
        found.require_further("validation", None)
    with pytest.raises(DeltafineError, match=r"frame 3 of a\.avi"):
        list(found.clips("validation", frames=6, size=SIZE))
    found.require_further("validation", 25 / 2)  # frame 3 is not taken


def test_a_row_without_a_frame_is_for_all_frames_of_a_video(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", 6)
    write_list(tmp_path, [["video", "frame", "speed"], ["a.avi", "", 2.5], ["a.avi", 4, 9]])
    found = open_dataset(tmp_path)
    found.give_further(values_for(SPEED, found.columns, {}, ""))
    ((_, stream),) = found.streams(None, size=SIZE)
    _, speeds = unpacked(np.concatenate([frames for frames, _ in stream]), SIZE[0], 1)
    assert speeds[:, 0].tolist() == [2.5, 2.5, 2.5, 2.5, 9.0, 2.5]


@pytest.mark.parametrize(
    ("cell", "wanted", "words"),
    [
        ("fast", Wanted("speed", "speed"), "has 'fast', which is no number"),
        ("nan", Wanted("speed", "speed"), "is no finite number"),
        ("1e60", Wanted("speed", "speed"), "is no finite number"),
        ("1.5", Wanted("speed", "speed", whole=True), "is no whole number"),
        ("3", Wanted("speed", "speed", whole=True, most=3), "is not from 0 to 2"),
        ("-1", Wanted("speed", "speed", whole=True, most=3), "is not from 0 to 2"),
        ("1", Wanted("pace", "pace"), "and here has the columns 'speed'"),
        ("1", Wanted("pace", "pace"), "or give --input pace=VALUE"),
    ],
)
def test_columns_that_are_not_what_a_model_takes_are_refused(
    cell: str, wanted: Wanted, words: str, tmp_path: Path
) -> None:
    write_video(tmp_path / "a.avi", 4)
    write_list(tmp_path, [["video", "frame", "speed"], ["a.avi", "", 1], ["a.avi", 1, cell]])
    with pytest.raises(DeltafineError) as refusal:
        values_for((wanted,), open_dataset(tmp_path).columns, {}, "here")
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("speed", "cannot be read"),
        ("speed=fast", "cannot be read"),
        ("pace=1", "The model has no input 'pace' to give 1 to: beside its frames it takes 'speed', 'goal'"),
        ("speed=1,2", "takes 1 number for a frame, not 2"),
        ("goal=1", "takes 2 numbers for a frame, not 1: give --input goal=VALUE,VALUE"),
        ("speed=inf", "is no finite number"),
    ],
)
def test_constants_that_are_not_what_a_model_takes_are_refused(text: str, words: str) -> None:
    with pytest.raises(DeltafineError) as refusal:
        given_values([text], [*wanted_of("speed", 1), *wanted_of("goal", 2)])
    assert words in str(refusal.value)


def test_constants_go_before_columns(folder: Path) -> None:
    wanted = [*wanted_of("speed", 1), *wanted_of("goal", 2)]
    given = given_values(["goal=3,-1.25"], wanted)
    found = open_dataset(folder)
    found.give_further(values_for(wanted, found.columns, given, ""))
    _, stream = next(iter(found.streams("train", size=SIZE)))
    _, numbers = unpacked(next(iter(stream))[0], SIZE[0], 3)
    assert numbers[:, 0].tolist() == [speed_of(number) for number in range(FRAMES)]
    assert (numbers[:, 1:] == [3, -1.25]).all()
    alone = values_for(wanted_of("speed", 1), None, {"speed": [2.0]}, "")
    assert alone is not None
    assert alone.constant
    assert alone.at(found.videos[0], np.array([0, 100])).tolist() == [[2.0], [2.0]]


def test_a_list_with_other_numbers_is_another_data_set(folder: Path, data: Dataset) -> None:
    bare, other = open_dataset(folder), open_dataset(folder)
    other.give_further(values_for(SPEED, None, {"speed": [1.0]}, ""))
    assert len({one.fingerprint() for one in (bare, data, other)}) == 3


@pytest.mark.parametrize("shape", [(5, 7, 3), (2, 3, 4, 1, 1), (4, 6, 6, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_what_is_packed_is_found_again_to_the_bit(shape: tuple[int, ...], dtype: Any) -> None:
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, shape).astype(dtype)
    values = random.normal(size=(*shape[:-3], 5)).astype(np.float32) * 1e6
    whole = packed(frames, values)
    assert whole.dtype == dtype
    assert whole.shape[-3] == shape[-3] + lines_for(5, shape[-2] * shape[-1])
    pictures, found = unpacked(whole, shape[-3], 5)
    np.testing.assert_array_equal(pictures, frames)
    np.testing.assert_array_equal(found, values)
