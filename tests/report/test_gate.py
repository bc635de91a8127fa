"""Thresholds that a report must meet."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from deltafine.document.report import Report, ScoreInfo
from deltafine.errors import DeltafineError
from deltafine.report import github, render
from deltafine.report.compare import compare
from deltafine.report.gate import Gate, check, parse_share, read_gate
from tests.report.builders import estimate, make_report, timing
from tests.report.test_compare import cheaper


def met(report: Report, at: str = "value", **limits: float) -> bool:
    thresholds = Gate({name.replace("_", "-"): limit for name, limit in limits.items()}, at)
    (one,) = check(report, thresholds)
    return one.met


@pytest.mark.parametrize(
    ("name", "key", "direction"),
    [
        ("min_sparsity", "delta_sparsity", -1),
        ("max_macs_ratio", "mac_density", 1),
        ("max_pixel_density", "pixel_density", 1),
    ],
)
def test_a_threshold_is_met_at_the_figure_itself_and_not_beyond(name: str, key: str, direction: int) -> None:
    report = make_report()
    figure = getattr(report.models["refined"].streams.operations, key)
    assert met(report, **{name: figure})
    assert met(report, **{name: figure + direction * 0.001})
    assert not met(report, **{name: figure - direction * 0.001})


def test_an_accuracy_drop_is_checked_at_the_estimate_or_at_its_lower_end() -> None:
    report = make_report()  # -0.4 points, at worst -1.2
    assert met(report, max_accuracy_drop=0.004)
    assert not met(report, max_accuracy_drop=0.003)
    assert met(report, "low", max_accuracy_drop=0.012)
    assert not met(report, "low", max_accuracy_drop=0.011)


def test_an_accuracy_drop_without_accuracy_is_an_error_not_a_pass() -> None:
    with pytest.raises(DeltafineError, match="cannot be checked"):
        met(make_report(models=("original",)), max_accuracy_drop=0.5)


def test_a_figure_that_is_not_finite_never_meets_a_threshold() -> None:
    report = make_report()
    report.models["refined"].streams.operations.mac_density = float("nan")
    assert not met(report, max_macs_ratio=1)


def test_a_regression_beyond_the_limit_is_found_and_one_within_is_not() -> None:
    old, new = cheaper(0.5), make_report()
    comparison = compare(new, old, "old")
    by_figure = {one.subject: one for one in check(new, Gate({"max-regression": 0.02}), [comparison])}
    assert not by_figure["MAC density against old"].met
    assert by_figure["frame accuracy against old"].met
    assert all(one.met for one in check(new, Gate({"max-regression": 1.0}), [comparison]))


def test_an_accuracy_below_the_baselines_is_a_regression_in_points() -> None:
    old, new = make_report(), make_report()
    accuracy = new.models["refined"].streams.frame_accuracy
    assert accuracy
    accuracy.value -= 0.02
    comparison = compare(new, old, "old")
    for limit, outcome in ((0.02, True), (0.019, False)):
        checks = check(new, Gate({"max-regression": limit}), [comparison])
        assert next(one for one in checks if one.subject.startswith("frame accuracy")).met is outcome


def test_a_figure_that_is_no_longer_measured_is_a_regression() -> None:
    old, new = make_report(), make_report()
    new.models["refined"].streams.clip_accuracy = None
    checks = check(new, Gate({"max-regression": 1.0}), [compare(new, old, "old")])
    assert [(one.measured, one.met, one.value) for one in checks if one.subject.startswith("whole-video")] == [
        ("no longer measured", False, None)
    ]


def without_accuracy(fidelity: float) -> Report:
    report = make_report()
    for measurement in report.models.values():
        for name in ("frame_accuracy", "clip_accuracy", "accuracy_change", "frozen_accuracy"):
            setattr(measurement.streams, name, None)
    report.models["refined"].streams.fidelity = fidelity
    return report


def test_with_labels_a_better_model_passes_although_it_is_less_like_the_original() -> None:
    old, new = make_report(), make_report()
    figures = new.models["refined"].streams
    assert figures.frame_accuracy
    assert figures.fidelity
    figures.frame_accuracy.value += 0.05
    figures.fidelity -= 0.1
    checks = check(new, Gate({"max-regression": 0.0}), [compare(new, old, "old")])
    assert all(one.met for one in checks)
    assert not [one for one in checks if one.subject.startswith("fidelity")]


def test_without_labels_fidelity_counts() -> None:
    old, new = without_accuracy(0.9), without_accuracy(0.85)
    checks = check(new, Gate({"max-regression": 0.02}), [compare(new, old, "old")])
    assert [one.met for one in checks if one.subject.startswith("fidelity")] == [False]


def test_with_labels_that_are_numbers_the_error_to_them_counts() -> None:
    old, new = without_accuracy(0.9), without_accuracy(0.9)
    for report, to_labels, to_original in ((old, 0.6, 0.1), (new, 0.5, 0.3)):
        figures = report.models["refined"].streams
        figures.fidelity, figures.label_error, figures.relative_error = None, to_labels, to_original
    checks = check(new, Gate({"max-regression": 0.0}), [compare(new, old, "old")])
    assert [one.met for one in checks if "error" in one.subject] == [True]


@pytest.mark.parametrize(
    ("name", "figures", "at"),
    [
        ("min-accuracy", {}, 0.751),
        ("min-fidelity", {}, 0.913),
        ("max-error", {"label_error": 0.62, "relative_error": 0.1}, 0.62),
        ("max-error", {"relative_error": 1.3}, 1.3),
    ],
)
def test_absolute_limits_are_met_at_the_figure_itself(name: str, figures: dict[str, float], at: float) -> None:
    report = make_report()
    for figure, value in figures.items():
        setattr(report.models["refined"].streams, figure, value)
    least = name.startswith("min")
    for change, outcome in ((0.0, True), (-0.001 if least else 0.001, True), (0.001 if least else -0.001, False)):
        (one,) = check(report, Gate({name: at + change}))
        assert one.met is outcome
        assert (one.value, one.bound) == (pytest.approx(at), at + change)


@pytest.mark.parametrize(
    ("name", "reason"), [("min-accuracy", "no labels"), ("max-error", "are classes"), ("min-fidelity", "the original")]
)
def test_a_limit_of_what_was_not_measured_cannot_be_judged(name: str, reason: str) -> None:
    report = make_report(models=("original",))
    report.models["original"].streams.frame_accuracy = None
    with pytest.raises(DeltafineError, match=f"{name} cannot be checked.*{reason}"):
        check(report, Gate({name: 0.5}))


def test_any_figure_can_be_limited_by_its_name(tmp_path: Path) -> None:
    report = make_report(timings=[timing(1), timing(4)])
    worst = report.models["refined"].streams.operations.frame_macs_worst
    file = written(
        tmp_path, "gate.toml", "[max]\nmilliseconds = 2.0\nframe_macs_worst = 1\n[min]\ndelta_sparsity = 0.5\n"
    )
    gate = read_gate(file, {"max": [f"frame_macs_worst={worst - 1}", "energy_delta=1e9"]})
    found = {one.name: one for one in check(report, gate)}
    assert {name: one.met for name, one in found.items()} == {
        "min delta_sparsity": True,
        "max milliseconds": True,
        "max frame_macs_worst": False,
        "max energy_delta": True,
    }
    assert found["max frame_macs_worst"].value == worst
    assert found["max milliseconds"].subject == "milliseconds per frame"


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("frame_macs_wurst=1", "did you mean frame_macs_worst"),
        ("xyz=1", "lists all of them"),
        ("milliseconds=1", "deltafine bench RUN adds them"),
        ("relative_error=0.5", "was not measured"),
    ],
)
def test_a_figure_that_is_not_there_cannot_be_limited(option: str, reason: str) -> None:
    with pytest.raises(DeltafineError, match=reason):
        check(make_report(), read_gate(None, {"max": [option]}))


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("2e6", "names no figure"),
        ("videos=many", "no number"),
        ("videos=nan", "no number"),
        ("mac_density=1", "could be 1% or 100%"),
        ("accuracy_change=0", "give max-accuracy-drop"),
    ],
)
def test_a_limit_of_a_figure_names_it_and_a_number(option: str, reason: str) -> None:
    with pytest.raises(DeltafineError, match=reason):
        read_gate(None, {"max": [option]})


def test_a_limit_of_a_share_is_read_as_one() -> None:
    assert read_gate(None, {"max": ["mac_density=15"], "min": ["fidelity=90%"]}).most == {"mac_density": 0.15}


def test_figures_that_differ_by_less_than_is_shown_are_shown_with_more_digits() -> None:
    report = make_report()
    report.models["refined"].streams.operations.mac_density = 0.15004
    (one,) = check(report, Gate({"max-macs-ratio": 0.15}))
    assert not one.met
    assert one.sentence == "MAC density is 15.004%, required: at most 15%"
    change = report.models["refined"].streams.accuracy_change
    assert change
    change.value = -0.01004
    (one,) = check(report, Gate({"max-accuracy-drop": 0.01}))
    assert one.sentence == "accuracy change is -1.004 points, required: at least -1 points"
    assert (one.value, one.bound) == (-0.01004, -0.01)


def test_json_has_the_numbers_that_were_compared() -> None:
    report = make_report()
    outcome = json.loads(render(report, "json", checks=check(report, Gate({"max-macs-ratio": 0.5}))))
    (one,) = outcome["checks"]
    assert one["value"] == report.models["refined"].streams.operations.mac_density
    assert (one["bound"], one["met"]) == (0.5, True)


def test_every_baseline_is_checked() -> None:
    new = make_report()
    comparisons = [compare(new, make_report(), "a"), compare(new, cheaper(), "b")]
    failed = [one for one in check(new, Gate({"max-regression": 0.01}), comparisons) if not one.met]
    assert failed
    assert all("against b" in one.subject for one in failed)


def test_a_regression_without_a_baseline_is_refused() -> None:
    with pytest.raises(DeltafineError, match="--baseline"):
        check(make_report(), Gate({"max-regression": 0.02}))


@pytest.mark.parametrize(
    ("text", "value"),
    [("2%", 0.02), ("0.02", 0.02), (0.5, 0.5), (" 100 % ", 1.0), (0, 0.0), ("2", 0.02), (2, 0.02), (1.5, 0.015)],
)
def test_shares_are_written_as_numbers_or_percentages(text: object, value: float) -> None:
    assert parse_share("x", text) == pytest.approx(value)


@pytest.mark.parametrize("text", [1, "1", "1.0", 1.0, " 1 "])
def test_a_share_of_1_could_be_two_things(text: object) -> None:
    with pytest.raises(DeltafineError, match=r"could be 1% or 100%: write '1%' or '100%'"):
        parse_share("max-accuracy-drop", text)


@pytest.mark.parametrize("text", ["-1%", "many", "", "nan", "inf", True, "101%", [1]])
def test_what_is_no_share_is_refused_by_name(text: object) -> None:
    with pytest.raises(DeltafineError, match="max-macs-ratio"):
        parse_share("max-macs-ratio", text)


def written(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text, "utf-8")
    return file


def test_thresholds_stand_in_pyproject_or_at_the_top_of_a_file_of_their_own(tmp_path: Path) -> None:
    project = written(tmp_path, "pyproject.toml", '[tool.deltafine.gate]\nmin-sparsity = 0.8\nmax-regression = "2%"\n')
    own = written(tmp_path, "gate.toml", 'min-sparsity = 0.8\nmax-regression = "2%"\n')
    assert read_gate(project, {}) == read_gate(own, {})
    assert read_gate(own, {}).limits == {"min-sparsity": 0.8, "max-regression": 0.02}


def test_the_command_line_overrides_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, "gate.toml", 'min-sparsity = 0.8\nmax-accuracy-drop = 0.01\naccuracy-drop-at = "low"\n')
    gate = read_gate(file, {"min-sparsity": "90%", "max-macs-ratio": None})
    assert gate == Gate({"min-sparsity": 0.9, "max-accuracy-drop": 0.01}, "low")


def test_how_a_drop_is_judged_needs_a_drop() -> None:
    with pytest.raises(DeltafineError, match="give both, or neither"):
        read_gate(None, {"accuracy-drop-at": "low"})


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("pyproject.toml", "[project]\nname = 'x'\n", "states no gate"),
        ("gate.toml", "", "states no gate"),
        ("gate.toml", "min-sparsty = 1\n", "did you mean min-sparsity"),
        ("gate.toml", "min-sparsity = \n", "not valid TOML"),
        ("gate.toml", 'accuracy-drop-at = "high"\n', "write value"),
        ("gate.toml", "min-sparsity = true\n", "no share"),
        ("gate.toml", "[gate]\nmin-sparsity = 0.5\n", "unknown section 'gate': write limits below"),
        ("pyproject.toml", "[tool.deltafine.gates]\nmin-sparsity = 0.5\n", r"not below \[tool.deltafine.gates\]"),
        ("gate.toml", "[tool.deltafine.gates]\nmin-sparsity = 0.5\n", r"not below \[tool.deltafine.gates\]"),
        ("pyproject.toml", "[tool.deltafine.gate.limits]\nx = 0.5\n", "unknown section 'limits'"),
        ("gate.toml", "max = 3\n", "names no figure"),
    ],
)
def test_a_wrong_gate_file_is_refused_with_what_to_do(tmp_path: Path, name: str, text: str, reason: str) -> None:
    with pytest.raises(DeltafineError, match=reason):
        read_gate(written(tmp_path, name, text), {})


def test_a_missing_gate_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeltafineError, match="cannot be read"):
        read_gate(tmp_path / "none.toml", {})


def test_junit_has_a_case_per_threshold_and_a_failure_for_each_that_is_not_met() -> None:
    report = make_report(title='<&"\x1b\ufffe')
    checks = check(report, Gate({"min-sparsity": 0.99, "max-macs-ratio": 0.5}))
    root = ElementTree.fromstring(render(report, "junit", checks=checks))
    suite = root.find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert suite.get("name") == 'deltafine: <&"\\x1b\\ufffe'
    failures = [case.get("name") for case in suite.iter("testcase") if case.find("failure") is not None]
    assert failures == ["min-sparsity: delta sparsity"]


def test_github_shows_one_annotation_per_failure_escaped_on_one_line() -> None:
    checks = check(make_report(), Gate({"min-sparsity": 0.99, "max-macs-ratio": 0.5}))
    assert github.error_commands(checks) == [
        "::error title=deltafine min-sparsity::delta sparsity is 88.4%25, required: at least 99.0%25"
    ]


def test_the_job_summary_is_appended_to_what_other_steps_wrote(tmp_path: Path) -> None:
    file = written(tmp_path, "summary.md", "before\n")
    github.add_summary("mine", {"GITHUB_STEP_SUMMARY": str(file)})
    assert file.read_text("utf-8") == "before\nmine\n"
    github.add_summary("mine", {})
    with pytest.raises(DeltafineError, match="cannot be written"):
        github.add_summary("mine", {"GITHUB_STEP_SUMMARY": str(tmp_path)})


def scored(value: float = 0.8, change: float = -0.03, name: str = "my:f1", frozen: float = 0.3) -> Report:
    """A report whose refined model has a score, the original's being ``value - change``."""
    report = make_report(score=ScoreInfo(name=name, against="original", sha256="ab"))
    for model, own in (("original", value - change), ("calibrated", value), ("refined", value)):
        streams = report.models[model].streams
        streams.score, streams.frozen_score = estimate(own, 0.05), estimate(frozen, 0.01)
        if model != "original":
            streams.score_change = estimate(change, 0.02)
    return report


def test_a_score_has_limits_in_its_own_unit() -> None:
    report = scored()
    assert met(report, min_score=0.8)
    assert not met(report, min_score=0.81)
    assert met(report, max_score_drop=0.03)
    assert not met(report, max_score_drop=0.02)
    assert met(report, "low", max_score_drop=0.05)
    assert not met(report, "low", max_score_drop=0.04)
    assert met(scored(31.5, -0.4), min_score=31)


def test_limits_of_a_score_are_numbers_not_shares() -> None:
    gate = read_gate(None, {"min-score": "31", "max-score-drop": "1"})
    assert gate.limits == {"min-score": 31, "max-score-drop": 1}
    assert read_gate(None, {"max-score-drop": "0.1", "accuracy-drop-at": "low"}).accuracy_drop_at == "low"
    with pytest.raises(DeltafineError, match="max-score-drop is -1: write a number from 0 on"):
        read_gate(None, {"max-score-drop": "-1"})
    with pytest.raises(DeltafineError, match="min-score is 'good', which is no number"):
        read_gate(None, {"min-score": "good"})


@pytest.mark.parametrize("limit", ["min_score", "max_score_drop"])
def test_a_limit_of_a_score_needs_one(limit: str) -> None:
    with pytest.raises(DeltafineError, match=r"cannot be checked: .* no score was asked for"):
        met(make_report(), **{limit: 0.5})


def test_with_a_score_a_regression_is_one_of_the_score_and_not_of_accuracy_or_fidelity() -> None:
    before, after = scored(0.8), scored(0.79)
    after.models["refined"].streams.frame_accuracy = estimate(0.1)
    after.models["refined"].streams.fidelity = 0.2
    checks = check(after, Gate({"max-regression": 0.02}), [compare(after, before, "before")])
    assert [one.subject for one in checks if "MAC" not in one.subject and "density" not in one.subject] == [
        "score against before",
        "state against before",
    ]
    assert all(one.met for one in checks)
    score = next(one for one in checks if one.subject.startswith("score"))
    assert (score.measured, score.limit) == ("-1.3%", "at worst -2.0%")
    worse = check(after, Gate({"max-regression": 0.01}), [compare(after, before, "before")])
    assert [one.subject for one in worse if not one.met] == ["score against before"]
    below_zero = [scored(value, name="my:negative_error") for value in (-2.0, -2.1)]
    one = check(below_zero[1], Gate({"max-regression": 0.04}), [compare(below_zero[1], below_zero[0], "before")])[0]
    assert not one.met
    assert one.measured == "-5.0%"


def test_reports_of_different_scores_are_not_compared() -> None:
    with pytest.raises(DeltafineError, match=r"their scores are different functions \(my:f1 and my:f2\)"):
        compare(scored(name="my:f2"), scored(), "before")


def test_the_limits_of_costs_are_not_met_where_the_score_of_the_frozen_control_is_as_good() -> None:
    assert met(scored(), max_macs_ratio=0.5)
    assert not met(scored(frozen=0.8), max_macs_ratio=0.5)
    assert not met(scored(-2.0, 0.0, frozen=-2.01), max_macs_ratio=0.5)
    assert met(scored(-2.0, 0.0, frozen=-3.0), max_macs_ratio=0.5)
