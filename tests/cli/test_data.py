"""`deltafine data`: what it prints, writes and refuses."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from deltafine.cli.data import data
from deltafine.errors import DeltafineError
from tests.video.painted import paint, write_classes, write_video
from tests.video.test_exact_frames import write_image

app = typer.Typer()
app.command()(data)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = write_classes(tmp_path / "data", {"run": 3, "walk": 2}, frames=8)
    (root / "run/[bold]bad.avi").write_bytes(b"nothing")
    return root


def run(*arguments: object) -> Any:
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, [str(argument) for argument in arguments])


def test_it_says_what_was_found_and_what_is_not_used(root: Path) -> None:
    shown = run(root)
    assert shown.exit_code == 0
    assert "folder per class: 6 videos, 2 classes, 4 train / 2 validation" in shown.stdout
    assert "Frames per video: 8; 40 in all" in shown.stdout
    assert "Not used: 1" in shown.stdout
    assert "run/[bold]bad.avi cannot be decoded (" in shown.stdout


def test_it_says_which_images_are_no_frames(tmp_path: Path) -> None:
    for number in range(3):
        for name in ("img", "flow_x"):
            write_image(tmp_path / f"run/v0/{name}_{number}.jpg", paint(number))
    shown = run(tmp_path)
    assert (
        "Found 3 images flow_x_*.jpg, not used because they are optical flow beside the frames img_*.jpg."
        in shown.stdout
    )
    assert "Frames per video: 3; 3 in all" in shown.stdout


def test_it_says_what_is_not_used_and_shows_a_test_split(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "val", "test")):
        write_video(tmp_path / split / "run" / "v.avi", 4, first=4 * number)
    (tmp_path / "captions.csv").write_text("file,caption\nv.avi,a run\n")
    shown = run(tmp_path).stdout.splitlines()
    assert "folder per class: 3 videos, 1 class, 1 train / 1 validation / 1 test" in shown
    assert (
        "Found captions.csv, not used because it has no column of labels or splits (it has 'file', 'caption')." in shown
    )
    assert [line.split() for line in shown if line.startswith(("class ", "run "))] == [
        ["class", "train", "validation", "test", "frames", "seconds"],
        ["run", "1", "1", "1", "12", "0.5"],
    ]


def test_it_shows_labels_that_are_numbers_by_their_spread(tmp_path: Path) -> None:
    write_video(tmp_path / "v.avi", 4)
    rows = [f"v.avi,{frame},{angle}" for frame, angle in enumerate((-1, 0.5, 0.5, 2))]
    (tmp_path / "labels.csv").write_text("\n".join(["video,frame,label", *rows]))
    shown = run(tmp_path).stdout
    assert "1 video, numbers as labels, 0 train / 1 validation" in shown
    assert "Labels to validate: 4 frames, -1 to 2, mean 0.5, standard deviation 1.061" in shown
    assert "classes" not in shown


def test_it_tells_parts_that_end_early_from_those_that_are_not_used(tmp_path: Path) -> None:
    write_video(tmp_path / "v.avi", 50)
    (tmp_path / "manifest.csv").write_text("path,start,end\nv.avi,1,9\nv.avi,2,3\n")
    shown = run(tmp_path).stdout
    assert "Not used: 1\n  v.avi [2-3 s] begins at 2 s, and its file ends at 2 s" in shown
    assert "Used in part: 1\n  v.avi [1-9 s] is used up to the end of its file at 2 s, and not to 9 s" in shown


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        (("--max-frames", "7"), "has more than 7 frames"),
        (("--max-seconds", "1e-9"), "takes longer than 1e-09 seconds of processor time to decode"),
    ],
)
def test_a_file_beyond_the_limits_is_not_used(root: Path, option: tuple[str, str], reason: str) -> None:
    shown = run(root, *option)
    assert shown.exit_code == 0
    assert "Not used: 6" in shown.stdout
    assert f"run/v0.avi {reason}" in shown.stdout
    enough = run(root, option[0], "100")
    assert "Not used: 1" in enough.stdout


def test_long_reading_is_told_aside_now_and_then(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(root).stderr == ""
    monkeypatch.setattr("deltafine.cli.console.SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr("deltafine.video.meter.SECONDS_BETWEEN", 0.0)
    shown = run(root)
    assert re.search(
        r"^reading through the videos: [01] of 6  frame 3 of about 8  run/v0.avi$", shown.stderr, re.MULTILINE
    )
    assert "reading through" not in shown.stdout


def test_it_writes_contact_sheets(root: Path, tmp_path: Path) -> None:
    shown = run(root, "--sheet", tmp_path / "s.png", "--sheet", tmp_path / "s.html")
    assert shown.exit_code == 0
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    assert "<img" in (tmp_path / "s.html").read_text()


def test_layout_classes_and_split_are_the_users_choice(root: Path) -> None:
    assert "unlabelled videos: 6 videos, no labels" in run(root, "--layout", "unlabelled").stdout
    assert "2 videos, 1 class, 2 train / 0" in run(root, "--classes", "walk", "--validation", 0).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-bad-videos", "0"], "1 of 6 videos"),
        (["--classes", "wulk"], "There is no class 'wulk'"),
        (["--layout", "tape"], "There is no layout 'tape'"),
        (["--sheet", "s.pdf"], "written as .png or .html"),
    ],
)
def test_bad_input_is_one_sentence(root: Path, arguments: list[str], message: str) -> None:
    error = run(root, *arguments).exception
    assert isinstance(error, DeltafineError)
    assert message in str(error)


def test_it_does_not_load_tensorflow(root: Path) -> None:
    code = (
        "import sys, typer; from deltafine.cli.data import data; app = typer.Typer(); app.command()(data)\n"
        f"app([{str(root)!r}], standalone_mode=False); assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
