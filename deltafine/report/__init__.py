"""The report of a run: reading, writing, showing, comparing and gating it. Nothing here loads TensorFlow or Keras."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deltafine.document.report import Report as Report
    from deltafine.report.rendering import render as render
    from deltafine.report.store import load_report as load_report
    from deltafine.report.store import write_report as write_report

_HOMES = {
    "Report": "deltafine.document.report",
    "load_report": "deltafine.report.store",
    "render": "deltafine.report.rendering",
    "write_report": "deltafine.report.store",
}

__all__ = ["Report", "load_report", "render", "write_report"]


def __getattr__(name: str) -> Any:
    """Load what reads documents only when it is used: to know the names of the formats needs none of it."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'deltafine.report' has no attribute {name!r}")
