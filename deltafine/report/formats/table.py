"""A report as tables for a terminal, 80 columns wide or as wide as the terminal is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from deltafine.report import terminal
from deltafine.report.formats.report_format import ReportFormat

if TYPE_CHECKING:
    from rich.console import Console

    from deltafine.document.report import Report
    from deltafine.report.compare import Comparison
    from deltafine.report.gate import Check


class TerminalTable(ReportFormat):
    """What ``deltafine report RUN`` prints.

    Args:
        console: which it is made for; default: what standard output is, in colour where that is a terminal.
    """

    name = "table"
    suffix = None

    def __init__(self, console: Console | None = None) -> None:
        self._console = console

    def render(
        self,
        document: Report,
        comparisons: Sequence[Comparison] = (),
        checks: Sequence[Check] = (),
        pictures: Mapping[str, bytes] | None = None,
    ) -> str:
        from rich.console import Console

        console = self._console or Console()
        with console.capture() as shown:
            terminal.show(document, console)
            for comparison in comparisons:
                terminal.show_comparison(comparison, console)
            if checks:
                terminal.show_checks(checks, console)
        return shown.get()
