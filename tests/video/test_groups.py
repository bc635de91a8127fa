"""The column that names the recording of a video, in all lists that may have it."""

from __future__ import annotations

from pathlib import Path

import pytest

from deltafine.errors import DeltafineError
from deltafine.video import open_dataset
from tests.video.painted import write_video

NAMES = ("a.avi", "b.avi", "c.avi", "d.avi", "e.avi", "f.avi")
GROUPS = dict(zip(NAMES, ("hall", "hall", "yard", "yard", "gate", "gate"), strict=True))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number, name in enumerate(NAMES):
        write_video(folder / name, 3, first=20 * number)
    return folder


def listed(videos: Path, folder: Path, name: str, header: str, rows: list[str]) -> Path:
    for video in NAMES:
        (folder / video).symlink_to(videos / video)
    (folder / name).write_text("\n".join([header, *rows]))
    return folder


@pytest.mark.parametrize(
    ("name", "header", "row"),
    [
        ("manifest.csv", "path,label,group", "{video},{label},{group}"),
        ("list.csv", "video,label,split,recording", "{video},{label},{split},{group}"),
        ("labels.csv", "video,frame,label,Group", "{video},0,{label},{group}"),
    ],
)
def test_a_list_may_say_of_which_recording_a_video_is(
    videos: Path, tmp_path: Path, name: str, header: str, row: str
) -> None:
    rows = [
        row.format(video=video, label="xy"[n % 2], split="train" if n < 4 else "val", group=GROUPS[video])
        for n, video in enumerate(NAMES)
    ]
    data = open_dataset(listed(videos, tmp_path, name, header, rows), allow_outside=True)
    assert {video.name: video.group for video in data.videos} == GROUPS
    assert not any("not used" in note for note in data.notes)


def test_a_drawn_split_keeps_a_group_on_one_side_and_so_what_is_copied_from_it(videos: Path, tmp_path: Path) -> None:
    rows = [f"{video},{GROUPS[video]}" for video in NAMES]
    folder = listed(videos, tmp_path, "manifest.csv", "path,group", [*rows, "copy.avi,other", "g.avi,other"])
    (folder / "copy.avi").write_bytes((videos / "a.avi").read_bytes())
    write_video(folder / "g.avi", 3, first=200)
    splits = set()
    for seed in range(6):
        side = {video.name: video.split for video in open_dataset(folder, validation=0.5, seed=seed).videos}
        assert side["a.avi"] == side["b.avi"] == side["copy.avi"] == side["g.avi"]
        assert side["c.avi"] == side["d.avi"]
        splits.add(side["c.avi"])
        assert set(side.values()) == {"train", "validation"}
    assert len(splits) == 2


def test_a_recording_in_two_given_splits_is_said(videos: Path, tmp_path: Path) -> None:
    rows = [f"{video},{'train' if video < 'd' else 'validation'},{GROUPS[video]}" for video in NAMES]
    data = open_dataset(listed(videos, tmp_path, "manifest.csv", "path,split,group", rows))
    assert any("recording yard are in several splits" in note for note in data.notes)


def test_a_video_of_two_groups_is_refused(videos: Path, tmp_path: Path) -> None:
    rows = ["a.avi,0,x,hall", "a.avi,1,x,yard"]
    with pytest.raises(DeltafineError, match=r"line 3, puts 'a.avi' into a second group"):
        open_dataset(listed(videos, tmp_path, "labels.csv", "video,frame,label,group", rows))
