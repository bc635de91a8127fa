"""What is saved, against more than a dense inference: factors that do not flatter."""

from __future__ import annotations

import math
from dataclasses import dataclass

from deltafine.document.report import Report
from deltafine.report.quantities import figures_of, subject
from deltafine.report.text import times


@dataclass(frozen=True)
class Saving:
    """How many times less the subject model needs on streams.

    Attributes:
        name: as it stands behind the figure.
        meaning: what is divided by what.
        value: above 1 where it saves.
    """

    name: str
    meaning: str
    value: float


def savings(report: Report) -> list[Saving]:
    """Those that can be told from what was measured: the first is against a dense inference."""
    model = subject(report)
    own = figures_of(report, model, "streams").operations
    found: list[tuple[str, str, float, float | None]] = [
        ("against dense", "dense MACs / effective MACs", float(own.dense_macs), own.effective_macs_delta)
    ]
    if model != "original" and "original" in report.models:
        original = figures_of(report, "original", "streams").operations
        found += [
            (
                "against the original that skips zeros",
                "MACs of the original that meet a non-zero input / effective MACs",
                original.effective_macs_spatial,
                own.effective_macs_delta,
            ),
            (
                "against the original with lossless deltas",
                "MACs of the original that meet any change / effective MACs",
                original.effective_macs_delta,
                own.effective_macs_delta,
            ),
        ]
    if own.density_with_overhead is not None:
        meaning = "dense MACs / (effective MACs + comparisons, subtractions and moves)"
        found.append(("with overhead", meaning, 1.0, own.density_with_overhead))
    if own.energy_dense is not None:
        meaning = "energy of a dense inference / of a delta inference: an estimate"
        found.append(("in energy (estimated)", meaning, own.energy_dense, own.energy_delta))
    return [
        Saving(name, meaning, above / below)
        for name, meaning, above, below in found
        if below and math.isfinite(above / below)
    ]


def sentence(report: Report) -> str:
    """All of them in a line; empty where there is nothing beside dense."""
    found = savings(report)
    return ", ".join(f"{times(one.value)} {one.name}" for one in found) if len(found) > 1 else ""
