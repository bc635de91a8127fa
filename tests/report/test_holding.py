"""The subject model beside the original held, at equal MACs, in every format."""

from __future__ import annotations

import csv
import io
import json
import math
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from deltafine.document.controls import HeldPoint
from deltafine.document.report import Estimate, Report
from deltafine.errors import DeltafineError
from deltafine.report import load_report, render
from deltafine.report.controls_plot import controls_plot
from deltafine.report.gate import Gate, check, read_gate
from deltafine.report.holding import control_tables, equal_macs, held_curve
from deltafine.report.plots import log_ticks
from deltafine.report.store import write_report
from deltafine.report.summary import headline
from deltafine.report.terminal import show
from tests.report.builders import ACCURACY, controls, data_info, make_report


def of_density(density: float, judged_by: str = "accuracy", **figures: Any) -> Report:
    report = make_report(controls=controls(judged_by))
    refined = report.models["refined"].streams
    refined.operations.mac_density = density
    report.models["refined"].streams = refined.model_copy(update=figures)
    return report


def test_between_two_measured_k_the_quality_is_on_a_line_in_the_logarithm_of_the_cost() -> None:
    found = equal_macs(of_density(1 / 6))  # log2(6) doublings of two points each
    assert found
    assert found.frames == pytest.approx(6)
    assert found.held == pytest.approx(ACCURACY["original"] - 0.02 * 2.584963)
    assert found.gain == pytest.approx(0.751 - found.held)
    assert found.sentence == (
        "At the same MACs, the original held for 6.0 frames has 70.3% (4.8 points less; interpolated in log cost)"
    )


def test_at_a_measured_k_nothing_is_interpolated() -> None:
    found = equal_macs(of_density(1 / 8))
    assert found
    assert found.held == pytest.approx(ACCURACY["original"] - 0.06)
    assert found.sentence == "At the same MACs, the original held for 8 frames has 69.5% (5.6 points less)"


def test_a_model_that_saves_less_than_any_k_is_compared_with_the_original_itself() -> None:
    for density in (1.0, 1.3):
        found = equal_macs(of_density(density))
        assert found
        assert found.sentence == "At the same MACs, the original itself has 75.5% (0.4 points more)"
        assert found.gain == pytest.approx(-0.004)


def test_a_model_cheaper_than_every_measured_k_is_compared_with_the_last_and_its_cost_is_said() -> None:
    found = equal_macs(of_density(0.01))
    assert found
    assert found.sentence == "With 3.1x the MACs, the original held for 32 frames has 65.5% (9.6 points less)"


def test_a_model_that_needs_nothing_is_compared_with_the_last_and_its_cost_is_said_in_dense_macs() -> None:
    found = equal_macs(of_density(0.0))
    assert found
    assert found.sentence.startswith("With 3.1% of the dense MACs, the original held for 32 frames has 65.5%")


def test_points_given_twice_or_in_disorder_are_shown_all_the_same() -> None:
    report = of_density(1 / 8)
    assert report.controls
    report.controls.held = [*report.controls.held[::-1], *report.controls.held]
    assert equal_macs(report)
    for form in ("table", "html", "markdown", "csv"):
        assert render(report, form)


def test_a_report_whose_answers_are_held_for_no_frame_is_refused(tmp_path: Any) -> None:
    write_report(make_report(controls=controls()), tmp_path)
    document = json.loads((tmp_path / "report.json").read_text("utf-8"))
    document["controls"]["held"][0]["every"] = 0
    (tmp_path / "report.json").write_text(json.dumps(document))
    with pytest.raises(DeltafineError, match=r"schema at controls\.held\.0\.every"):
        load_report(tmp_path)


def test_errors_are_better_when_lower_and_the_gain_is_a_share_of_the_error() -> None:
    report = of_density(1 / 4, "error", label_error=0.6)
    found = equal_macs(report)
    assert found
    held = 0.0 + 0.02 * 2 + 0.62
    assert found.held == pytest.approx(held)
    assert found.gain == pytest.approx(1 - 0.6 / held)
    assert found.sentence.endswith("has an error of 66.0% (that of the refined model is 9.1% lower)")
    worse = equal_macs(of_density(1 / 4, "error", label_error=0.99))
    assert worse
    assert worse.sentence.endswith("(that of the refined model is 50.0% higher)")


def test_without_labels_fidelity_is_compared_and_the_originals_is_whole() -> None:
    report = of_density(1 / 4, "fidelity")
    assert held_curve(report)[0] == (1, 1.0)
    found = equal_macs(report)
    assert found
    assert (
        found.sentence == "At the same MACs, the original held for 4 frames has a fidelity of 96.0% (4.7 points more)"
    )


def test_the_headline_says_it_and_says_nothing_without_controls() -> None:
    assert headline(of_density(1 / 8)).held.startswith("At the same MACs, the original held for 8 frames has 69.5%")
    assert headline(make_report()).held == ""
    assert headline(make_report(models=("original",), controls=controls())).held == ""
    assert headline(make_report(models=("refined",), controls=controls(held=[], motion_gate=[]))).held == ""


def test_every_format_shows_all_points_of_the_controls() -> None:
    report = of_density(1 / 8)
    page, text = render(report, "html"), render(report, "markdown")
    console = Console(width=60, file=io.StringIO(), color_system=None)
    show(report, console)
    terminal = console.file.getvalue()  # type: ignore[attr-defined]
    for cells in (line for one in control_tables(report) for line in one.lines):
        row = [line for line in terminal.splitlines() if all(cell in line for cell in cells)]
        assert row
        for cell in cells:
            assert f">{cell}<" in page
            assert cell in text
    assert "held for 8 frames has 69.5%" in " ".join(terminal.split())
    assert max(map(len, terminal.splitlines())) <= 60


def test_the_table_of_figures_has_the_points_exactly() -> None:
    report = make_report(controls=controls())
    lines = list(csv.DictReader(io.StringIO(str(render(report, "csv")))))
    held = [line for line in lines if line["scope"] == "held" and line["model"] == "original"]
    assert report.controls
    assert [(int(one["position"]), float(one["value"]), float(one["low"])) for one in held] == [
        (point.every, point.quality, point.low) for point in report.controls.held
    ]
    assert {one["figure"] for one in lines if one["scope"] == "motion_gate"} == {"threshold", "share", "quality"}


def test_a_report_with_controls_is_read_as_it_was_written_and_one_without_still_opens(tmp_path: Any) -> None:
    report = make_report(controls=controls())
    write_report(report, tmp_path / "new")
    assert load_report(tmp_path / "new") == report
    document = json.loads((tmp_path / "new" / "report.json").read_text("utf-8"))
    del document["controls"]
    (tmp_path / "old.json").write_text(json.dumps(document))
    old = load_report(tmp_path / "old.json")
    assert old.controls is None
    assert control_tables(old) == []
    assert controls_plot(old) is None
    assert "simpler ways" not in str(render(old, "html"))


@pytest.mark.parametrize(("limit", "outcome"), [(0.0, True), (0.056, True), (0.057, False)])
def test_the_gate_on_the_gain_is_met_up_to_the_gain_itself(limit: float, outcome: bool) -> None:
    (found,) = check(of_density(1 / 8), Gate({"min-gain-over-hold": limit}))
    assert found.met is outcome
    assert found.measured == "+5.6 points"


def test_the_gate_on_the_gain_judges_errors_by_their_share() -> None:
    report = of_density(1 / 4, "error", label_error=0.6)
    measured = {limit: check(report, Gate({"min-gain-over-hold": limit}))[0] for limit in (0.09, 0.1)}
    assert measured[0.09].met
    assert not measured[0.1].met
    assert measured[0.1].measured == "9.1%"
    outcome = json.loads(str(render(report, "json", checks=[measured[0.1]])))
    assert outcome["checks"][0]["name"] == "min-gain-over-hold"
    assert outcome["met"] is False


@pytest.mark.parametrize("report", [make_report(), make_report(models=("original",), controls=controls())])
def test_the_gate_on_the_gain_cannot_be_judged_without_both(report: Report) -> None:
    with pytest.raises(DeltafineError, match="min-gain-over-hold cannot be checked"):
        check(report, Gate({"min-gain-over-hold": 0.01}))


def test_the_plot_has_the_models_the_controls_and_the_checkpoints_of_the_same_streams() -> None:
    report = make_report(controls=controls())
    plot = controls_plot(report)
    assert plot
    labels = [label for _, label in plot.legend]
    assert labels == [
        *("original held", "original behind a motion gate", "checkpoints", "original", "calibrated"),
        *("refined, and held", "never updating"),
    ]
    svg = ElementTree.fromstring(str(plot.drawing))
    assert len([one for one in svg.iter("circle") if "big" in one.attrib["class"]]) == 3
    assert "plot-front" not in str(render(report, "html"))
    elsewhere = make_report(controls=controls(), stream_data=data_info(path="elsewhere"))
    other = controls_plot(elsewhere)
    assert other
    assert "checkpoints" not in [label for _, label in other.legend]
    assert "plot-front" in str(render(elsewhere, "html"))


def test_a_logarithmic_scale_halves_the_cost_at_equal_distances() -> None:
    plot = controls_plot(make_report(controls=controls(motion_gate=[], refined_held=[]), front=[]))
    assert plot
    svg = ElementTree.fromstring(str(plot.drawing))
    across = [float(one.attrib["cx"]) for one in svg.iter("circle") if one.attrib["class"] == "held"]
    steps = [a - b for a, b in pairwise(across)]
    assert len(steps) == 5
    assert steps == pytest.approx([steps[0]] * 5, abs=0.2)
    assert log_ticks(math.log10(0.02), 0) == pytest.approx([0.02, 0.05, 0.1, 0.2, 0.5, 1])
    assert log_ticks(-6, 0) == pytest.approx([1e-6, 1e-4, 1e-2, 1])
    assert len(log_ticks(-339, 400)) < 8


def test_with_a_score_the_least_gain_over_holding_is_a_number_as_it_is_written() -> None:
    report = make_report(controls=controls().model_copy(update={"judged_by": "score"}))
    for model, value in (("original", 31.0), ("refined", 33.5)):
        streams = report.models[model].streams
        streams.score = streams.frozen_score = Estimate(value=value, low=value, high=value)
    assert report.controls
    report.controls.held = [HeldPoint(every=every, quality=30.0, low=29.0, high=31.0) for every in (8, 16)]
    report.models["refined"].streams.frozen_score = Estimate(value=1.0, low=1.0, high=1.0)
    report.models["original"].streams.frozen_score = report.models["refined"].streams.frozen_score
    assert "has a score of 30.0 (3.50 less" in headline(report).held
    for written, met in (("3.4", True), ("3.6", False), ("50%", True)):
        (found,) = check(report, read_gate(None, {"min-gain-over-hold": written}))
        assert found.met is met
    assert found.subject == "gain of score over the original held at equal MACs"
