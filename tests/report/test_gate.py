"""Thresholds that a report must meet."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from deltafine.document.report import Report
from deltafine.errors import DeltafineError
from deltafine.report import github, render
from deltafine.report.compare import compare
from deltafine.report.gate import Gate, check, parse_share, read_gate
from tests.report.builders import make_report
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
    new.models["refined"].streams.fidelity = None
    checks = check(new, Gate({"max-regression": 1.0}), [compare(new, old, "old")])
    assert [(one.measured, one.met) for one in checks if one.subject.startswith("fidelity")] == [
        ("no longer measured", False)
    ]


def test_every_baseline_is_checked() -> None:
    new = make_report()
    comparisons = [compare(new, make_report(), "a"), compare(new, cheaper(), "b")]
    failed = [one for one in check(new, Gate({"max-regression": 0.01}), comparisons) if not one.met]
    assert failed
    assert all("against b" in one.subject for one in failed)


def test_a_regression_without_a_baseline_is_refused() -> None:
    with pytest.raises(DeltafineError, match="--baseline"):
        check(make_report(), Gate({"max-regression": 0.02}))


@pytest.mark.parametrize(("text", "value"), [("2%", 0.02), ("0.02", 0.02), (0.5, 0.5), (" 100 % ", 1.0), (0, 0.0)])
def test_shares_are_written_as_numbers_or_percentages(text: object, value: float) -> None:
    assert parse_share("x", text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["2", "-1%", "many", "", "nan", "inf", True, "101%", [1]])
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
    file = written(tmp_path, "gate.toml", 'min-sparsity = 0.8\naccuracy-drop-at = "low"\n')
    gate = read_gate(file, {"min-sparsity": "90%", "max-macs-ratio": None})
    assert gate == Gate({"min-sparsity": 0.9}, "low")


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("pyproject.toml", "[project]\nname = 'x'\n", "states no gate"),
        ("gate.toml", "", "states no gate"),
        ("gate.toml", "min-sparsty = 1\n", "did you mean min-sparsity"),
        ("gate.toml", "min-sparsity = \n", "not valid TOML"),
        ("gate.toml", 'accuracy-drop-at = "high"\n', "write value"),
        ("gate.toml", "min-sparsity = true\n", "no share"),
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
