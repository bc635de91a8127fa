"""What is not there is said at once: before TensorFlow is loaded, which takes seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deltafine.jobs.origin import videos_of
from deltafine.settings import RefineSettings

WITHOUT_TENSORFLOW = """
import sys

class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "keras"):
            raise AssertionError(f"{name} is loaded")

sys.meta_path.insert(0, Forbidden())
from deltafine.cli import main

main()
"""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("refine none.keras --data . --out run", "There is no model at none.keras: check the path."),
        ("refine none.keras --data . --out run --dry-run", "There is no model at none.keras"),
        ("refine there.keras --data nowhere --out run", "There is nothing at nowhere: give a folder of videos"),
        ("refine there.keras --data . --streams nowhere --out run", "There is nothing at nowhere"),
        ("inspect none.keras", "There is no model at none.keras"),
        ("report none.keras --data .", "There is no model at none.keras"),
        ("report there.keras --original none.keras --data .", "There is no model at none.keras"),
        ("report there.keras --data . --streams nowhere", "There is nothing at nowhere"),
        ("bench none --data .", "There is no model at none: give a run directory or a model file."),
        ("bench there.keras --data nowhere", "There is nothing at nowhere"),
        ("bench there.keras", "has no settings.toml that names videos: give --data."),
        ("export .", "There is no model at refined.keras: give a run directory or a model file."),
        ("export there.keras --data nowhere", "There is nothing at nowhere"),
    ],
)
def test_a_path_that_is_not_there_is_said_before_tensorflow_is_loaded(
    arguments: str, sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "there.keras").write_bytes(b"")
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, *arguments.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert sentence in " ".join(done.stderr.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there.keras"]


@pytest.mark.parametrize(("streams", "expected"), [("test/", "test"), (None, "videos")])
def test_bench_takes_the_videos_that_a_run_was_measured_on(streams: str | None, expected: str, tmp_path: Path) -> None:
    settings = RefineSettings(model="model.keras", data="videos", streams=streams)
    (tmp_path / "settings.toml").write_text(settings.to_toml())
    (tmp_path / "refined.keras").write_bytes(b"")
    assert videos_of(tmp_path) == videos_of(tmp_path / "refined.keras") == Path(expected)
