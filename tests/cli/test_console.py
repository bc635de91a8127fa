"""What reaches standard error, and what does not."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

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


@pytest.mark.parametrize("option", ["-h", "-V"])
def test_the_usual_short_options_are_known(option: str) -> None:
    done = subprocess.run([sys.executable, "-m", "deltafine", option], capture_output=True, text=True, check=True)
    assert ("Usage: deltafine" if option == "-h" else "deltafine 0.") in done.stdout
