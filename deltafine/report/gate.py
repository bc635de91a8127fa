"""The gate that a report must pass, from the command line or from a TOML file."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from deltafine.document.figures import Unit
from deltafine.document.report import Report
from deltafine.errors import DeltafineError
from deltafine.report.compare import Comparison, Difference
from deltafine.report.control import doubt
from deltafine.report.equal_time import equal_time
from deltafine.report.holding import EqualCost, equal_macs
from deltafine.report.quantities import BY_KEY, QUANTITIES, Quantity, figures_of, quantities_of, subject
from deltafine.report.text import clean, points, share, shown, signed
from deltafine.settings import is_ambiguous, share_of

MIN_GAIN_OVER_HOLD = "min-gain-over-hold"
SHARES = (
    *("min-sparsity", "max-macs-ratio", "max-pixel-density", "max-accuracy-drop", "max-regression"),
    MIN_GAIN_OVER_HOLD,
)
ACCURACY_DROP_AT = "accuracy-drop-at"
MAX_SCORE_DROP = "max-score-drop"
NUMBERS = ("min-score", MAX_SCORE_DROP)
"""Limits of scores, which have units of their own."""
ABSOLUTE = {
    "min-score": ("score",),
    "min-accuracy": ("frame_accuracy", "window_accuracy"),
    "max-error": ("label_error", "relative_error"),
    "min-fidelity": ("fidelity",),
}
"""What these look at, on streams: the first of these figures that was measured."""
BY_FIGURE = ("min", "max")
"""Limits of any figure, by its name in report.json, or of one in ``MILLISECONDS``."""
MILLISECONDS = {"milliseconds": "p50", "milliseconds_p95": "p95"}
"""Of the delta runtime, per frame; of several timings the slowest."""
NAMES = (*SHARES, *ABSOLUTE, MAX_SCORE_DROP, ACCURACY_DROP_AT, *BY_FIGURE)

REGRESSIONS = (
    "score",
    "frame_accuracy",
    "window_accuracy",
    "clip_accuracy",
    "fidelity",
    "label_error",
    "relative_error",
    "operations.mac_density",
    "operations.pixel_density",
    "operations.frame_macs_p95",
    "operations.state_bytes",
)
"""What --max-regression looks at, on streams: accuracies in share, scores and costs relative to the baseline's."""
WITHOUT = {
    "frame_accuracy": ("score",),
    "window_accuracy": ("score",),
    "clip_accuracy": ("score",),
    "fidelity": ("score", "frame_accuracy", "window_accuracy"),
    "label_error": ("score",),
    "relative_error": ("score", "label_error"),
}
"""What counts only where the baseline has none of these: what was asked for counts, and with labels, being right, not
being like the original."""

_TOLERANCE = 1e-12  # 0.75 - 0.73 is a little more than 0.02 in binary


@dataclass(frozen=True)
class Check:
    """One limit and whether it was met.

    Attributes:
        name: of the limit.
        subject: what it is about, in words.
        measured: what was found, in words.
        limit: in words.
        met: whether it is.
        value: what was compared, not rounded; None where nothing was measured. Changes of accuracy are shares: -0.01
            is one point less.
        bound: what it was compared with.
    """

    name: str
    subject: str
    measured: str
    limit: str
    met: bool
    value: float | None = None
    bound: float | None = None

    @property
    def sentence(self) -> str:
        return f"{self.subject} is {self.measured}, {'as required' if self.met else 'required'}: {self.limit}"


@dataclass(frozen=True)
class Gate:
    """What a report must keep to.

    Attributes:
        limits: shares by the name of their option.
        accuracy_drop_at: ``"value"``, the estimate, or ``"low"``, its lower end.
        least: of figures by their name in report.json.
        most: the same.
        gain_of_score: ``min-gain-over-hold`` as it was written, for reports that are judged by a score, which is no
            share; None: as in ``limits``.
    """

    limits: Mapping[str, float] = field(default_factory=dict)
    accuracy_drop_at: str = "value"
    least: Mapping[str, float] = field(default_factory=dict)
    most: Mapping[str, float] = field(default_factory=dict)
    gain_of_score: float | None = None


def read_gate(file: Path | None, options: Mapping[str, str | Sequence[str] | None]) -> Gate:
    """The gate of a TOML file, overridden by those options that are not None.

    A file states them below [tool.deltafine.gate], or, unless it is a pyproject.toml, at its top. Raises
    DeltafineError where the file or a value is wrong.
    """
    given: dict[str, Any] = _from_file(file) if file else {}
    by_figure = {name: _by_figure(name, given.pop(name, {}), options.get(name) or ()) for name in BY_FIGURE}
    given.update({name: value for name, value in options.items() if value is not None and name not in BY_FIGURE})
    at = given.pop(ACCURACY_DROP_AT, None)
    if at not in ("value", "low", None):
        raise DeltafineError(f"{ACCURACY_DROP_AT} is {clean(at)!r}: write value (the estimate) or low (its lower end).")
    if at is not None and not {"max-accuracy-drop", MAX_SCORE_DROP} & given.keys():
        raise DeltafineError(
            f"{ACCURACY_DROP_AT} says how max-accuracy-drop is judged, and that is not given: give both, or neither."
        )
    limits = {
        name: _number(name, value) if name in NUMBERS else parse_share(name, value, whole=name != "max-error")
        for name, value in given.items()
    }
    if limits.get(MAX_SCORE_DROP, 0.0) < 0:
        raise DeltafineError(f"{MAX_SCORE_DROP} is {limits[MAX_SCORE_DROP]:g}: write a number from 0 on.")
    gain = given.get(MIN_GAIN_OVER_HOLD)
    of_score = None if gain is None else _number(MIN_GAIN_OVER_HOLD, gain)
    return Gate(limits, at or "value", by_figure["min"], by_figure["max"], of_score)


def _by_figure(name: str, table: Any, options: str | Sequence[str]) -> dict[str, float]:
    """Limits of figures by name, of a TOML table and of options such as ``frame_macs_worst=2e6``."""
    if not isinstance(table, dict):
        raise DeltafineError(f"{name} is {clean(table)!r}, and names no figure: write {name}.frame_macs_worst = 2e6.")
    found: dict[str, Any] = dict(table)
    for option in [options] if isinstance(options, str) else options:
        figure, equals, value = option.partition("=")
        if not equals:
            raise DeltafineError(
                f"--{name} {clean(option)} names no figure: write FIGURE=NUMBER, such as frame_macs_worst=2e6."
            )
        found[figure.strip()] = value.strip()
    return {figure: _bound(name, figure, value) for figure, value in found.items()}


def _bound(name: str, figure: str, value: object) -> float:
    """The limit of a figure, as its unit is read."""
    unit = next((one.unit for one in QUANTITIES if one.key.rpartition(".")[2] == figure), "number")
    what = f"{name} {clean(figure)}"
    if unit == "points":
        raise DeltafineError(f"{what} cannot be a limit: give max-accuracy-drop.")
    return parse_share(what, value, whole=False) if unit == "share" else _number(what, value)


def _number(name: str, value: object) -> float:
    try:
        number = float(share_of(value)) if isinstance(value, str) and value.endswith("%") else float(str(value))
    except ValueError:
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise DeltafineError(f"{name} is {clean(value)!r}, which is no number: write one, such as 2e6, or like 2%.")
    return number


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
    if table is None and file.name != "pyproject.toml" and not _instead(content):
        table = content
    if not isinstance(table, dict) or not table:
        raise DeltafineError(
            f"{clean(file)} states no gate: write limits below [tool.deltafine.gate]{_instead(content)}."
        )
    for key, value in table.items():
        if key not in NAMES:
            what = "section" if isinstance(value, dict) else "limit"
            if what == "section":
                hint = "write limits below [tool.deltafine.gate]"
            elif near := difflib.get_close_matches(key, NAMES, 1):
                hint = f"did you mean {near[0]}"
            else:
                hint = f"known are {', '.join(NAMES)}"
            raise DeltafineError(f"{clean(file)} has an unknown {what} {clean(key)!r}: {hint}.")
    return dict(table)


def _instead(content: Mapping[str, Any]) -> str:
    """What a file has in place of a gate: sections of deltafine with other names."""
    tool = content.get("tool")
    ours = tool.get("deltafine") if isinstance(tool, dict) else None
    names = list(ours) if isinstance(ours, dict) else []
    return f", not below [tool.deltafine.{clean(names[0])}]" if names and names[0] != "gate" else ""


def parse_share(name: str, value: object, whole: bool = True) -> float:
    """A share between 0 and 1, written 0.02, 2% or 2; not 1, which could be 1% or 100%.

    With ``whole`` False it may be more than the whole, as 120%.
    """
    if not isinstance(value, bool) and (value == 1 or is_ambiguous(value)):
        raise DeltafineError(f"{name} is {clean(value)}, which could be 1% or 100%: write '1%' or '100%'.")
    try:
        number = float(share_of(str(value)))
    except ValueError:
        number = math.nan
    if isinstance(value, bool) or not 0 <= number <= (1 if whole else math.inf):
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
            quantity = BY_KEY[key]
            found.append(_figure_check(name, quantity, quantity.point(figures), limits[name], least, why))
    for name, keys in ABSOLUTE.items():
        if name in limits:
            quantity = _measured(report, name, keys)
            found.append(
                _figure_check(name, quantity, quantity.point(figures), limits[name], name.startswith("min"), why)
            )
    for bounds, least in ((gate.least, True), (gate.most, False)):
        for figure, bound in bounds.items():
            quantity, value = _figure(report, figure)
            name = f"{'min' if least else 'max'} {clean(figure)}"
            found.append(_figure_check(name, quantity, value, bound, least, why))
    if "max-accuracy-drop" in limits:
        found.append(_accuracy_check(report, limits["max-accuracy-drop"], gate.accuracy_drop_at))
    if MAX_SCORE_DROP in limits:
        found.append(_score_check(report, limits[MAX_SCORE_DROP], gate.accuracy_drop_at))
    if MIN_GAIN_OVER_HOLD in limits:
        found += _gain_checks(report, limits[MIN_GAIN_OVER_HOLD], gate.gain_of_score, why)
    if "max-regression" in limits:
        if not comparisons:
            raise DeltafineError("max-regression needs something to compare with: give --baseline RUN.")
        for comparison in comparisons:
            found += _regression_checks(comparison, limits["max-regression"], why)
    return found


def _figure_check(name: str, quantity: Quantity, value: float | None, bound: float, least: bool, why: str) -> Check:
    """The check of one figure."""
    met = value is not None and (value >= bound - _TOLERANCE if least else value <= bound + _TOLERANCE)
    measured, limit = _apart(value, bound, quantity.unit)
    return _doubted(
        Check(name, quantity.in_sentence, measured, f"{'at least' if least else 'at most'} {limit}", met, value, bound),
        why if quantity.of_updates else "",
    )


def _apart(value: float | None, bound: float, unit: Unit) -> tuple[str, str]:
    """Both in words, with more digits where rounding would show different ones as the same."""
    measured, limit = shown(value, unit), shown(bound, unit)
    if measured != limit or value is None or abs(value - bound) <= _TOLERANCE:
        return measured, limit
    if unit in ("share", "points"):
        sign = "+" if unit == "points" else ""
        return tuple(f"{100 * one:{sign}.9g}{'%' if unit == 'share' else ''}" for one in (value, bound))  # type: ignore[return-value]
    return f"{value:.9g}", f"{bound:.9g}"


def _measured(report: Report, name: str, keys: Sequence[str]) -> Quantity:
    """The first of these figures that there is."""
    figures = figures_of(report, subject(report), "streams")
    for key in keys:
        if BY_KEY[key].read(figures) is not None:
            return BY_KEY[key]
    reason = {
        "min-score": "no score was asked for; refine --score gives one",
        "min-accuracy": "there are no labels, or the answers are numbers",
        "max-error": "the answers are classes",
        "min-fidelity": "the answers are numbers, or the original model was not measured",
    }[name]
    raise DeltafineError(f"{name} cannot be checked: {clean(report.title)!r} has no such figure, because {reason}.")


def _figure(report: Report, name: str) -> tuple[Quantity, float]:
    """A figure on streams by its name in report.json, or one of ``MILLISECONDS``."""
    if name in MILLISECONDS:
        taken = [getattr(timing.runtimes[0], MILLISECONDS[name]) for timing in report.timings]
        if not taken:
            raise DeltafineError(
                f"{name} cannot be checked: {clean(report.title)!r} has no times; deltafine bench RUN adds them."
            )
        return Quantity(name, "Milliseconds per frame", "number", "lower", "Time", ""), max(taken)
    figures = figures_of(report, subject(report), "streams")
    known = {quantity.key.rpartition(".")[2]: quantity for quantity in quantities_of(figures)}
    if name not in known:
        near = difflib.get_close_matches(name, [*known, *MILLISECONDS], 1)
        hint = f"did you mean {near[0]}" if near else "report --format csv lists all of them"
        raise DeltafineError(f"There is no figure {clean(name)!r} to limit: {hint}.")
    value = known[name].point(figures)
    if value is None:
        raise DeltafineError(f"{name} cannot be checked: it was not measured of {clean(report.title)!r}.")
    return known[name], value


def _doubted(check: Check, why: str) -> Check:
    """The check of a cost; never met where a network that never updates, and costs nothing, is as good."""
    return replace(check, measured=f"{check.measured}, which says nothing: {why}", met=False) if why else check


def _accuracy_check(report: Report, limit: float, at: str) -> Check:
    change = figures_of(report, subject(report), "streams").accuracy_change
    if change is None:
        raise DeltafineError(
            f"max-accuracy-drop cannot be checked: {clean(report.title)!r} has no accuracy change on streams, "
            "because labels or the original model were missing."
        )
    value = change.low if at == "low" else change.value
    measured, bound = _apart(value, -limit, "points")
    return Check(
        "max-accuracy-drop",
        "accuracy change" if at == "value" else "lower end of the accuracy change",
        f"{measured} points",
        f"at least {bound} points",
        -value <= limit + _TOLERANCE,
        value,
        -limit,
    )


def _score_check(report: Report, limit: float, at: str) -> Check:
    change = figures_of(report, subject(report), "streams").score_change
    if change is None:
        raise DeltafineError(
            f"{MAX_SCORE_DROP} cannot be checked: {clean(report.title)!r} has no change of score, because no score was "
            "asked for (--score), or the original model is missing."
        )
    value = change.low if at == "low" else change.value
    measured, bound = _apart(value, -limit, "number")
    subject_of = "change of score" if at == "value" else "lower end of the change of score"
    return Check(MAX_SCORE_DROP, subject_of, measured, f"at least {bound}", -value <= limit + _TOLERANCE, value, -limit)


def _gain_checks(report: Report, limit: float, of_score: float | None, why: str) -> list[Check]:
    """At equal MACs, and in equal time where times were measured: both must be met."""
    compared, in_time = equal_macs(report), equal_time(report)
    if compared is None:
        raise DeltafineError(
            f"{MIN_GAIN_OVER_HOLD} cannot be checked: {clean(report.title)!r} has no delta model beside an original "
            "whose answers were held; measure both again."
        )
    if compared.judged_by == "score" and of_score is not None:
        limit = of_score
    found = [_gain_check(compared, limit, "at equal MACs", why)]
    if in_time is not None:
        found.append(_gain_check(in_time.compared, limit, f"in equal time, by {clean(in_time.runtime)}", why))
    return found


def _gain_check(compared: EqualCost, limit: float, where: str, why: str) -> Check:
    """Accuracy or fidelity in points, an error as a share of the error of the original held, a score as it is."""
    said = share if compared.judged_by == "error" else lambda value: f"{points(value)} points"
    said = signed if compared.judged_by == "score" else said
    check = Check(
        MIN_GAIN_OVER_HOLD,
        f"gain of {compared.judged_by} over the original held {where}",
        said(compared.gain),
        f"at least {said(limit)}",
        compared.gain >= limit - _TOLERANCE,
        compared.gain,
        limit,
    )
    return _doubted(check, why)


def _regression_checks(comparison: Comparison, limit: float, why: str) -> list[Check]:
    found = []
    there = {one.quantity.key: one for one in comparison.of("streams") if one.before is not None}
    for key in REGRESSIONS:
        if key not in there or any(other in there for other in WITHOUT.get(key, ())):
            continue
        difference = there[key]
        before, after = there[key].before, there[key].after
        accuracy = difference.quantity.group == "Accuracy"
        allowed = f"{points(-limit)} points" if accuracy else f"+{share(limit)}"
        value = difference.change if accuracy or not before or after is None else (after - before) / abs(before)
        higher = difference.quantity.better == "higher"
        if higher and not accuracy:
            allowed = share(-limit)
        check = Check(
            "max-regression",
            f"{difference.quantity.in_sentence} against {clean(comparison.baseline)}",
            difference.shown_change if after is not None else "no longer measured",
            f"at worst {allowed}",
            _within(difference, limit, accuracy),
            value,
            -limit if higher else limit,
        )
        found.append(_doubted(check, why if difference.quantity.of_updates else ""))
    return found


def _within(difference: Difference, limit: float, accuracy: bool) -> bool:
    before, after = difference.before, difference.after
    if before is None or after is None:
        return False
    if accuracy:
        return before - after <= limit + _TOLERANCE
    if difference.quantity.better == "higher":
        return before - after <= abs(before) * (limit + _TOLERANCE)
    # Multiplied out, so that a cost of 0 may stay 0 and nothing else.
    return after <= before * (1 + limit + _TOLERANCE)
