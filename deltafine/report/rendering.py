"""A report in a format, of deltafine's own or another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deltafine.document.report import Report
from deltafine.report.compare import Comparison
from deltafine.report.formats import FORMATS, ReportFormat
from deltafine.report.gate import Check


def render(
    document: Report,
    format: str | ReportFormat = "table",
    *,
    comparisons: Sequence[Comparison] = (),
    checks: Sequence[Check] = (),
    pictures: Mapping[str, bytes] | None = None,
) -> str | bytes:
    """Show a report.

    Args:
        document: as ``load_report`` reads it.
        format: name of a format, or one of your own.
        comparisons: with other reports, of ``deltafine.report.compare``.
        checks: of a gate, of ``deltafine.report.gate``.
        pictures: PNG data by file name, of ``deltafine.report.store.load_pictures``.

    Raises:
        DeltafineError: there is no such format, or the report has nothing that it shows.
    """
    return FORMATS.get(format).render(document, comparisons, checks, pictures)
