"""What is shown of a dataset: an overview and a contact sheet."""

from __future__ import annotations

import json
import os
from pathlib import Path

import av
import numpy as np
import pytest

from deltafine.errors import DeltafineError
from deltafine.jobs.facts import data_info
from deltafine.video import open_dataset
from deltafine.video.contact_sheet import write_contact_sheet
from deltafine.video.dataset_overview import overview
from tests.video.painted import write_classes, write_video


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = write_classes(tmp_path / "data", {"a": 3, "b $x$ <i>": 2}, frames=10)
    (root / "a/broken.avi").write_bytes(b"nothing")
    return root


def test_the_overview_counts_what_can_be_used(root: Path) -> None:
    write_video(root / "a/large.mp4", 30, codec="libx264", size=(64, 128), rate=30)
    facts = overview(open_dataset(root, validation=0))
    first, second = facts.classes
    assert (first.name, first.train, first.validation, first.frames) == ("a", 4, 0, 60)
    assert first.seconds == pytest.approx(3 * 10 / 25 + 1)
    assert (second.train, second.frames) == (2, 20)
    assert facts.lines == (
        "Frames per video: 10 to 30, median 10; 80 in all",
        "Seconds per video: 0.40 to 1.00, median 0.40; 3.0 in all",
        "Frames per second: 25 (5), 30 (1)",
        "Picture size: 64x32 (5), 128x64 (1)",
        "Codec: mpeg4 (5), h264 (1)",
    )


def test_the_overview_counts_frames_by_their_own_labels(tmp_path: Path) -> None:
    write_video(tmp_path / "s.avi", 10)
    rows = [f"s.avi,{frame},{'ab'[frame >= 3]}" for frame in range(9)]
    (tmp_path / "labels.csv").write_text("\n".join(["video,frame,label", *rows]))
    facts = overview(open_dataset(tmp_path))
    assert [(row.name, row.validation, row.frames) for row in facts.classes] == [("a", 1, 3), ("b", 1, 6)]


def test_an_overview_of_nothing_usable_says_so(tmp_path: Path) -> None:
    (tmp_path / "bad.avi").write_bytes(b"nothing")
    assert overview(open_dataset(tmp_path)).lines == ("No video can be used.",)


def test_a_contact_sheet_is_a_picture_or_a_page_of_its_own(root: Path, tmp_path: Path) -> None:
    data = open_dataset(root, validation=0)
    write_contact_sheet(data, tmp_path / "sheet.png")
    with av.open(str(tmp_path / "sheet.png")) as container:
        frame = next(container.decode(video=0))
    assert frame.width > 500
    assert frame.to_ndarray(format="gray").std() > 5
    write_contact_sheet(data, tmp_path / "sheet.html")
    page = (tmp_path / "sheet.html").read_text()
    assert "data:image/png;base64," in page
    assert "a/broken.avi" in page
    assert "http" not in page


def test_a_contact_sheet_escapes_names(tmp_path: Path) -> None:
    root = tmp_path / "<b>bold"
    write_video(root / "fine.avi", 4)
    (root / "<script>.avi").write_bytes(b"nothing")
    write_contact_sheet(open_dataset(root), tmp_path / "sheet.html")
    page = (tmp_path / "sheet.html").read_text()
    assert "&lt;script&gt;.avi" in page
    assert "<script>" not in page
    assert "<b>bold" not in page


def test_names_that_are_no_text_are_shown_with_a_question_mark(tmp_path: Path) -> None:
    folder = tmp_path / "data" / os.fsdecode(b"\xff")
    folder.mkdir(parents=True)
    write_video(tmp_path / "v.avi", 4).rename(folder / os.fsdecode(b"\xfe.avi"))
    (folder / os.fsdecode(b"\xfd.avi")).write_bytes(b"nothing")
    data = open_dataset(tmp_path / "data", validation=0)
    for name in ("sheet.html", "sheet.png"):
        write_contact_sheet(data, tmp_path / name)
    assert "?/?.avi" in (tmp_path / "sheet.html").read_text()
    shown = json.loads(data_info(data).model_dump_json())  # as it is in the report
    assert shown["classes"] == ["?"]
    assert [problem["video"] for problem in shown["problems"]] == ["?/?.avi"]


def test_a_contact_sheet_keeps_the_proportions_of_a_video(tmp_path: Path) -> None:
    dark = [np.zeros((64, 32, 3), np.uint8)] * 2
    data = open_dataset(write_video(tmp_path / "v.avi", pictures=dark))
    write_contact_sheet(data, tmp_path / "sheet.png")
    with av.open(str(tmp_path / "sheet.png")) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="gray")
    first = picture[:, int(0.28 * picture.shape[1]) : int(0.39 * picture.shape[1])] < 100
    assert 1.7 < np.ptp(np.flatnonzero(first.any(axis=1))) / np.ptp(np.flatnonzero(first.any(axis=0))) < 2.2


def test_a_contact_sheet_that_cannot_be_made_says_why(root: Path, tmp_path: Path) -> None:
    data = open_dataset(root, validation=0)
    with pytest.raises(DeltafineError, match=r"end it in .png or .html"):
        write_contact_sheet(data, tmp_path / "sheet.pdf")
    with pytest.raises(DeltafineError, match="cannot be written"):
        write_contact_sheet(data, tmp_path / "absent/sheet.png")
    with pytest.raises(DeltafineError, match="nothing to put"):
        write_contact_sheet(open_dataset(root / "a/broken.avi"), tmp_path / "sheet.png")
