"""Reports on whose videos a network that never updates is as good: no saving is claimed, compared or gated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deltafine.cli import app
from deltafine.document.report import Estimate, Report
from deltafine.report import render
from deltafine.report.compare import compare
from deltafine.report.gate import Gate, check
from deltafine.report.store import write_report
from deltafine.report.summary import cautions, headline
from tests.report.builders import data_info, estimate, make_report

PROUD = "x fewer MACs"
COSTS = {"min-sparsity": 0.01, "max-macs-ratio": 0.99, "max-pixel-density": 0.99}


def report_of(models: tuple[str, ...] = ("original", "calibrated", "refined"), **by_model: dict[str, object]) -> Report:
    """A report with these figures of streams; ``every`` stands for all models."""
    report = make_report(models=models, data=data_info(problems=[]))
    every = by_model.pop("every", {})
    for name, measurement in report.models.items():
        measurement.streams = measurement.streams.model_copy(update={**every, **by_model.get(name, {})})
    return report


def untold() -> Report:
    """The original scores no more than the control, and so does the refined model."""
    return report_of(every={"frame_accuracy": estimate(0.75), "frozen_accuracy": estimate(0.745)})


def without_labels(**figures: float) -> dict[str, object]:
    names = ("frame_accuracy", "clip_accuracy", "accuracy_change", "frozen_accuracy", "fidelity")
    return {**dict.fromkeys(names), **figures}


def shown(report: Report, folder: Path, *options: str) -> tuple[int, str, str]:
    write_report(report, folder)
    summary = folder / "summary.md"
    environment = {"COLUMNS": "200", "GITHUB_STEP_SUMMARY": str(summary)}
    ran = CliRunner(env=environment).invoke(app, ["report", str(folder), *options])
    return ran.exit_code, ran.stdout, summary.read_text("utf-8")


def test_no_way_to_show_such_a_report_names_a_factor(tmp_path: Path) -> None:
    report = untold()
    _, terminal, summary = shown(report, tmp_path)
    for text in (terminal, summary, render(report, "html"), render(report, "markdown")):
        assert PROUD not in text
        assert "These videos cannot tell what is saved" in text
    assert '"tile main doubtful"' in render(report, "html")
    assert "<span>of the picture computed</span>" not in render(report, "html")
    assert headline(report).sentence == (
        "These videos cannot tell what is saved: the answer hardly changes in them, and a network that never updates "
        "has an accuracy of 74.5%, the refined model 75.0%"
    )
    assert any("measure on videos in which the answer changes" in caution for caution in cautions(report))


def test_a_model_that_fell_to_the_control_on_videos_that_can_tell_is_said_to_hardly_update() -> None:
    report = report_of(refined={"frame_accuracy": estimate(0.40)})
    assert headline(report).sentence == (
        "The refined model hardly updates: a network that never updates has an accuracy of 39.0%, the refined model "
        "40.0%, the original 75.5%"
    )


@pytest.mark.parametrize(
    ("reached", "frozen", "told"),
    [
        (Estimate(value=0.75, low=0.73, high=0.77), 0.70, True),
        (Estimate(value=0.75, low=0.70, high=0.80), 0.71, False),  # within the interval
        (Estimate(value=0.75, low=0.75, high=0.75), 0.731, False),  # within the tolerance
        (Estimate(value=0.75, low=0.75, high=0.75), 0.80, False),  # better
    ],
)
def test_a_control_is_as_good_within_the_interval_or_two_points(reached: Estimate, frozen: float, told: bool) -> None:
    report = report_of(refined={"frame_accuracy": reached, "frozen_accuracy": estimate(frozen)})
    assert headline(report).told == told
    assert (PROUD in headline(report).sentence) == told


@pytest.mark.parametrize(
    ("figures", "reached", "told"),
    [
        (without_labels(fidelity=1.0, frozen_fidelity=0.7), {"fidelity": 0.95}, True),
        (without_labels(fidelity=1.0, frozen_fidelity=0.99), {"fidelity": 1.0}, False),
        (without_labels(relative_error=0.0, frozen_error=1.2), {"relative_error": 0.3}, True),
        (without_labels(relative_error=0.0, frozen_error=1.2), {"relative_error": 1.3}, False),
        (without_labels(relative_error=0.0, label_error=0.6, frozen_error=1.2), {"label_error": 0.62}, True),
        (without_labels(relative_error=0.0, label_error=0.6, frozen_error=0.61), {"label_error": 0.6}, False),
    ],
)
def test_it_is_the_same_without_labels_and_for_numbers(
    figures: dict[str, object], reached: dict[str, object], told: bool
) -> None:
    report = report_of(every=figures, refined=reached)
    assert headline(report).told == told
    assert [one.met for one in check(report, Gate(COSTS))] == [told] * 3


def test_it_is_the_same_for_windows_and_for_a_model_that_was_measured_alone() -> None:
    windows = {"frame_accuracy": None, "window_accuracy": estimate(0.7), "frozen_accuracy": estimate(0.7)}
    for models in (("original", "refined"), ("refined",), ("original",)):
        report = report_of(models, every=windows)
        assert not headline(report).told
        assert any("measure on videos in which the answer changes" in caution for caution in cautions(report))
    assert headline(report_of(("refined",))).told


def test_a_report_from_before_there_was_a_control_is_shown_as_it_was() -> None:
    assert headline(report_of(every={"frozen_accuracy": None})).told


def test_no_cost_meets_a_gate_on_such_a_report_and_the_gate_says_why(tmp_path: Path) -> None:
    report = untold()
    checks = check(report, Gate({**COSTS, "max-accuracy-drop": 0.05}))
    assert [one.met for one in checks] == [False, False, False, True]
    for one in checks[:3]:
        assert "which says nothing: a network that never updates is as good on these videos" in one.sentence
    assert render(report, "junit", checks=checks).count("<failure") == 3
    code, terminal, _ = shown(report, tmp_path, "--max-macs-ratio", "0.99")
    assert code == 1
    assert "Gate: 1 of 1 not met" in terminal


def test_a_comparison_calls_no_cost_better_on_such_a_report_and_a_regression_is_not_ruled_out(tmp_path: Path) -> None:
    proper = report_of()
    for report, baseline, whose in ((untold(), proper, "this report"), (proper, untold(), "the baseline")):
        report.models["refined"].streams.operations.mac_density /= 100
        compared = compare(report, baseline, "before")
        (doubt,) = compared.doubts
        assert doubt.startswith(f"The costs of {whose} say nothing, since a network that never updates is as good")
        verdicts = {one.quantity.key: one.verdict for one in compared.of("streams")}
        assert verdicts["operations.mac_density"] == ""
        assert verdicts["operations.state_bytes"] == "same"
        assert verdicts["frame_accuracy"] != ""
        assert doubt in render(report, "html", comparisons=[compared])
        assert "say nothing" in render(report, "markdown", comparisons=[compared])
    worse = [one for one in check(untold(), Gate({"max-regression": 0.5}), [compared]) if not one.met]
    assert {"which says nothing" in one.measured for one in worse} == {True}
    write_report(proper, tmp_path / "proper")
    code, terminal, _ = shown(untold(), tmp_path / "run", "--baseline", str(tmp_path / "proper"))
    assert (code, "! The costs of this report say nothing" in terminal) == (0, True)
    as_json = CliRunner().invoke(
        app, ["report", str(tmp_path / "run"), "--baseline", str(tmp_path / "proper"), "--format", "json"]
    )
    assert json.loads(as_json.stdout)["comparisons"][0]["doubts"]
    assert compare(proper, proper, "itself").doubts == ()
