"""Columns of ``labels.csv`` beside the label: rows of what is said of each frame, or of all frames of a video."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deltafine.errors import DeltafineError
from deltafine.video import Dataset, open_dataset
from tests.video.painted import SIZE, write_video


def listed(folder: Path, *rows: str, frames: int = 4) -> Dataset:
    for name in ("a.avi", "b.avi"):
        write_video(folder / name, frames, first=frames * (name == "b.avi"))
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return open_dataset(folder)


def said(data: Dataset, column: str) -> dict[str, list[str]]:
    """The cells of a column by video, frame by frame; "-" where no row is about a frame."""
    assert data.columns is not None
    cells = [*data.columns.cells(column), "-"]
    found = {}
    for video in data.videos:
        frames = np.full(4, -1 if video.row is None else video.row)
        own = np.empty(0, np.int64) if video.frame_rows is None else video.frame_rows
        frames[: len(own)] = own
        found[video.name] = [cells[row] for row in frames]
    return found


def test_columns_that_are_not_the_label_are_kept_for_every_frame(tmp_path: Path) -> None:
    data = listed(
        tmp_path, "video,frame,Steering Angle,collision", "a.avi,0,0.5,1", "a.avi,2,-1,", "b.avi,0,0.5,1", "b.avi,1,,0"
    )
    assert data.columns is not None
    assert data.columns.names[:2] == ("steering_angle", "collision")
    assert len(data.columns.rows) == 3  # two frames have the same
    assert said(data, "steering_angle") == {"a.avi": ["0.5", "-", "-1", "-"], "b.avi": ["0.5", "", "-", "-"]}
    assert said(data, "collision") == {"a.avi": ["1", "-", "", "-"], "b.avi": ["1", "0", "-", "-"]}
    assert data.classes == ()
    (note,) = data.notes
    assert "labels.csv has the columns 'steering_angle', 'collision', which are not used" in note


def test_a_row_without_a_frame_is_about_all_frames_that_have_nothing_of_their_own(tmp_path: Path) -> None:
    data = listed(
        tmp_path,
        "video,frame,label,speed,side",
        "a.avi,,calm,3,left",
        "a.avi,1,wild,,right",
        "a.avi,3,,5,",
        "b.avi,,,4,",
    )
    assert said(data, "speed") == {"a.avi": ["3", "3", "3", "5"], "b.avi": ["4"] * 4}
    assert said(data, "side") == {"a.avi": ["left", "right", "left", "left"], "b.avi": [""] * 4}
    (batch,) = data.clips("validation", size=SIZE, frames=4)
    labels = {
        data.videos[video].name: row.tolist() for video, row in zip(batch.videos, batch.frame_labels, strict=True)
    }
    assert labels == {"a.avi": [0, 1, 0, 0], "b.avi": [-1] * 4}
    assert data.classes == ("calm", "wild")


def test_the_label_has_a_column_of_its_own_name_too(tmp_path: Path) -> None:
    data = listed(tmp_path, "video,frame,target,other", "a.avi,0,7,1", "b.avi,0,8,1")
    assert said(data, "target") == {"a.avi": ["7", "-", "-", "-"], "b.avi": ["8", "-", "-", "-"]}
    assert data.classes == ("7", "8")


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (["video,frame,speed", "a.avi,,1", "a.avi,,2"], "line 3, labels all frames of 'a.avi' a second time"),
        (["video,frame,speed", "a.avi,x,1"], "line 2, needs a video, a frame number"),
        (["video,frame,speed", "a.avi,1,"], "line 2, needs a video, a frame number"),
        (["video,frame,label", "a.avi,,x"], "line 2, needs a video, a frame number"),
    ],
)
def test_rows_that_say_nothing_are_refused(rows: list[str], reason: str, tmp_path: Path) -> None:
    with pytest.raises(DeltafineError, match=reason):
        listed(tmp_path, *rows)
