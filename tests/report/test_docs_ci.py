"""The pipelines and commands of docs/ci.md and docs/report.md, executed step by step.

What only the service can do is left out: checking out, setting up Python, installing from the package index, and
keeping artifacts. The rest runs as it stands, in a clone of a repository with a main branch.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from deltafine.cli.report import report
from deltafine.report import Report, write_report
from deltafine.report.formats import FORMATS
from deltafine.report.gate import read_gate
from deltafine.settings import RENAMED, TAKES
from tests.report.builders import data_info, make_report
from tests.report.test_compare import cheaper

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.invalid", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


class Checkout:
    """A clone, on a branch with its own report, of a repository whose main branch has another."""

    def __init__(self, folder: Path, main: Report, branch: Report) -> None:
        origin = folder / "origin"
        origin.mkdir()
        git(origin, "init", "-q")
        (origin / "pyproject.toml").write_text(blocks("ci.md", "toml")[0], "utf-8")
        write_report(main, origin / "run")
        git(origin, "add", ".")
        git(origin, "commit", "-qm", "main")
        self.folder = folder / "clone"
        git(folder, "clone", "-q", str(origin), str(self.folder))
        git(self.folder, "checkout", "-qb", "branch")
        write_report(branch, self.folder / "run")
        self.summary = folder / "summary.md"
        binaries = Path(sys.executable).parent
        assert (binaries / "deltafine").exists(), "the tests run deltafine as it is installed"
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("GITHUB_", "CI_"))
        } | {"PATH": f"{binaries}:{os.environ['PATH']}"}

    def run(self, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a step as both services do: bash, ending at the first failure."""
        return subprocess.run(
            ["bash", "-eo", "pipefail", "-c", script],
            cwd=self.folder,
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            check=False,
        )


def github(checkout: Checkout) -> subprocess.CompletedProcess[str]:
    (job,) = yaml.safe_load(blocks("ci.md", "yaml")[0])["jobs"].values()
    done = None
    for step in job["steps"]:
        assert step.keys() & {"uses", "run"}
        if "run" in step and not step["run"].startswith("pip install"):
            done = checkout.run(
                step["run"],
                GITHUB_ACTIONS="true",
                GITHUB_BASE_REF="main",
                GITHUB_STEP_SUMMARY=str(checkout.summary),
            )
            if done.returncode:
                break
    assert done is not None
    return done


def gitlab(checkout: Checkout) -> subprocess.CompletedProcess[str]:
    (job,) = yaml.safe_load(blocks("ci.md", "yaml")[1]).values()
    lines = [line for line in job["script"] if not line.startswith("pip install")]
    return checkout.run("\n".join(lines), CI_MERGE_REQUEST_TARGET_BRANCH_NAME="main")


def artifact(service: Any, checkout: Checkout) -> ElementTree.Element:
    """The JUnit file that the pipeline says it keeps."""
    text = blocks("ci.md", "yaml")[0 if service is github else 1]
    (document,) = [yaml.safe_load(text)]
    if service is github:
        path = document["jobs"]["gate"]["steps"][-1]["with"]["path"]
    else:
        path = document["sparsity"]["artifacts"]["reports"]["junit"]
    return ElementTree.fromstring((checkout.folder / path).read_text("utf-8"))


@pytest.mark.parametrize("service", [github, gitlab])
def test_a_model_as_good_as_the_one_on_main_passes(service: Any, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, make_report(), make_report())
    done = service(checkout)
    assert done.returncode == 0, done.stderr
    root = artifact(service, checkout)
    assert root.attrib["failures"] == "0"
    assert int(root.attrib["tests"]) == 8


@pytest.mark.parametrize("service", [github, gitlab])
def test_a_model_that_needs_more_macs_than_the_one_on_main_fails(service: Any, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, cheaper(), make_report())
    done = service(checkout)
    assert done.returncode == 1, done.stderr
    assert "NOT MET" in done.stdout
    (failure,) = artifact(service, checkout).iter("failure")
    assert (failure.get("message") or "").startswith("MAC density against baseline.json is +22.3%")


def test_github_gets_a_summary_and_an_annotation(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, cheaper(), make_report())
    done = github(checkout)
    assert "::error title=deltafine max-regression::MAC density against baseline.json" in done.stderr
    assert "## Gate: 1 of 8 not met" in checkout.summary.read_text("utf-8")


@pytest.mark.parametrize("service", [github, gitlab])
def test_a_gate_that_cannot_be_judged_fails_differently(service: Any, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, make_report(data=data_info(fingerprint="other")), make_report())
    done = service(checkout)
    assert done.returncode == 2
    assert "different videos" in done.stderr


def test_the_outcome_for_scripts_is_written_as_json(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, make_report(), make_report())
    _, compare, script = blocks("ci.md", "sh")
    assert checkout.run(compare).returncode == 0
    assert checkout.run(script).returncode == 0
    assert json.loads((checkout.folder / "outcome.json").read_text("utf-8")).keys() >= {"met", "checks", "comparisons"}


def test_every_command_of_the_pages_runs_as_it_stands(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, make_report(), make_report())
    write_report(cheaper(), checkout.folder / "old-run")
    (checkout.folder / "baseline.json").write_bytes((checkout.folder / "run" / "report.json").read_bytes())
    text = (DOCS / "report.md").read_text("utf-8") + (DOCS / "ci.md").read_text("utf-8")
    commands = re.findall(r"^    (deltafine report .*)$", text, re.MULTILINE)
    assert len(commands) == 7
    for command in (command for command in commands if "--data" not in command):  # those measure: see tests/cli
        done = checkout.run(command)
        assert done.returncode == 0, f"{command}\n{done.stderr}"


def test_the_page_is_followed_where_main_has_no_report_yet(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, make_report(), make_report())
    git(checkout.folder, "branch", "-r", "-d", "origin/main")  # nothing of another report is there
    (first,) = re.findall(r"^    (deltafine report .*)$", (DOCS / "ci.md").read_text("utf-8"), re.MULTILINE)
    done = checkout.run(first)
    assert done.returncode == 0, done.stderr
    assert "Gate: all 2 met" in done.stdout


def test_the_page_is_followed_where_main_has_one(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, make_report(), make_report())
    done = checkout.run(blocks("ci.md", "sh")[1])
    assert done.returncode == 0, done.stderr
    assert "Gate: all 8 met" in done.stdout


PROJECT = tomllib.loads((DOCS.parent / "pyproject.toml").read_text("utf-8"))["project"]
DEPENDENCIES = {re.split(r"[<>=]", one)[0]: one for one in PROJECT["dependencies"]}


def of_a_report() -> list[str]:
    """What the page installs where nothing but reports is read."""
    first, second = blocks("ci.md", "sh")[0].splitlines()
    assert second == "pip install --no-deps deltafine"
    return [one for one in shlex.split(first) if one not in ("pip", "install")]


def without_the_rest(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run deltafine where only what the page installs can be imported."""
    rest = sorted(DEPENDENCIES.keys() - {re.split(r"[<>=]", one)[0] for one in of_a_report()})
    forbid = f"""
import sys

class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {rest!r}:
            raise ModuleNotFoundError(f"{{name}} is not installed here", name=name)

sys.meta_path.insert(0, Forbidden())
from deltafine.cli import main

sys.argv = ["deltafine", *sys.argv[1:]]
main()
"""
    command = [sys.executable, "-c", forbid, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_what_the_page_installs_for_reports_is_of_the_versions_of_the_package_and_the_same_in_both_pipelines() -> None:
    assert [one for one in of_a_report() if one not in DEPENDENCIES.values()] == []
    lines = blocks("ci.md", "sh")[0].splitlines()
    (job,) = yaml.safe_load(blocks("ci.md", "yaml")[0])["jobs"].values()
    steps = [step["run"] for step in job["steps"] if "run" in step]
    (of_gitlab,) = yaml.safe_load(blocks("ci.md", "yaml")[1]).values()
    assert steps[:2] == of_gitlab["script"][:2] == lines


@pytest.mark.parametrize(
    "command",
    [
        ["inspect", "m.keras"],
        ["data", "."],
        ["refine", "m.keras", "--data", ".", "--out", "new"],
        ["run", "m.keras", "a"],
    ],
)
def test_other_commands_say_what_is_missing_in_one_sentence(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "m.keras").write_bytes(b"")
    done = without_the_rest(*command, folder=tmp_path)
    assert done.returncode == 2
    said = " ".join(done.stderr.split())
    assert re.search(r"needs \w+, which is not installed here: 'pip install deltafine' installs everything", said), said
    assert "Traceback" not in said
    assert not (tmp_path / "new").exists()


def test_a_gate_needs_nothing_but_what_the_page_installs(tmp_path: Path) -> None:
    write_report(make_report(), tmp_path / "run")
    write_report(cheaper(), tmp_path / "old")
    (tmp_path / "gate.toml").write_text("max-macs-ratio = 0.15\nmax-accuracy-drop = 0.01\n", "utf-8")
    for more, code in (
        (["--gate", "gate.toml", "--format", "html", "--output", "page.html"], 0),
        (["--gate", "gate.toml", "--baseline", "old", "--max-regression", "2%", "--format", "junit"], 1),
        (["--format", "csv"], 0),
        (["--min-accuracy", "0.5", "--format", "json"], 0),
    ):
        done = without_the_rest("report", "run", *more, folder=tmp_path)
        assert done.returncode == code, done.stderr
        assert "not installed here" not in done.stderr


def test_the_python_of_the_page_runs_as_it_stands(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, make_report(), make_report())
    (program,) = blocks("report.md", "python")
    done = checkout.run(f"{shlex.quote(sys.executable)} -c {shlex.quote(program)}")
    assert done.returncode == 0, done.stderr
    assert "block3_conv" in done.stdout


@pytest.mark.parametrize("page", ["report.md", "ci.md"])
def test_the_gates_of_the_pages_are_valid(page: str, tmp_path: Path) -> None:
    (gate,) = blocks(page, "toml")
    (tmp_path / "pyproject.toml").write_text(gate, "utf-8")
    assert read_gate(tmp_path / "pyproject.toml", {}).limits["max-accuracy-drop"] == 0.01


def test_every_option_and_format_of_the_command_is_on_the_page() -> None:
    page = (DOCS / "report.md").read_text("utf-8")
    settings = {*TAKES["report"], *RENAMED}  # which docs/settings.md describes
    options = [name for name in inspect.signature(report).parameters if name not in settings and name != "run"]
    assert len(options) == 24
    assert [name for name in options if f"--{name.rstrip('_').replace('_', '-')}" not in page] == []
    assert [choice for choice in FORMATS.names if f"| `{choice}` |" not in page] == []
