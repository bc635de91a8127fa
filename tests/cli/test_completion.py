"""Completion in a shell, by the real program in processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import shellingham

from deltafine.exporting import FORMATS as EXPORTS
from deltafine.report.formats import FORMATS as REPORTS
from tests.cli.running import Command

PROGRAM = [sys.executable, "-m", "deltafine"]
HEAVY = {"tensorflow", "keras", "numba", "av", "matplotlib"}


def ask(shell: str, line: str, *options: str, **more: str) -> subprocess.CompletedProcess[str]:
    """What the script of a shell asks when Tab is pressed at the end of a line."""
    words = line.split(" ")
    typed = (
        {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)} if shell == "bash" else {"_TYPER_COMPLETE_ARGS": line}
    )
    environment = os.environ | typed | {"_DELTAFINE_COMPLETE": f"complete_{shell}"} | more
    return subprocess.run(
        [sys.executable, *options, "-m", "deltafine"], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("deltafine re", ["refine", "report"]),
        ("deltafine refine --gran", ["--granularity"]),
        ("deltafine refine --threshold-l", ["--threshold-learning-rate"]),  # which --help does not list
        ("deltafine refine --uni", []),  # an old name
        ("deltafine refine --granularity ", ["element", "pixel"]),
        ("deltafine refine --rule s", ["send-on-delta"]),
        ("deltafine refine --task ", ["auto", "classification", "regression", "distill", "outputs"]),
        ("deltafine refine --rescale ", ["0..1", "-1..1", "caffe", "torch"]),
        ("deltafine export run --form s", ["stripped", "streaming"]),
        ("deltafine export run --format ", list(EXPORTS.names)),
        ("deltafine report run --format ", list(REPORTS.names)),
        ("deltafine inspect ", []),  # the shell then completes files
    ],
)
def test_commands_options_and_values_are_completed(line: str, expected: list[str]) -> None:
    done = ask("bash", line)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == expected


def test_zsh_and_fish_are_answered_in_their_own_way() -> None:
    assert '"element"' in ask("zsh", "deltafine refine --granularity ").stdout
    done = ask("fish", "deltafine refine --granularity ", _TYPER_COMPLETE_FISH_ACTION="get-args")
    assert done.stdout.split() == ["element", "pixel"]


@pytest.mark.parametrize("line", ["deltafine ", "deltafine refine --", "deltafine export run --format "])
def test_completing_loads_nothing_heavy(line: str) -> None:
    done = ask("bash", line, "-X", "importtime")
    loaded = {row.rpartition("|")[2].strip().partition(".")[0] for row in done.stderr.splitlines()}
    assert done.stdout
    assert "typer" in loaded
    assert not loaded & HEAVY


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home of its own, where `deltafine` is a command."""
    program = tmp_path / "bin" / "deltafine"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{Path.cwd()}" exec "{sys.executable}" -m deltafine "$@"\n')
    program.chmod(0o755)
    return tmp_path


def bash(home: Path, script: str) -> str:
    environment = os.environ | {"HOME": str(home), "PATH": f"{home / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    return done.stdout


PRESS_TAB = (
    'COMP_WORDS=(deltafine refine --gran); COMP_CWORD=2; _deltafine_completion deltafine; echo "${COMPREPLY[@]}"'
)


def test_bash_completes_with_what_show_completion_prints(home: Path) -> None:
    assert bash(home, f'eval "$(deltafine --show-completion)"; {PRESS_TAB}').split() == ["--granularity"]


def test_bash_completes_once_completion_is_installed(home: Path) -> None:
    (home / ".bashrc").write_text("export KEPT=1\n")
    bash(home, "deltafine --install-completion; true")
    assert bash(home, f'. "$HOME/.bashrc"; echo $KEPT; {PRESS_TAB}').split() == ["1", "--granularity"]


def test_commands_do_not_list_completion(deltafine: Command) -> None:
    assert "--show-completion" in deltafine("--help").output
    for name in ("refine", "report", "data"):
        assert "completion" not in deltafine(name, "--help").output


@pytest.mark.parametrize("option", ["--install-completion", "--show-completion"])
@pytest.mark.parametrize("shell", ["", "nu"])
def test_a_shell_without_completion_is_said(
    option: str, shell: str, deltafine: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def detect_shell() -> tuple[str, str]:
        if not shell:
            raise shellingham.ShellDetectionFailure
        return shell, f"/bin/{shell}"

    monkeypatch.setattr(shellingham, "detect_shell", detect_shell)
    assert option in deltafine(option).refusal
