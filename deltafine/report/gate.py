"""The gate that a report must pass, from the command line or from a TOML file."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deltafine.document.report import Report
from deltafine.errors import DeltafineError
from deltafine.report.compare import Comparison, Difference
from deltafine.report.control import doubt
from deltafine.report.holding import equal_macs
from deltafine.report.quantities import BY_KEY, figures_of, subject
from deltafine.report.text import clean, points, share, shown
from deltafine.settings import share_of

MIN_GAIN_OVER_HOLD = "min-gain-over-hold"
SHARES = (
    *("min-sparsity", "max-macs-ratio", "max-pixel-density", "max-accuracy-drop", "max-regression"),
    MIN_GAIN_OVER_HOLD,
)
ACCURACY_DROP_AT = "accuracy-drop-at"
NAMES = (*SHARES, ACCURACY_DROP_AT)

REGRESSIONS = (
    "frame_accuracy",
    "window_accuracy",
    "clip_accuracy",
    "fidelity",
    "relative_error",
    "operations.mac_density",
    "operations.pixel_density",
    "operations.frame_macs_p95",
    "operations.state_bytes",
)
"""What --max-regression looks at, on streams: accuracies in share, costs relative to the baseline's."""

_TOLERANCE = 1e-12  # 0.75 - 0.73 is a little more than 0.02 in binary


@dataclass(frozen=True)
class Check:
    """One limit and whether it was met, in words."""

    name: str
    subject: str
    measured: str
    limit: str
    met: bool

    @property
    def sentence(self) -> str:
        return f"{self.subject} is {self.measured}, {'as required' if self.met else 'required'}: {self.limit}"


@dataclass(frozen=True)
class Gate:
    """What a report must keep to.

    Attributes:
        limits: shares by the name of their option.
        accuracy_drop_at: ``"value"``, the estimate, or ``"low"``, its lower end.
    """

    limits: Mapping[str, float] = field(default_factory=dict)
    accuracy_drop_at: str = "value"


def read_gate(file: Path | None, options: Mapping[str, str | None]) -> Gate:
    """The gate of a TOML file, overridden by those options that are not None.

    A file states them below [tool.deltafine.gate], or, unless it is a pyproject.toml, at its top. Raises
    DeltafineError where the file or a value is wrong.
    """
    given: dict[str, Any] = _from_file(file) if file else {}
    given.update({name: value for name, value in options.items() if value is not None})
    at = given.pop(ACCURACY_DROP_AT, "value")
    if at not in ("value", "low"):
        raise DeltafineError(f"{ACCURACY_DROP_AT} is {clean(at)!r}: write value (the estimate) or low (its lower end).")
    return Gate({name: parse_share(name, value) for name, value in given.items()}, at)


def _from_file(file: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise DeltafineError(f"The gate {clean(file)} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise DeltafineError(f"The gate {clean(file)} is not valid TOML: {clean(error)}.") from error
    table: Any = content
    for key in ("tool", "deltafine", "gate"):
        table = table.get(key) if isinstance(table, dict) else None
    if table is None and file.name != "pyproject.toml":
        table = content
    if not isinstance(table, dict) or not table:
        raise DeltafineError(f"{clean(file)} states no gate: write limits below [tool.deltafine.gate].")
    for key in table:
        if key not in NAMES:
            near = difflib.get_close_matches(key, NAMES, 1)
            hint = f"did you mean {near[0]}" if near else f"known are {', '.join(NAMES)}"
            raise DeltafineError(f"{clean(file)} has an unknown limit {clean(key)!r}: {hint}.")
    return dict(table)


def parse_share(name: str, value: object) -> float:
    """A share between 0 and 1, written 0.02 or 2%."""
    try:
        number = float(share_of(str(value)))
    except ValueError:
        number = math.nan
    if isinstance(value, bool) or not 0 <= number <= 1:
        raise DeltafineError(f"{name} is {clean(value)!r}, which is no share: write a number from 0 to 1, or like 2%.")
    return number


def check(report: Report, gate: Gate, comparisons: Sequence[Comparison] = ()) -> list[Check]:
    """Every limit against the subject model on streams.

    Those of costs are not met where the frozen control is as good as the model, whatever it costs.

    Raises DeltafineError where a limit has nothing to look at: no accuracy, or no baseline.
    """
    limits = gate.limits
    figures = figures_of(report, subject(report), "streams")
    why = doubt(report)
    found = []
    for name, key, least in (
        ("min-sparsity", "operations.delta_sparsity", True),
        ("max-macs-ratio", "operations.mac_density", False),
        ("max-pixel-density", "operations.pixel_density", False),
    ):
        if name in limits:
            quantity, limit = BY_KEY[key], limits[name]
            measured = quantity.point(figures)
            met = measured is not None and (measured >= limit - _TOLERANCE if least else measured <= limit + _TOLERANCE)
            word = "at least" if least else "at most"
            found.append(
                _doubted(name, quantity.in_sentence, shown(measured, "share"), f"{word} {share(limit)}", met, why)
            )
    if "max-accuracy-drop" in limits:
        found.append(_accuracy_check(report, limits["max-accuracy-drop"], gate.accuracy_drop_at))
    if MIN_GAIN_OVER_HOLD in limits:
        found.append(_gain_check(report, limits[MIN_GAIN_OVER_HOLD], why))
    if "max-regression" in limits:
        if not comparisons:
            raise DeltafineError("max-regression needs something to compare with: give --baseline RUN.")
        for comparison in comparisons:
            found += _regression_checks(comparison, limits["max-regression"], why)
    return found


def _doubted(name: str, subject: str, measured: str, limit: str, met: bool, why: str) -> Check:
    """The check of a cost; never met where a network that never updates, and costs nothing, is as good."""
    return Check(name, subject, f"{measured}, which says nothing: {why}" if why else measured, limit, met and not why)


def _accuracy_check(report: Report, limit: float, at: str) -> Check:
    change = figures_of(report, subject(report), "streams").accuracy_change
    if change is None:
        raise DeltafineError(
            f"max-accuracy-drop cannot be checked: {clean(report.title)!r} has no accuracy change on streams, "
            "because labels or the original model were missing."
        )
    measured = change.low if at == "low" else change.value
    return Check(
        "max-accuracy-drop",
        "accuracy change" if at == "value" else "lower end of the accuracy change",
        f"{points(measured)} points",
        f"at least {points(-limit)} points",
        -measured <= limit + _TOLERANCE,
    )


def _gain_check(report: Report, limit: float, why: str) -> Check:
    """At equal MACs: accuracy or fidelity in points, an error as a share of the error of the original held."""
    compared = equal_macs(report)
    if compared is None:
        raise DeltafineError(
            f"{MIN_GAIN_OVER_HOLD} cannot be checked: {clean(report.title)!r} has no delta model beside an original "
            "whose answers were held; measure both again."
        )
    said = share if compared.judged_by == "error" else lambda value: f"{points(value)} points"
    return _doubted(
        MIN_GAIN_OVER_HOLD,
        f"gain of {compared.judged_by} over the original held at equal MACs",
        said(compared.gain),
        f"at least {said(limit)}",
        compared.gain >= limit - _TOLERANCE,
        why,
    )


def _regression_checks(comparison: Comparison, limit: float, why: str) -> list[Check]:
    found = []
    for difference in comparison.of("streams"):
        if difference.quantity.key in REGRESSIONS and difference.before is not None:
            accuracy = difference.quantity.group == "Accuracy"
            allowed = f"{points(-limit)} points" if accuracy else f"+{share(limit)}"
            found.append(
                _doubted(
                    "max-regression",
                    f"{difference.quantity.in_sentence} against {clean(comparison.baseline)}",
                    difference.shown_change if difference.after is not None else "no longer measured",
                    f"at worst {allowed}",
                    _within(difference, limit, accuracy),
                    why if difference.quantity.of_updates else "",
                )
            )
    return found


def _within(difference: Difference, limit: float, accuracy: bool) -> bool:
    before, after = difference.before, difference.after
    if before is None or after is None:
        return False
    if accuracy:
        return before - after <= limit + _TOLERANCE
    # Multiplied out, so that a cost of 0 may stay 0 and nothing else.
    return after <= before * (1 + limit + _TOLERANCE)
