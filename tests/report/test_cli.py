"""`deltafine report` on saved reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import typer
from typer.testing import CliRunner

from deltafine.cli.report import report as command
from deltafine.errors import DeltafineError
from deltafine.report import write_report
from tests.report.builders import data_info, make_report
from tests.report.test_compare import cheaper

app = typer.Typer()
app.command()(command)


@pytest.fixture(autouse=True)
def outside_of_any_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests may themselves run in GitHub Actions."""
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_report(make_report(), tmp_path / "run")
    return tmp_path / "run"


def test_a_run_is_shown_as_a_table(run: Path) -> None:
    result = CliRunner().invoke(app, [str(run)])
    assert result.exit_code == 0
    assert "9.1x fewer MACs" in result.output


def test_json_is_the_document_itself(run: Path) -> None:
    result = CliRunner().invoke(app, [str(run), "--format", "json"])
    assert json.loads(result.output) == json.loads((run / "report.json").read_text("utf-8"))


@pytest.mark.parametrize(("format", "file"), [("markdown", "report.md"), ("html", "report.html")])
def test_text_formats_are_what_the_run_directory_holds(run: Path, format: str, file: str) -> None:
    result = CliRunner().invoke(app, [str(run), "--format", format])
    assert result.output == (run / file).read_text("utf-8")


def test_a_missing_run_is_the_users_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(tmp_path / "nowhere")])
    assert isinstance(result.exception, DeltafineError)


def in_a_process(*arguments: str, encoding: str = "utf-8") -> tuple[str, float]:
    """Output and process seconds of `deltafine report` in a fresh interpreter."""
    program = (
        "import atexit, sys, time\n"
        "from deltafine.cli import main\n"
        "def tell():\n"
        "    heavy = {'tensorflow', 'keras', 'matplotlib', 'numpy'} & sys.modules.keys()\n"
        "    print(time.process_time(), *heavy, file=sys.stderr)\n"
        "atexit.register(tell)\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "report", *arguments],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 0, done.stderr.decode()
    seconds, *heavy = done.stderr.decode().splitlines()[-1].split()
    assert not heavy
    return done.stdout.decode(encoding), float(seconds)


def is_quick(*arguments: str) -> bool:
    """Within 5 times the process time in which its libraries load; on a busy machine with some more tries."""
    return any(in_a_process(*arguments)[1] < 5 * seconds_of_loading() for _ in range(5))


def seconds_of_loading() -> float:
    """Process seconds of an interpreter that loads what any report needs, and ends."""
    program = "import pydantic, rich.console, rich.table, time, typer.main; print(time.process_time())"
    return float(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)


def test_a_saved_report_is_shown_quickly_and_without_tensorflow(run: Path) -> None:
    assert is_quick(str(run))


def test_names_that_the_output_cannot_hold_are_escaped(tmp_path: Path) -> None:
    write_report(make_report(title="Straße 道"), tmp_path)
    out, _ = in_a_process(str(tmp_path), encoding="ascii")
    assert "Stra\\xdfe \\u9053" in out


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_gate_that_is_met_exits_0_and_one_that_is_not_exits_1(run: Path) -> None:
    passed = invoke(run, "--max-macs-ratio", "12%", "--max-accuracy-drop", "0.01")
    assert passed.exit_code == 0
    assert "Gate: all 2 met" in passed.output
    failed = invoke(run, "--max-macs-ratio", "10%", "--max-accuracy-drop", "0.01")
    assert failed.exit_code == 1
    assert "Gate: 1 of 2 not met" in failed.output
    assert "NOT MET" in failed.output


def test_thresholds_of_a_file_gate_too(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text("[tool.deltafine.gate]\nmin-sparsity = 0.99\n", "utf-8")
    assert invoke(run, "--gate", file).exit_code == 1
    assert invoke(run, "--gate", file, "--min-sparsity", "0.5").exit_code == 0


def test_several_baselines_are_compared_and_each_is_named(run: Path, tmp_path: Path) -> None:
    write_report(make_report(), tmp_path / "one")
    write_report(cheaper(), tmp_path / "two")
    result = invoke(run, "--baseline", tmp_path / "one", "--baseline", tmp_path / "two", "--max-regression", "2%")
    assert result.exit_code == 1
    lines = "".join(result.output.split("\n"))
    assert f"Against {tmp_path / 'one'}" in lines
    assert f"Against {tmp_path / 'two'}" in lines
    assert max(len(line) for line in result.output.splitlines()) <= 80


def test_another_data_set_is_refused_unless_forced(run: Path, tmp_path: Path) -> None:
    write_report(make_report(data=data_info(fingerprint="sha256:0")), tmp_path / "other")
    assert isinstance(invoke(run, "--baseline", tmp_path / "other").exception, DeltafineError)
    forced = invoke(run, "--baseline", tmp_path / "other", "--force")
    assert forced.exit_code == 0
    assert "Not comparable" in forced.output


def test_junit_can_be_written_while_the_table_is_shown(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "junit.xml"
    result = invoke(run, "--min-sparsity", "0.99", "--format", "junit", "--output", file)
    assert result.exit_code == 1
    assert "Gate: 1 of 1 not met" in result.output
    root = ElementTree.fromstring(file.read_text("utf-8"))
    assert root.attrib["failures"] == "1"


def test_a_failed_gate_is_told_beside_a_format_not_inside_it(run: Path) -> None:
    result = invoke(run, "--min-sparsity", "0.99", "--format", "json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["met"] is False
    assert "Not met: delta sparsity is 88.4%, required: at least 99.0%" in result.stderr


def test_the_outcome_as_json_holds_every_difference(run: Path, tmp_path: Path) -> None:
    write_report(cheaper(), tmp_path / "old")
    outcome = json.loads(invoke(run, "--baseline", tmp_path / "old", "--format", "json").stdout)
    (comparison,) = outcome["comparisons"]
    (density,) = [
        one for one in comparison["figures"] if one["figure"] == "mac_density" and one["feeding"] == "streams"
    ]
    assert density["verdict"] == "worse"
    assert density["change"] == pytest.approx(density["after"] - density["before"])


def test_csv_of_a_comparison_is_the_comparison(run: Path) -> None:
    assert invoke(run, "--format", "csv").stdout.startswith("model,feeding")
    assert invoke(run, "--format", "csv", "--baseline", run).stdout.startswith("baseline,feeding")


def test_html_of_a_gate_and_a_baseline_shows_both(run: Path) -> None:
    page = invoke(run, "--format", "html", "--baseline", run, "--min-sparsity", "0.99").stdout
    assert "Gate: 1 of 1 not met" in page
    assert "Against " in page


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--format", "junit"], "none is set"),
        (["--output", "x"], "--output needs"),
        (["--max-regression", "2%"], "--baseline"),
        (["--min-sparsity", "101"], "no share"),
        (["--max-accuracy-drop", "1"], "write '1%' or '100%'"),
        (["--accuracy-drop-at", "low"], "give both, or neither"),
        (["--format", "csv", "--output", "missing/x.csv"], "cannot be written"),
    ],
)
def test_wrong_use_is_one_sentence(run: Path, arguments: list[str], reason: str) -> None:
    error = invoke(run, *arguments).exception
    assert isinstance(error, DeltafineError)
    assert reason in str(error)


def test_in_github_actions_failures_are_annotated_and_the_job_has_a_summary(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    result = invoke(run, "--min-sparsity", "0.99")
    assert "::error title=deltafine min-sparsity::" in result.stderr
    assert "Gate: 1 of 1 not met" in (tmp_path / "summary.md").read_text("utf-8")


def test_outside_github_actions_nothing_is_annotated(run: Path) -> None:
    assert "::error" not in invoke(run, "--min-sparsity", "0.99").output


def test_comparing_and_gating_stays_within_600_ms_of_process_time(run: Path, tmp_path: Path) -> None:
    write_report(make_report(), tmp_path / "old")
    arguments = [str(run), "--baseline", str(tmp_path / "old"), "--max-regression", "2%"]
    assert is_quick(*arguments)
