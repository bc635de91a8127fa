"""Which figures of a report cannot be: an accuracy above 1, a negative density, what is not a number."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pydantic import BaseModel

from deltafine.document.figures import Estimate, NamedFigure
from deltafine.document.report import Controls, Report, SensitivityCurve

SHARES = {
    *("frame_accuracy", "window_accuracy", "clip_accuracy", "frozen_accuracy", "fidelity", "frozen_fidelity"),
    "accuracy",
    *("activation_density", "delta_density", "pixel_density", "mac_density", "mac_density_with_first"),
    *("mac_density_spatial", "activation_sparsity", "delta_sparsity", "silent_channels", "saturated_channels"),
    *("thresholds_at_floor", "coverage", "mac_share", "share", "followed"),
}
"""From 0 to 1."""
CHANGES = {"accuracy_change", "gain_over_frozen"}
"""From -1 to 1."""
ANY_NUMBER = {"score", "score_change", "frozen_score", "answer", "original", "truth"}
"""Finite."""
MAY_DIVERGE = {
    *("relative_error", "label_error", "frozen_error", "error", "staleness"),
    *("threshold_minimum", "threshold_median", "threshold_maximum"),
}
"""Of a model that has diverged these are not finite."""
_JUDGED = ("quality", "low", "high")
"""Of controls and of the curve against sensitivity: in the range of what these are judged by."""
_ROUNDING = 1e-6


def out_of_range(report: Report) -> str:
    """The first figure that cannot be, in words; empty if all can."""
    parts: list[tuple[str, BaseModel]] = [("model", report.model)]
    parts += [(f"sites.{place}", site) for place, site in enumerate(report.sites)]
    parts += [(f"models.{name}", measurement) for name, measurement in report.models.items()]
    parts += [(f"timings.{place}", timing) for place, timing in enumerate(report.timings)]
    beside = {"controls": report.controls, "sensitivity": report.sensitivity}
    parts += [(path, part) for path, part in beside.items() if part is not None]
    for path, part in parts:
        for where, name, value in _figures(path, part):
            if isinstance(part, Controls | SensitivityCurve) and name in _JUDGED:
                name = part.judged_by
            low = -math.inf if name in ANY_NUMBER else -1.0 if name in CHANGES else 0.0
            high = 1.0 if name in SHARES | CHANGES else math.inf
            if math.isfinite(value) and low - _ROUNDING <= value <= high + _ROUNDING:
                continue
            if name in MAY_DIVERGE and (math.isnan(value) or value == math.inf):
                continue
            return f"{where} is {value:g}, and must be {_range(low, high)}"
    return ""


def _range(low: float, high: float) -> str:
    if not math.isfinite(low):
        return "a finite number"
    return f"a number from {low:g} to {high:g}" if math.isfinite(high) else "a finite number that is not negative"


def _figures(path: str, part: BaseModel, name: str = "") -> Iterator[tuple[str, str, float]]:
    """The place, the name and the value of every number of a part; an estimate has its name in all of its fields."""
    if isinstance(part, NamedFigure):  # what it may be, only its metric knows
        return
    for field, value in part:
        where = f"{path}.{field}"
        own = name or field
        entries = list(enumerate(value)) if isinstance(value, list) else []
        if isinstance(value, BaseModel):
            yield from _figures(where, value, own if isinstance(value, Estimate) else "")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield where, own, _as_float(value)
        for place, entry in entries:
            if isinstance(entry, BaseModel):
                yield from _figures(f"{where}.{place}", entry)


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number may be larger than any float
        return math.inf
