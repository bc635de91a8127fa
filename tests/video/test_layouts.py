"""What is found below a path, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from deltafine.errors import DeltafineError
from deltafine.video import open_dataset
from deltafine.video.layouts import LAYOUTS
from tests.video.painted import write_classes, write_video


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    return write_classes(tmp_path / "data", {"walk": 5, "run": 5})


@pytest.fixture
def ucf(tmp_path: Path) -> Path:
    root = write_classes(tmp_path / "ucf", {"walk": 2, "run": 2})
    (root / "classInd.txt").write_text("1 walk\n2 run\n")
    (root / "trainlist01.txt").write_text("walk/v0.avi 1\nrun/v0.avi 2\n")
    (root / "testlist01.txt").write_text("walk/v1.avi\nrun/v1.avi\n")
    return root


def labels(data: object) -> dict[str, int | None]:
    return {video.name: video.label for video in data.videos}  # type: ignore[attr-defined]


def test_folders_are_classes_sorted_by_name(folders: Path) -> None:
    data = open_dataset(folders)
    assert data.classes == ("run", "walk")
    assert labels(data)["walk/v3.avi"] == 1
    assert data.summary() == "folder per class: 10 videos, 2 classes, 8 train / 2 validation"


def test_the_split_is_stratified_and_repeats_with_its_seed(folders: Path) -> None:
    data = open_dataset(folders, validation=0.4, seed=3)
    assert sorted(video.label for video in data.select("validation")) == [0, 0, 1, 1]  # type: ignore[type-var]
    again = open_dataset(folders, validation=0.4, seed=3)
    assert [v.split for v in data.videos] == [v.split for v in again.videos]
    splits = {tuple(v.split for v in open_dataset(folders, validation=0.4, seed=s).videos) for s in range(8)}
    assert len(splits) > 1


def test_a_drawn_split_keeps_copies_of_a_file_together(folders: Path) -> None:
    for number in range(4):
        shutil.copy(folders / "walk/v0.avi", folders / f"walk/copy{number}.avi")
    for seed in range(8):
        data = open_dataset(folders, validation=0.5, seed=seed)
        sides = {v.split for v in data.videos if "copy" in v.name or v.name == "walk/v0.avi"}
        assert len(sides) == 1


def test_folders_named_train_and_test_are_the_split(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", {"a": 2, "b": 1})
    write_video(tmp_path / "test/a/x.avi", first=100)
    data = open_dataset(tmp_path)
    assert data.classes == ("a", "b")
    assert [v.name for v in data.select("validation")] == ["test/a/x.avi"]
    assert len(data.select("train")) == 3


def test_chosen_classes_give_the_order_and_leave_the_rest_out(folders: Path) -> None:
    data = open_dataset(folders, classes=["walk"])
    assert data.classes == ("walk",)
    assert set(labels(data).values()) == {0}
    assert open_dataset(folders, classes=["walk", "run"]).classes == ("walk", "run")


def test_an_unknown_class_names_the_nearest(folders: Path) -> None:
    with pytest.raises(DeltafineError, match=r"no class 'wolk'.*walk"):
        open_dataset(folders, classes=["wolk"])


@pytest.mark.parametrize("lists", [".", "splits", "ucfTrainTestlist"])
@pytest.mark.parametrize("videos", [".", "videos", "UCF-101"])
def test_ucf101_numbers_classes_by_its_list(tmp_path: Path, lists: str, videos: str) -> None:
    for name in ("walk/v0.avi", "run/v0.avi", "run/v1.avi"):
        path = tmp_path / videos / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())  # listing does not look inside
    where = tmp_path / lists
    where.mkdir(exist_ok=True)
    (where / "classInd.txt").write_text("1 walk\n2 run\n")
    (where / "trainlist02.txt").write_text("walk/v0.avi 1\nrun/v0.avi 2\n")
    (where / "testlist02.txt").write_text("run/v1.avi\r\n")
    data = open_dataset(tmp_path, split=2)
    assert data.classes == ("walk", "run")
    assert data.summary() == "UCF101 layout, split 2: 3 videos, 2 classes, 2 train / 1 validation"
    assert [v.label for v in data.select("validation")] == [1]
    with pytest.raises(DeltafineError, match="split 1: choose one of 2"):
        open_dataset(tmp_path)


def test_files_that_a_list_names_and_that_are_missing_count_as_bad_videos(ucf: Path) -> None:
    (ucf / "testlist01.txt").write_text("walk/v1.avi\nwalk/gone.avi\nrun/lost.avi\n")
    data = open_dataset(ucf)
    missing = [(problem.video, problem.reason) for problem in data.problems]
    why = "is listed in testlist01.txt but not there"
    assert missing == [("walk/gone.avi", why), ("run/lost.avi", why)]
    with pytest.raises(DeltafineError, match=r"2 of 3 videos .* 1 allowed \(walk/gone.avi is listed in testlist01.txt"):
        data.check(1, split="validation")
    data.check(0, split="train")
    data.check(2)
    assert len(data.scan()) == 2


def test_a_list_of_which_no_file_is_there_is_refused(ucf: Path) -> None:
    (ucf / "testlist01.txt").write_text("walk/gone.avi\nrun/lost.avi\n")
    with pytest.raises(DeltafineError, match=r"2 videos of which 2 are not .*walk/gone.avi, run/lost.avi"):
        open_dataset(ucf)


def test_one_file_in_both_lists_is_refused(ucf: Path) -> None:
    (ucf / "testlist01.txt").write_text("walk/v0.avi\n")
    with pytest.raises(DeltafineError, match=r"both in the training and in the validation list \(walk/v0.avi"):
        open_dataset(ucf)


def test_one_content_in_both_lists_is_refused(ucf: Path) -> None:
    shutil.copy(ucf / "walk/v0.avi", ucf / "walk/v1.avi")
    with pytest.raises(DeltafineError, match=r"walk/v0.avi = walk/v1.avi"):
        open_dataset(ucf)


@pytest.mark.parametrize("name", ["../walk/v0.avi", "walk/../../walk/v0.avi", "/walk/v0.avi"])
def test_a_list_cannot_lead_out_of_the_data_folder(ucf: Path, name: str) -> None:
    (ucf / "trainlist01.txt").write_text(f"{name} 1\n")
    with pytest.raises(DeltafineError, match="outside the data folder"):
        open_dataset(ucf)


def test_a_class_number_that_contradicts_the_class_list_is_refused(ucf: Path) -> None:
    (ucf / "trainlist01.txt").write_text("walk/v0.avi 2\n")
    with pytest.raises(DeltafineError, match=r"class number 2, but classInd.txt gives walk 1"):
        open_dataset(ucf)


def test_a_folder_of_videos_is_unlabelled_and_a_file_is_for_validation(folders: Path) -> None:
    data = open_dataset(folders / "walk")
    assert data.classes == ()
    assert labels(data)["v0.avi"] is None
    assert [v.name for v in open_dataset(folders / "walk/v0.avi").select("validation")] == ["v0.avi"]
    with pytest.raises(DeltafineError, match="have no labels"):
        open_dataset(folders / "walk", classes=["walk"])


def test_streams_have_a_label_per_frame_and_gaps_have_none(tmp_path: Path) -> None:
    write_video(tmp_path / "videos/long.avi", 12)
    rows = [f"long.avi,{frame},{'b' if frame < 5 else 'a'}" for frame in range(10) if frame != 2]
    (tmp_path / "labels.csv").write_text("\n".join(["video,frame,label", *rows]))
    data = open_dataset(tmp_path)
    assert data.classes == ("a", "b")
    assert data.videos[0].split == "validation"
    expected = [1, 1, -1, 1, 1, 0, 0, 0, 0, 0]
    np.testing.assert_array_equal(data.videos[0].frame_labels, expected)  # type: ignore[arg-type]
    np.testing.assert_array_equal(data.frame_labels(data.videos[0]), [*expected, -1, -1])


@pytest.mark.parametrize(
    "text",
    [
        "Video;Frame;Label;Split\nlong.avi;0;b;val\nlong.avi;3;a;val\n",
        "file_name\tframe_number\tclass\nlong.avi\t0\tb\n\nlong.avi\t3\ta\n",
    ],
)
def test_streams_may_call_their_columns_otherwise_and_separate_them_otherwise(tmp_path: Path, text: str) -> None:
    write_video(tmp_path / "long.avi", 4)
    (tmp_path / "labels.csv").write_text(text)
    data = open_dataset(tmp_path)
    assert data.classes == ("a", "b")
    np.testing.assert_array_equal(data.frame_labels(data.videos[0]), [1, -1, -1, 0])


def test_labels_beyond_the_end_of_a_stream_are_a_problem(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", 4)
    write_video(tmp_path / "b.avi", 4, first=9)
    (tmp_path / "labels.csv").write_text("video,frame,label\na.avi,4,x\nb.avi,3,x\n")
    data = open_dataset(tmp_path)
    (problem,) = data.scan()
    assert (problem.video, problem.reason) == ("a.avi", "has 4 frames, but frame 4 has a label")


def test_nothing_found_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DeltafineError, match="No videos were found"):
        open_dataset(tmp_path)
    with pytest.raises(DeltafineError, match="There is nothing at"):
        open_dataset(tmp_path / "absent")


def test_a_layout_can_be_named(folders: Path) -> None:
    assert open_dataset(folders, layout="unlabelled").classes == ()
    with pytest.raises(DeltafineError, match=r"no layout 'ucf'.*ucf101"):
        open_dataset(folders, layout="ucf")
    with pytest.raises(DeltafineError, match="in the layout 'ucf101'"):
        open_dataset(folders, layout="ucf101")


MANIFEST = "path,label,split,start,end\nrun/v0.avi,run,train,0,1.5\nwalk/v0.avi,walk,train,,\nwalk/v1.avi,walk,test,,\n"


@pytest.mark.parametrize(
    ("lists", "digest"),
    [
        ({}, "73e6c814db69b4d882607a5e2861f009-798d885e"),
        ({"manifest.csv": MANIFEST}, "edfc30b798c2b85598c7ab6b17b4eef0-798d885e"),
        ({"manifest.csv": "path,target\nrun/v0.avi,2\nwalk/v0.avi,0\n"}, "211b1ad5f5b8965728e401fc0edcd302-06023fdc"),
        (
            {
                "classInd.txt": "1 walk\n2 run\n",
                "trainlist01.txt": "walk/v0.avi 1\nrun/v0.avi 2\n",
                "testlist01.txt": "walk/v1.avi\nrun/v1.avi\n",
            },
            "4484ff4c57cf013e21c091c56d39eda1-a71f3966",
        ),
        (
            {"run_test_split1.txt": "v0.avi 1\nv1.avi 2\n", "walk_test_split1.txt": "v0.avi 2\nv1.avi 1\n"},
            "34b501a173b54030ec6245dfc173aaad-798d885e",
        ),
        (
            {"labels.csv": "video,frame,label\nrun/v0.avi,0,0.5\nrun/v0.avi,2,-1\nwalk/v1.avi,0,3\n"},
            "79fc2eb275aed36eab31de6088432edc-a908386b",
        ),
    ],
)
def test_what_was_opened_by_earlier_versions_is_the_same_data_so_that_runs_and_caches_go_on(
    lists: dict[str, str], digest: str, tmp_path: Path
) -> None:
    """Names, order, labels, splits and classes: all are in the digest."""
    for name in ("run", "walk"):
        (tmp_path / name).mkdir()
        for number in range(3):
            (tmp_path / name / f"v{number}.avi").write_bytes(f"{name} {number}".encode())
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
    assert open_dataset(tmp_path).fingerprint() == digest


def test_every_layout_has_the_name_that_it_is_registered_by() -> None:
    assert [layout.name for layout in LAYOUTS] == list(LAYOUTS.names)
    assert {layout.name for layout in LAYOUTS if layout.of_files} == {"manifest", "hdf5", "lists", "single"}
