"""The ways to show a report: one file each, behind one contract (``format.py``)."""

from __future__ import annotations

from deltafine.registry import Registry
from deltafine.report.formats.report_format import ReportFormat

_HERE = "deltafine.report.formats"

FORMATS: Registry[ReportFormat] = Registry(
    "report format",
    {
        "table": f"{_HERE}.table:TerminalTable",
        "json": f"{_HERE}.json:Json",
        "csv": f"{_HERE}.csv:Csv",
        "markdown": f"{_HERE}.markdown:Markdown",
        "html": f"{_HERE}.html:Html",
        "junit": f"{_HERE}.junit:JUnit",
    },
)

__all__ = ["FORMATS", "ReportFormat"]
