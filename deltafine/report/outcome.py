"""A comparison and a gate as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from deltafine.document.report import Report
from deltafine.report.compare import Comparison
from deltafine.report.gate import Check


def outcome(report: Report, comparisons: Sequence[Comparison], checks: Sequence[Check]) -> dict[str, Any]:
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
