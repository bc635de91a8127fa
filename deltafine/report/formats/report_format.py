"""What a report format is: one class in one file that shows a report, its comparisons and its gate.

``deltafine.report.formats`` holds those that there are. CONTRIBUTING.md has a worked example.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from deltafine.document.report import Report
    from deltafine.report.compare import Comparison
    from deltafine.report.gate import Check


class ReportFormat(ABC):
    """A way to show a report."""

    name: ClassVar[str]
    """As it is chosen, such as ``markdown``."""
    suffix: ClassVar[str | None]
    """Of a file in this format, such as ``.md``; None for one that is shown and not kept."""
    shows_pictures: ClassVar[bool] = False
    """Whether pictures are given to it; else they need not be read."""

    @abstractmethod
    def render(
        self,
        document: Report,
        comparisons: Sequence[Comparison] = (),
        checks: Sequence[Check] = (),
        pictures: Mapping[str, bytes] | None = None,
    ) -> str | bytes:
        """The whole report.

        Names in a report come from files that others made: pass each through ``deltafine.report.text.clean``.

        Args:
            document: what was measured.
            comparisons: with baselines, to be shown as well.
            checks: the thresholds of a gate, and whether each was met.
            pictures: PNG data of those of ``document.pictures`` that are at hand, by file name.

        Returns:
            Text, which is written as UTF-8; or bytes.

        Raises:
            DeltafineError: the report has nothing that this format shows.
        """
