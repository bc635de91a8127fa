"""A report as JSON; with baselines or a gate, these instead."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from deltafine.document.report import Report
from deltafine.report.compare import Comparison
from deltafine.report.formats.report_format import ReportFormat
from deltafine.report.gate import Check
from deltafine.report.store import json_text
from deltafine.storage.files import JsonObject


class Json(ReportFormat):
    """The document as it stands in report.json; or what was compared and demanded."""

    name = "json"
    suffix = ".json"

    def render(
        self,
        document: Report,
        comparisons: Sequence[Comparison] = (),
        checks: Sequence[Check] = (),
        pictures: Mapping[str, bytes] | None = None,
    ) -> str:
        if not (comparisons or checks):
            return json_text(document)
        return json.dumps(_outcome(document, comparisons, checks), indent=1) + "\n"


def _outcome(report: Report, comparisons: Sequence[Comparison], checks: Sequence[Check]) -> JsonObject:
    """What was compared and demanded; the figures themselves are in report.json."""
    return {
        "title": report.title,
        "met": all(check.met for check in checks),
        "checks": [asdict(check) for check in checks],
        "comparisons": [
            {
                "baseline": comparison.baseline,
                "models": {"before": comparison.model_before, "after": comparison.model_after},
                "obstacles": list(comparison.obstacles),
                "doubts": list(comparison.doubts),
                "figures": [
                    {
                        "figure": one.quantity.key.rpartition(".")[2],
                        "feeding": one.feeding,
                        "before": one.before,
                        "after": one.after,
                        "change": one.change,
                        "verdict": one.verdict,
                    }
                    for one in comparison.differences
                ],
                "layers": [asdict(layer) for layer in comparison.layers],
            }
            for comparison in comparisons
        ],
    }
