"""The report of a run: reading, writing, showing, comparing and gating it. Nothing here loads TensorFlow."""

from __future__ import annotations

from deltafine.document.report import Report
from deltafine.report.store import load_report, write_report

__all__ = ["Report", "load_report", "write_report"]
