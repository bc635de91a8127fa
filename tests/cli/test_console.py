"""What reaches standard error, and what does not."""

from __future__ import annotations

import subprocess
import sys

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
