"""`deltafine report MODEL --data VIDEOS`: measuring without a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deltafine import model as models
from deltafine.errors import DeltafineError
from deltafine.jobs.measure import measure_model
from deltafine.model import DeltaSettings
from tests.cli.running import Command
from tests.small_runs import small_model, write_small_model, write_small_videos


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, the same with delta layers, and videos."""
    folder = tmp_path_factory.mktemp("afresh")
    write_small_model(folder / "model.keras")
    model = small_model()
    sites = models.select_sites(models.find_activations(model))
    models.insert_deltas(model, sites, DeltaSettings(initial_threshold={"input": 8.0, "relu1": 0.1})).save(
        folder / "refined.keras"
    )
    write_small_videos(folder / "videos")
    return folder


def test_any_model_is_measured_and_shown(place: Path, deltafine: Command) -> None:
    done = deltafine("report", place / "model.keras", "--data", place / "videos", "--max-macs-ratio", "1%")
    assert done.code == 1, done.errors
    assert "model.keras on videos (original model, continuous streams)" in done.output
    assert "Frozen control" in done.output
    assert "Gate: 1 of 1 not met" in done.output


def test_a_refined_model_is_compared_with_its_original(place: Path) -> None:
    report, pictures = measure_model(place / "refined.keras", place / "videos", original=place / "model.keras")
    assert list(report.models) == ["original", "refined"]
    refined = report.models["refined"].streams
    assert refined.accuracy_change is not None
    assert refined.fidelity is not None
    assert 0 < refined.operations.mac_density < report.models["original"].streams.operations.mac_density
    assert [delta.name for delta in refined.deltas] == ["input_delta", "relu1_delta", "conv2_delta"]
    assert report.model.coverage == 1
    assert [point.sensitivity for point in report.sensitivity.points] == [0.5, 0.75, 1.0, 1.5, 2.0, 3.0]
    assert len({picture.video for picture, _ in pictures}) == 2
    assert all(drawn.startswith(b"\x89PNG") for _, drawn in pictures)


def test_a_model_that_runs_on_every_kth_frame_costs_less_and_all_frames_are_judged(place: Path) -> None:
    given = {"original": place / "model.keras"}
    often, _ = measure_model(place / "refined.keras", place / "videos", **given)
    seldom, _ = measure_model(place / "refined.keras", place / "videos", every=4, **given)
    all_frames, held = (one.models["refined"].streams for one in (often, seldom))
    assert held.frames == all_frames.frames
    assert held.operations.mac_density < all_frames.operations.mac_density
    assert seldom.models["original"] == often.models["original"]
    assert seldom.controls == often.controls
    assert seldom.settings["every"] == 4
    assert any("ran on every 4th frame" in one for one in seldom.warnings)
    itself, _ = measure_model(place / "model.keras", place / "videos", every=4)
    assert list(itself.models) == ["original", "measured"]
    at_four = next(point for point in itself.controls.held if point.every == 4)
    accuracy = itself.models["measured"].streams.frame_accuracy.value
    assert at_four.low <= accuracy <= at_four.high


def test_every_is_for_measuring_alone(place: Path, deltafine: Command) -> None:
    done = deltafine("report", place / "model.keras", "--every", "4")
    assert done.code == 2
    assert "--every is for measuring a model" in done.errors


def test_a_refined_model_alone_has_accuracy_and_a_control_but_no_fidelity(place: Path) -> None:
    report, _ = measure_model(place / "refined.keras", place / "videos")
    (figures,) = [measurement.streams for measurement in report.models.values()]
    assert list(report.models) == ["refined"]
    assert figures.frame_accuracy is not None
    assert figures.frozen_accuracy is not None
    assert figures.fidelity is None


def test_what_is_measured_can_be_saved_and_read_again(place: Path, deltafine: Command) -> None:
    file = place / "fresh.json"
    arguments = ("report", place / "refined.keras", "--data", place / "videos", "--frames", "4")
    done = deltafine(*arguments, "--sensitivity-frames", "0", "--format", "json", "--output", file)
    assert done.code == 0, done.errors
    written = json.loads(file.read_text("utf-8"))
    assert written["settings"]["frames"] == 4
    assert written["sensitivity"] is None
    again = deltafine("report", file)
    assert again.code == 0, again.errors
    assert "refined.keras on videos" in again.output


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["model.keras", "--original", "model.keras"], "give --data VIDEOS as well"),
        (["videos", "--data", "videos"], "is no model to measure"),
        (["missing.keras", "--data", "videos"], "missing.keras"),
        (["model.keras", "--data", "missing"], "missing"),
    ],
)
def test_wrong_use_is_one_sentence(place: Path, deltafine: Command, arguments: list[str], reason: str) -> None:
    done = deltafine("report", *[str(place / a) if not a.startswith("--") else a for a in arguments])
    assert reason in done.refusal


def test_a_model_of_other_classes_is_refused(tmp_path: Path, place: Path) -> None:
    write_small_model(tmp_path / "three.keras", classes=3)
    with pytest.raises(DeltafineError, match=r"3 outputs but .* 2 classes"):
        measure_model(tmp_path / "three.keras", place / "videos")
