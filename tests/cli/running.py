"""Running the command line inside the test process, so that TensorFlow is loaded once."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest

from deltafine.cli import main


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it said."""

    code: int
    output: str
    errors: str

    @property
    def refusal(self) -> str:
        """The one sentence of a refused input."""
        assert self.code == 2, self
        assert "Traceback" not in self.errors + self.output, self.errors
        lines = self.errors.strip().splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("Error: ")
        assert lines[0].endswith((".", "?"))
        return lines[0].removeprefix("Error: ")


class Command:
    """`deltafine` with arguments, as the console script runs it."""

    def __init__(self, capture: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capture = capture
        self._monkeypatch = monkeypatch

    def __call__(self, *arguments: object) -> Done:
        self._monkeypatch.setattr(sys, "argv", ["deltafine", *map(str, arguments)])
        self._capture.readouterr()
        code: object = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        assert isinstance(code, int)
        captured = self._capture.readouterr()
        return Done(code, captured.out, captured.err)
