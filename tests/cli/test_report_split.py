"""`deltafine report MODEL --data VIDEOS` measures on no video that the run of the model was trained on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from deltafine import load_report, measure_model
from deltafine.document.report import Report
from deltafine.errors import DeltafineWarning
from deltafine.exporting.forms import export_plain
from deltafine.jobs.refine import refine
from deltafine.model import load
from tests.cli.running import Command
from tests.small_runs import FAST, write_small_model, write_small_video, write_small_videos

UNKNOWN = "it is not known which videos it was trained on"
OTHERS = "it is not known whether some of those measured here were trained on"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, videos, and a run of them with seed 1."""
    folder = tmp_path_factory.mktemp("split")
    write_small_model(folder / "model.keras")
    write_small_videos(folder / "videos")
    how: dict[str, Any] = {**FAST, "epochs": 0, "seed": 1, "validation": "40%", "rescale": "0..1"}
    refine(folder / "model.keras", folder / "videos", folder / "run", **how)
    return folder


def measured(model: Path, data: Path, **settings: Any) -> Report:
    return measure_model(model, data, **settings)[0]


def said(report: Report) -> list[str]:
    return [warning for warning in report.warnings if "trained on" in warning]


def test_the_model_of_a_run_is_measured_on_the_videos_that_its_run_was_validated_on(
    place: Path, deltafine: Command
) -> None:
    model, file = place / "run" / "refined.keras", place / "again.json"
    arguments = ("report", model, "--data", place / "videos", "--original", place / "model.keras")
    done = deltafine(*arguments, "--format", "json", "--output", file)
    assert done.code == 0, done.errors
    again, run = load_report(file), load_report(place / "run")
    assert again.data == run.data
    assert (again.settings["seed"], again.settings["validation"], again.settings["frames"]) == (1, 0.4, 4)
    assert again.models["refined"].streams.frame_accuracy == run.models["calibrated"].streams.frame_accuracy
    assert again.models["original"] == run.models["original"]
    assert said(again) == []


def test_an_export_of_the_run_is_measured_on_the_same_videos(place: Path) -> None:
    (place / "run" / "export").mkdir(exist_ok=True)
    export_plain(load(place / "run" / "refined.keras")).save(place / "run" / "export" / "stripped.keras")
    report = measured(place / "run" / "export" / "stripped.keras", place / "videos")
    assert report.data == load_report(place / "run").data
    assert said(report) == []


@pytest.mark.parametrize(("settings", "option"), [({"seed": 0}, "--seed"), ({"validation": "80%"}, "--validation")])
def test_another_split_is_followed_and_videos_that_were_trained_on_are_counted(
    settings: dict[str, Any], option: str, place: Path
) -> None:
    report = measured(place / "run" / "refined.keras", place / "videos", **settings)
    (warning,) = said(report)
    assert " videos measured here were trained on by the run in " in warning
    assert f"another {option}: leave that out" in warning
    assert int(warning.split()[0]) > 0


def test_labels_may_be_left_aside_on_the_same_videos(place: Path) -> None:
    report = measured(place / "run" / "refined.keras", place / "videos", task="distill", original=place / "model.keras")
    assert report.data.validation_videos == load_report(place / "run").data.validation_videos
    assert said(report) == []


def test_videos_that_were_moved_are_known_and_others_are_not(place: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(place / "videos", tmp_path / "moved"))
    report = measured(place / "run" / "refined.keras", moved)
    assert said(report) == []
    write_small_video(moved / "dark" / "dark9.avi", False, seed=99)
    (warning,) = said(measured(place / "run" / "refined.keras", moved))
    assert OTHERS in warning


def test_of_a_model_elsewhere_it_is_not_known_what_it_was_trained_on(place: Path, tmp_path: Path) -> None:
    model = Path(shutil.copy(place / "run" / "refined.keras", tmp_path / "elsewhere.keras"))
    report = measured(model, place / "videos", seed=1, validation=0.4)
    (warning,) = said(report)
    assert UNKNOWN in warning
    assert report.data.fingerprint == load_report(place / "run").data.fingerprint


def test_a_run_with_damaged_settings_is_none(place: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(place / "run", tmp_path / "run"))
    (run / "settings.toml").write_text("seed = ", "utf-8")
    with pytest.warns(DeltafineWarning, match=r"settings of the run in .* are not used: .*not valid TOML"):
        (warning,) = said(measured(run / "refined.keras", place / "videos"))
    assert UNKNOWN in warning


def test_a_single_video_is_cut_as_in_the_run(place: Path, tmp_path: Path) -> None:
    video = write_small_video(tmp_path / "data" / "dark" / "one.avi", False, seed=5, frames=40)
    how: dict[str, Any] = {**FAST, "epochs": 0, "task": "distill"}
    run = refine(place / "model.keras", video, tmp_path / "run", **how)
    report = measured(tmp_path / "run" / "refined.keras", video)
    assert report.data.fingerprint == run.data.fingerprint
    assert any("first" in warning and "single video" in warning for warning in report.warnings)


def test_the_hash_of_a_measurement_is_as_long_as_that_of_a_run(place: Path) -> None:
    report = measured(place / "model.keras", place / "videos")
    assert len(report.settings_hash) == len(json.loads((place / "run" / "report.json").read_bytes())["settings_hash"])


def test_frames_are_kept_where_the_user_wants_them_and_give_the_same_figures(place: Path, tmp_path: Path) -> None:
    model = place / "run" / "refined.keras"
    kept, fresh = (measured(model, place / "videos", **how) for how in ({"cache": tmp_path / "cache"}, {}))
    assert list((tmp_path / "cache").glob("frames-*.h5"))
    assert kept.models == fresh.models
