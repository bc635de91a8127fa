"""What reaches standard error, and what does not."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import Any

import pytest
from rich.cells import cell_len

from deltafine.cli.console import Talk
from deltafine.document.history import Epoch

SCRIPT = """
import os, sys
from deltafine.cli.console import quiet_standard_error, print_note
with quiet_standard_error():
    os.write(2, b"start-up notes\\n")
    print_note("a video was left out.")
print("after", file=sys.stderr)
"""


def test_notes_are_shown_while_start_up_notes_are_not() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == ["Note: a video was left out.", "after"]


def test_a_line_of_an_epoch_says_what_the_epoch_is_judged_by(capsys: pytest.CaptureFixture[str]) -> None:
    row: dict[str, Any] = {"epoch": 1, "loss": 1.0, "task_loss": 1.0, "penalty_loss": 0.0, "penalty": 1.0}
    row |= {"validation_mac_density": 0.25, "validation_pixel_density": 0.5, "seconds": 1.0}
    with Talk() as talk:
        for what in ("accuracy", "error", "fidelity", "score", None):
            talk.epoch(Epoch(**row, validation_accuracy=0.462, judged_by=what), 1)
    said = [line.partition("streams ")[2].partition(",")[0] for line in capsys.readouterr().out.splitlines()]
    assert said == ["accuracy 0.462", "error 0.538", "fidelity 0.462", "score 0.462", "accuracy 0.462"]


def test_a_phase_of_unknown_length_has_its_name_and_the_time_that_passed_on_a_terminal_and_no_line_elsewhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Talk() as talk:
        talk.progress("loading the model", 0, 0)
        talk.progress("measuring", 1, 3)
        talk.progress("drawing pictures", 0, 0)
    assert capsys.readouterr().out == "measuring: 1 of 3\n"
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    with Talk() as talk:
        talk.progress("loading the model", 0, 0)
        talk.progress("loading the model", 0, 0)
    shown = capsys.readouterr().out
    assert "loading the model" in shown
    assert "0:00:00" in shown
    with Talk() as talk:
        talk.progress("measuring", 1, 3)
    assert "1/3" in capsys.readouterr().out


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_on_a_narrow_terminal_figures_are_left_out_of_a_progress_line_and_none_is_cut(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"FORCE_COLOR": "1", "COLUMNS": str(width), "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    with Talk() as talk:
        talk.progress("epoch 12", 3, 340, "loss 0.123  accuracy 0.500  expected MACs 0.020")
    shown = capsys.readouterr().out
    assert "epoch 12" in shown
    assert "3/340" in shown
    assert "\u2026" not in shown
    assert "loss 0.123" in shown
    assert ("accuracy 0.500" in shown) == (width > 40)
    assert ("expected" in shown) == ("expected MACs 0.020" in shown) == (width > 60)


@pytest.mark.parametrize("option", ["-h", "-V"])
def test_the_usual_short_options_are_known(option: str) -> None:
    done = subprocess.run([sys.executable, "-m", "deltafine", option], capture_output=True, text=True, check=True)
    assert ("Usage: deltafine" if option == "-h" else "deltafine 0.") in done.stdout


SENTENCE = (
    "6 frames: median 0.04 ms, p95 0.10 ms, first 0.15 ms; MACs after the first 1.2% of dense; [numba] \u65b9\u5f62"
)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_lines_are_wrapped_between_words_on_a_terminal(width: int) -> None:
    script = f"from deltafine.cli.console import print_text; print_text({SENTENCE!r})"
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": str(width), "TERM": "xterm"}
    done = subprocess.Popen([sys.executable, "-c", script], stdout=theirs, env=environment)
    assert done.wait() == 0
    lines = os.read(ours, 10_000).decode().split("\r\n")[:-1]
    os.close(ours)
    os.close(theirs)
    assert all(cell_len(line) <= width for line in lines)
    assert " ".join(line.strip() for line in lines) == SENTENCE
    assert len(lines) == {40: 3, 60: 2, 80: 2, 120: 1}[width]


def test_lines_are_kept_whole_elsewhere() -> None:
    script = f"from deltafine.cli.console import print_text; print_text({SENTENCE!r})"
    environment = os.environ | {"COLUMNS": "40", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=environment, check=True)
    assert done.stdout.decode() == SENTENCE + "\n"
