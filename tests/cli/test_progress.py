"""Commands that read a long file say how far they are, aside of what they print."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from deltafine.jobs.refine import Quiet
from deltafine.model import find_activations, insert_deltas
from deltafine.refinement.run.preparation import prepare
from deltafine.settings import resolve
from deltafine.video import meter
from tests.model import small_models
from tests.small_runs import write_small_video

FILM = "day.avi"
FRAMES = 60
OFTEN = """
import sys
from deltafine.cli import console, main
from deltafine.video import meter
meter.SECONDS_BETWEEN = console.SECONDS_BETWEEN_LINES = 0.0
sys.argv = ["deltafine", *sys.argv[1:]]
main()
"""


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("material")
    plain = small_models.plain()
    plain.save(folder / "plain.keras")
    insert_deltas(plain, find_activations(plain)).save(folder / "refined.keras")
    write_small_video(folder / "films" / "light" / FILM, light=True, seed=0, frames=FRAMES)
    return str(folder / "refined.keras"), str(folder / "films")


@pytest.mark.parametrize(
    "command", ["export", pytest.param("bench", marks=pytest.mark.slow), pytest.param("judge", marks=pytest.mark.slow)]
)
def test_where_in_a_long_file_reading_is_goes_to_standard_error_in_plain_lines(
    material: tuple[str, str], tmp_path: Path, command: str
) -> None:
    model, data = material
    how = {
        "bench": ["bench", model, "--threads", "1", "--frames", "4"],
        "export": ["export", model, "--output", str(tmp_path / "plain.keras")],
        "judge": ["export", model, "--format", "int8", "--output", str(tmp_path / "whole.tflite")],
    }[command]
    done = subprocess.run(
        [sys.executable, "-c", OFTEN, *how, "--data", data], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    said = re.findall(rf"^reading through the videos: 0 of 1  frame (\d+) of about {FRAMES}  (.*)$", done.stderr, re.M)
    assert [int(frame) for frame, _ in said[:FRAMES]] == list(range(1, FRAMES + 1))
    assert {Path(name).name for _, name in said} == {FILM}
    assert ("judging the file, frames: 60 of 60" in done.stderr) == (command == "judge")
    assert "reading through" not in done.stdout
    assert "\x1b" not in done.stderr + done.stdout


def test_a_single_file_that_is_split_in_time_is_read_once_and_says_where(
    material: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[tuple[str, str]] = []

    class Ear(Quiet):
        def progress(self, what: str, done: int, total: int, figures: str = "") -> None:
            heard.append((what, figures))

    monkeypatch.setattr(meter, "SECONDS_BETWEEN", 0.0)
    refined, data = (Path(one) for one in material)
    film = data / "light" / FILM
    prepared = prepare(resolve(model=str(refined.with_name("plain.keras")), data=str(film), task="distill"), Ear())
    assert {video.split for video in prepared.data.videos} == {"train", "validation"}
    said = [figures.split()[1] for what, figures in heard if what == "reading through the videos" and figures]
    assert said == [str(number + 1) for number in range(FRAMES)]
