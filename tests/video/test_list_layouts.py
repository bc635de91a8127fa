"""Layouts that list their videos: HMDB51, Kinetics, manifests and HDF5."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from deltafine.errors import DeltafineError, DeltafineWarning
from deltafine.video import open_dataset, open_for_frames
from tests.video.painted import SIZE, numbers_of, paint, write_classes, write_video


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_classes(tmp_path / "data", {"run": 2, "walk": 2})


def write_manifest(root: Path, rows: list[dict[str, Any]], name: str = "manifest.csv") -> Path:
    path = root / name
    if name.endswith(".jsonl"):
        path.write_text("\n".join(json.dumps(row) for row in rows))
    else:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        lines = [",".join(str(row.get(column, "")) for column in columns) for row in rows]
        path.write_text("\n".join([",".join(columns), *lines]))
    return path


@pytest.mark.parametrize("folder", [".", "testTrainMulti_7030_splits"])
def test_hmdb51_takes_the_use_of_each_video_from_its_lists(root: Path, folder: str) -> None:
    lists = root / folder
    lists.mkdir(exist_ok=True)
    (lists / "run_test_split1.txt").write_text("v0.avi 1 \nv1.avi 2 \n")
    (lists / "walk_test_split1.txt").write_text("v0.avi 0 \nv1.avi 1 \n")
    data = open_dataset(root)
    assert data.summary() == "HMDB51 layout, split 1: 3 videos, 2 classes, 2 train / 1 validation"
    assert [(video.name, video.label) for video in data.select("train")] == [("run/v0.avi", 0), ("walk/v1.avi", 1)]
    with pytest.raises(DeltafineError, match="no lists for split 3: choose one of 1"):
        open_dataset(root, split=3)


def test_hmdb51_lists_missing_videos_and_refuses_odd_lines(root: Path) -> None:
    (root / "run_test_split1.txt").write_text("v0.avi 1\nv9.avi 2\n")
    data = open_dataset(root)
    assert [(problem.video, problem.reason) for problem in data.problems] == [
        ("run/v9.avi", "is listed in run_test_split1.txt but not there")
    ]
    data.check(1)
    with pytest.raises(DeltafineError, match=r"1 of 2 videos .* 0 allowed"):
        data.check(0)
    (root / "run_test_split1.txt").write_text("v0.avi 7\n")
    with pytest.raises(DeltafineError, match=r"has the line 'v0.avi 7'"):
        open_dataset(root)


def test_kinetics_finds_files_by_id_and_time_and_lists_the_missing(tmp_path: Path) -> None:
    write_video(tmp_path / "train/riding a bike/abc_000002_000012.avi")
    write_video(tmp_path / "val/x-Y_z.avi", first=50)
    head = "label,youtube_id,time_start,time_end,split\n"
    (tmp_path / "train.csv").write_text(head + "riding a bike,abc,2,12,train\nabseiling,gone,5,15,train\n")
    (tmp_path / "validate.csv").write_text(head + '"abseiling, slowly",x-Y_z,0,10,validate\n')
    data = open_dataset(tmp_path)
    assert data.summary() == "Kinetics layout: 2 videos, 2 classes, 1 train / 1 validation"
    assert data.classes == ("abseiling, slowly", "riding a bike")
    (problem,) = data.problems
    assert (problem.video, problem.kind) == ("gone_000005_000015", "missing")
    data.check(0)  # a copy of Kinetics is never complete
    shutil.rmtree(tmp_path / "train")
    shutil.rmtree(tmp_path / "val")
    with pytest.raises(DeltafineError, match="None of the 3 videos"):
        open_dataset(tmp_path, layout="kinetics")


@pytest.mark.parametrize("name", ["manifest.csv", "manifest.jsonl", "anything.csv"])
def test_a_manifest_gives_labels_and_splits(root: Path, name: str) -> None:
    rows = [
        {"path": "run/v0.avi", "label": "fast", "split": "train"},
        {"path": "walk/v0.avi", "label": "slow", "split": "train"},
        {"path": "walk/v1.avi", "label": "slow", "split": "test"},
    ]
    path = write_manifest(root, rows, name)
    data = open_dataset(path if name == "anything.csv" else root)
    assert data.summary() == f"manifest {name}: 3 videos, 2 classes, 2 train / 1 validation"
    assert [video.label for video in data.videos] == [0, 1, 1]


def test_targets_number_the_classes(root: Path) -> None:
    rows = [{"path": "run/v0.avi", "target": 2, "label": "run"}, {"path": "walk/v0.avi", "target": 0}]
    write_manifest(root, rows)
    data = open_dataset(root)
    assert data.classes == ("0", "1", "run")
    assert [video.label for video in data.videos] == [2, 0]


def test_segments_of_a_file_start_and_end_at_their_seconds(tmp_path: Path) -> None:
    write_video(tmp_path / "long.avi", 100)
    rows = [
        {"path": "long.avi", "start": 0.4, "end": 0.8, "split": "train"},
        {"path": "long.avi", "start": 3.6, "split": "train"},
        {"path": "long.avi", "start": 9, "split": "train"},
    ]
    write_manifest(tmp_path, rows)
    data = open_dataset(tmp_path)
    assert [video.name for video in data.videos] == ["long.avi [0.4-0.8 s]", "long.avi [3.6- s]", "long.avi [9- s]"]
    for cached in (False, True):
        if cached:
            data.use_cache(tmp_path / "cache")
        (batch,) = data.clips("train", size=SIZE, frames=10)
        assert [numbers_of(clip) for clip in batch.frames] == [list(range(10, 20)), list(range(90, 100))]
        assert batch.starts.tolist() == [10, 90]
        streams = {video.name: [*stream] for video, stream in data.streams("train", size=SIZE)}
        assert [len(chunks) for chunks in streams.values()] == [1, 1, 0]
    assert [(problem.video, problem.reason) for problem in data.problems] == [
        ("long.avi [9- s]", "begins at 9 s, and its file ends at 4 s")
    ]


def test_segments_of_a_file_may_be_given_in_frames(tmp_path: Path) -> None:
    write_video(tmp_path / "long.avi", 100)
    rows = [
        {"path": "long.avi", "start_frame": 10, "end_frame": 20, "split": "train"},
        {"path": "long.avi", "start_frame": 90, "split": "train"},
        {"path": "long.avi", "end_frame": 10, "split": "validation"},
    ]
    write_manifest(tmp_path, rows)
    data = open_dataset(tmp_path)
    assert [video.name for video in data.videos] == [
        f"long.avi [frames {frames}]" for frames in ("10-19", "90-", "0-9")
    ]
    for cached in (False, True):
        if cached:
            data.use_cache(tmp_path / "cache")
        (batch,) = data.clips("train", size=SIZE, frames=10)
        assert [numbers_of(clip) for clip in batch.frames] == [list(range(10, 20)), list(range(90, 100))]
        (batch,) = data.clips("validation", size=SIZE, frames=10)
        assert [numbers_of(clip) for clip in batch.frames] == [list(range(10))]
    (batch,) = data.clips("train", size=SIZE, frames=5, fps=12.5)
    assert [numbers_of(clip) for clip in batch.frames] == [list(range(10, 20, 2)), list(range(90, 100, 2))]


def test_segments_beyond_the_end_of_their_file_are_listed(tmp_path: Path) -> None:
    write_video(tmp_path / "long.avi", 100)
    rows = [
        {"path": "long.avi", "start": 3, "end": 9},
        {"path": "long.avi", "start": 3, "end": 4.05},
        {"path": "long.avi", "start": 4, "end": 5},
        {"path": "long.avi", "start_frame": 90, "end_frame": 101},
        {"path": "long.avi", "start_frame": 100},
    ]
    for row in rows:
        row["split"] = "train"
    write_manifest(tmp_path, rows)
    data = open_dataset(tmp_path)
    assert [(problem.video, problem.reason, problem.kind) for problem in data.scan()] == [
        ("long.avi [3-9 s]", "is used up to the end of its file at 4 s, and not to 9 s", "cut"),
        ("long.avi [4-5 s]", "begins at 4 s, and its file ends at 4 s", "unreadable"),
        (
            "long.avi [frames 90-100]",
            "is used up to the end of its file at frame 100, and not to frame 101",
            "cut",
        ),
        ("long.avi [frames 100-]", "begins at frame 100, and its file ends at frame 100", "unreadable"),
    ]
    with pytest.raises(DeltafineError, match="2 of 5 videos"):
        data.check(1)


def test_one_video_may_be_split_in_time_and_its_segments_are_never_drawn_apart(tmp_path: Path) -> None:
    write_video(tmp_path / "long.avi", 100)
    write_video(tmp_path / "other.avi", 50, first=30)
    rows: list[dict[str, Any]] = [{"path": "long.avi", "start": k, "end": k + 1} for k in range(3)]
    write_manifest(tmp_path, [{**row, "split": ["train", "val", "test"][row["start"]]} for row in rows])
    data = open_dataset(tmp_path)
    assert [video.split for video in data.videos] == ["train", "validation", "test"]
    assert data.notes == ("Segments of long.avi are in several splits: the figures say little about other videos.",)
    write_manifest(tmp_path, [*rows, {"path": "other.avi"}])
    for seed in range(5):
        data = open_dataset(tmp_path, seed=seed, validation=0.5)
        assert len({video.split for video in data.videos[:3]}) == 1


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        (
            [{"start": 0, "end": 2}, {"start": 1.5}],
            r"1 video is both in the training and in the validation list \(long",
        ),
        ([{}, {"start": 3}], "both in the training and in the validation list"),
        ([{"start_frame": 5}, {"end_frame": 6}], "both in the training and in the validation list"),
        ([{"start_frame": 5}, {"end": 0.1}], "given in seconds and in frames, in different splits"),
    ],
)
def test_the_same_pictures_in_two_splits_are_refused(
    tmp_path: Path, segments: list[dict[str, Any]], message: str
) -> None:
    write_video(tmp_path / "long.avi", 100)
    write_manifest(
        tmp_path,
        [{"path": "long.avi", **one, "split": split} for one, split in zip(segments, ("train", "val"), strict=True)],
    )
    with pytest.raises(DeltafineError, match=message):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("header", "separator"),
    [
        ("file,class", ","),
        ("FileName;Label", ";"),
        ("File Name\tTAG", "\t"),
        ("file_name,labels", ","),
        ("video,label", ","),
        ("Video-Path;class", ";"),
        ("name,tag", ","),
        ("clip\tlabel", "\t"),
        ("filepath,Labels", ","),
    ],
)
def test_the_columns_of_a_manifest_may_be_called_as_people_call_them(root: Path, header: str, separator: str) -> None:
    lines = [header, *(separator.join((f"{name}/v0.avi", name)) for name in ("run", "walk"))]
    (root / "manifest.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    data = open_dataset(root)
    assert data.classes == ("run", "walk")
    assert {video.name: video.label for video in data.videos} == {"run/v0.avi": 0, "walk/v0.avi": 1}
    assert data.notes == ()


def test_columns_of_a_manifest_that_are_not_used_are_named(root: Path) -> None:
    rows = [{"path": "run/v0.avi", "name": "a run", "Frame Rate": 25, "label": "run"}]
    for name in ("manifest.csv", "manifest.jsonl"):
        write_manifest(root, rows, name)
        assert open_dataset(root / name).notes == (f"{name} has the columns 'name', 'frame_rate', which are not used.",)


@pytest.mark.parametrize(
    "segments",
    [
        [{"label": "a"}, {"label": "b"}],
        [{"label": "a", "start": 1, "end": 2}, {"label": "b", "start": 1, "end": 2}],
        [{"label": "a"}, {"label": "b", "start_frame": 3, "end_frame": 5}],
        [{"target": 0}, {"target": 1}],
    ],
)
def test_one_video_with_two_labels_is_refused(root: Path, segments: list[dict[str, Any]]) -> None:
    write_manifest(root, [{"path": "run/v0.avi", **segment} for segment in segments])
    with pytest.raises(DeltafineError, match=r"labels run/v0.*in line 2, and run/v0.*line 3: what is shown"):
        open_dataset(root)


def test_segments_that_overlap_a_little_may_differ_in_their_labels(root: Path) -> None:
    segments = [{"label": "a", "end": 0.4}, {"label": "b", "start": 0.2}]
    write_manifest(root, [{"path": "run/v0.avi", **segment} for segment in segments])
    assert len(open_dataset(root).videos) == 2


def test_absolute_paths_inside_the_data_folder_are_accepted(root: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(root)
    write_manifest(root, [{"path": f"{root}/run/v0.avi"}, {"path": f"{root}/walk/../run/v1.avi"}])
    assert [video.name for video in open_dataset(root).videos] == ["run/v0.avi", "run/v1.avi"]
    assert [video.name for video in open_dataset(tmp_path / "linked").videos] == ["run/v0.avi", "run/v1.avi"]
    write_manifest(root, [{"path": f"{root}/../outside.avi"}])
    with pytest.raises(DeltafineError, match="outside the data folder"):
        open_dataset(root)


def test_more_cells_than_columns_are_refused(root: Path) -> None:
    (root / "manifest.csv").write_text("path,label\nrun/v0.avi,run,fast\n")
    with pytest.raises(DeltafineError, match="line 2, has 3 cells where the first line has 2"):
        open_dataset(root)


def test_labels_that_are_whole_numbers_are_sorted_as_numbers_and_that_is_said(root: Path) -> None:
    rows = [
        {"path": "run/v0.avi", "label": 10},
        {"path": "run/v1.avi", "label": 2},
        {"path": "walk/v0.avi", "label": 0},
    ]
    write_manifest(root, rows)
    data = open_dataset(root)
    assert data.classes == ("0", "2", "10")
    assert "classes are in the order of these numbers" in data.notes[0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"path": "run/v9.avi"}, "of which 1 are not"),
        ({"path": "../x.avi"}, "outside the data folder"),
        ({"path": "C:\\x.avi"}, "outside the data folder"),
        ({"path": "run/v0.avi", "start": "soon"}, "start 'soon': use seconds"),
        ({"path": "run/v0.avi", "end": "nan"}, "end 'nan': use seconds"),
        ({"path": "run/v0.avi", "start": 3, "end": 2}, "ends at 2 s, before it starts"),
        ({"path": "run/v0.avi", "start_frame": 3, "end_frame": 3}, "ends at frame 3, before it starts"),
        ({"path": "run/v0.avi", "start_frame": 1.5}, "start_frame '1.5': use the number of a frame"),
        ({"path": "run/v0.avi", "start": 1, "end_frame": 30}, "in seconds and in frames: give one"),
        ({"path": "run/v0.avi", "split": "holdout"}, "split 'holdout': use train, validation or test"),
        ({"path": "run/v0.avi", "target": "-1"}, "target '-1'"),
        ({"label": "x"}, "path"),
    ],
)
@pytest.mark.parametrize("name", ["manifest.csv", "manifest.jsonl"])
def test_a_broken_manifest_says_where(root: Path, name: str, row: dict[str, Any], message: str) -> None:
    write_manifest(root, [row], name)
    with pytest.raises(DeltafineError, match=message) as caught:
        open_dataset(root)
    assert name in str(caught.value)


def test_a_manifest_splits_all_or_none_and_names_targets_once(root: Path) -> None:
    write_manifest(root, [{"path": "run/v0.avi", "split": "train"}, {"path": "run/v1.avi"}])
    with pytest.raises(DeltafineError, match="line 3, has no split, but other lines have"):
        open_dataset(root)
    write_manifest(root, [{"path": f"run/v{k}.avi", "target": 0, "label": "ab"[k]} for k in (0, 1)])
    with pytest.raises(DeltafineError, match="calls target 0 'b', which was 'a'"):
        open_dataset(root)
    (root / "manifest.csv").unlink()
    (root / "manifest.jsonl").write_text('{"path": "run/v0.avi"}\n{oops\n')
    with pytest.raises(DeltafineError, match="line 2, is not JSON"):
        open_dataset(root)


def test_files_outside_can_be_allowed(root: Path) -> None:
    inner = root / "lists"
    inner.mkdir()
    path = write_manifest(inner, [{"path": "../run/v0.avi"}, {"path": str(root / "walk/v0.avi")}])
    assert len(open_dataset(path, allow_outside=True).videos) == 2


def test_hdf5_rows_are_videos(tmp_path: Path) -> None:
    frames = np.stack([[paint(10 * row + k) for k in range(6)] for row in range(3)])
    with h5py.File(tmp_path / "set.h5", "w") as file:
        file.create_dataset("frames", data=frames, compression="gzip")
        file["labels"] = [0, 1, 0]
        file["classes"] = ["a", "b"]
        file["splits"] = ["train", "train", "test"]
    for path in (tmp_path, tmp_path / "set.h5"):
        data = open_dataset(path)
        assert data.summary() == "HDF5: 3 videos, 2 classes, 2 train / 1 validation"
        (batch,) = data.clips("train", size=SIZE, frames=3, frame_stride=2)
        starts = [numbers_of(clip) for clip in batch.frames]
        assert starts == [[0, 2, 4], [1, 3, 5], [10, 12, 14], [11, 13, 15]]
        assert batch.labels.tolist() == [0, 0, 1, 1]
    half = next(iter(data.clips("train", size=(16, 32), channels=1, frames=2)))
    assert numbers_of(half.frames[0]) == [0, 1]


def test_hdf5_groups_may_differ_in_length_and_label_their_frames(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "set.hdf5", "w") as file:
        for number in range(2):
            group = file.create_group(f"videos/v{number}")
            group["frames"] = np.stack([paint(k) for k in range(4 + number)])
            group["labels"] = [0, 0, 1, 1, 1][: 4 + number]
        file["classes"] = ["calm", "wild"]
    data = open_dataset(tmp_path / "set.hdf5", validation=1)
    (batch,) = data.clips("validation", size=SIZE, frames=4)
    assert batch.frame_labels is not None
    assert batch.frame_labels.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [0, 1, 1, 1]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"other": np.zeros(3)}, "holds neither frames"),
        ({"frames": np.zeros((2, 3, 4, 4, 3), np.uint8), "labels": np.zeros(5)}, "as many labels"),
        (
            {"frames": np.zeros((1, 3, 4, 4, 3), np.uint8), "labels": [4], "classes": ["a"]},
            "label 4, but names only 1 of the classes 0 to 4",
        ),
    ],
)
def test_broken_hdf5_says_what_is_wrong(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    with h5py.File(tmp_path / "set.h5", "w") as file:
        for name, value in content.items():
            file[name] = value
    with pytest.raises(DeltafineError, match=message):
        open_dataset(tmp_path / "set.h5")


def test_hdf5_of_the_wrong_kind_or_torn_is_refused(tmp_path: Path) -> None:
    (tmp_path / "torn.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(DeltafineError, match="is not a sound HDF5 file"):
        open_dataset(tmp_path / "torn.h5")
    with h5py.File(tmp_path / "floats.h5", "w") as file:
        file["frames"] = np.zeros((2, 3, 4, 4, 3), np.float32)
    data = open_dataset(tmp_path / "floats.h5", validation=0)
    with pytest.raises(DeltafineError, match=r"holds float32 of shape \(3, 4, 4, 3\) where uint8"):
        data.clips("train", size=SIZE, frames=2)


def test_clips_of_one_recording_stay_on_one_side(tmp_path: Path) -> None:
    for group in range(4):
        for clip in range(3):
            path = tmp_path / f"run/v_run_g{group:02d}_c{clip:02d}.avi"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(f"{group} {clip}".encode())
    for seed in range(5):
        data = open_dataset(tmp_path, validation=0.5, seed=seed)
        sides: dict[str, set[str]] = {}
        for video in data.videos:
            sides.setdefault(video.name[:13], set()).add(video.split)
        assert len(sides) == 4
        assert all(len(side) == 1 for side in sides.values())
        assert len(data.select("validation")) == 6


def test_where_labels_do_not_matter_a_list_that_contradicts_itself_is_named_and_left(tmp_path: Path) -> None:
    for name in ("1.mp4", "2.mp4"):
        write_video(tmp_path / name, 3)
    (tmp_path / "train.csv").write_text("video_name,tag\n1.mp4,a\n1.mp4,b\n")
    (tmp_path / "test.csv").write_text("video_name,tag\n2.mp4,a\n")
    with pytest.warns(DeltafineWarning, match=r"^All videos are used, without labels and splits: .*line 3, labels 1"):
        data = open_for_frames(tmp_path)
    assert [video.name for video in data.videos] == ["1.mp4", "2.mp4"]
