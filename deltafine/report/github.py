"""What GitHub Actions shows of a gate: annotations, and a summary of the job."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from deltafine.errors import DeltafineError
from deltafine.report.gate import Check
from deltafine.report.text import clean

SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"


def in_actions() -> bool:
    """Whether this process is a step of a GitHub Actions job."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def error_commands(checks: Sequence[Check]) -> list[str]:
    """One workflow command per limit that was not met."""
    return [
        f"::error title={_escaped(f'deltafine {check.name}', True)}::{_escaped(check.sentence)}"
        for check in checks
        if not check.met
    ]


def add_summary(markdown: str, environment: Mapping[str, str] = os.environ) -> None:
    """Append to the job's summary where there is one; other steps write to the same file."""
    file = environment.get(SUMMARY_VARIABLE)
    if not file:
        return
    try:
        with Path(file).open("a", encoding="utf-8") as stream:
            stream.write(markdown + "\n")
    except OSError as error:
        raise DeltafineError(
            f"The job summary {clean(file)} that {SUMMARY_VARIABLE} names cannot be written: {error.strerror or error}."
        ) from error


def _escaped(text: str, in_property: bool = False) -> str:
    """Escaped as workflow commands demand; line breaks are gone already, names having been cleaned."""
    escaped = clean(text).replace("%", "%25")
    return escaped.replace(":", "%3A").replace(",", "%2C") if in_property else escaped
