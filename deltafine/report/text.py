"""Numbers and names as people read them: the only place where a figure becomes a string.

Names come from files that others made (layers, videos, classes), so every name passes through `clean`: no control
sequence, line break or bidirectional override reaches a terminal, a log or a page.
"""

from __future__ import annotations

import math

from deltafine.document.figures import Estimate, Unit

ABSENT = "-"
"""Shown where a figure was not measured; never 0."""

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_SMALL_PREFIXES = ((1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n"), (1e-12, "p"))


def clean(text: object) -> str:
    """`text` on one line, with everything that a terminal would obey instead of show written as an escape."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in str(text)
    )


def significant(value: float, digits: int = 3) -> str:
    """`value` with `digits` significant digits and no exponent: 0.0123, 1.23, 123, 1230."""
    if not math.isfinite(value):
        return "not finite"
    if value == 0:
        return "0"
    # Rounding first: 0.9996 has one digit before the point once it is 1.00.
    rounded = float(f"{value:.{digits - 1}e}")
    before_point = math.floor(math.log10(abs(rounded))) + 1
    return f"{rounded:.{max(0, digits - before_point)}f}"


def share(value: float) -> str:
    """A share as a percentage with one decimal, more where the first would be lost: 12.6%, 0.042%."""
    if not math.isfinite(value):
        return "not finite"
    percent = 100 * value
    if percent == 0 or abs(percent) >= 1:
        return f"{percent:.1f}%"
    return f"{significant(percent, 2)}%"


def points(value: float) -> str:
    """A difference of shares in percentage points, always signed: -0.4, +0.5."""
    rounded = round(100 * value, 1) if math.isfinite(value) else value
    return f"{rounded + 0.0:+.1f}" if math.isfinite(value) else "not finite"


def scaled(value: float, unit: str = "") -> str:
    """A count with a decimal prefix and three digits: 1.23 M, 456 k, 7."""
    if not math.isfinite(value):
        return "not finite"
    for size, prefix in _PREFIXES:
        # 999.6 k would round to 1000 k: the next prefix takes over just before that.
        if abs(value) >= 0.9995 * size:
            return f"{significant(value / size)} {prefix}{unit}"
    number = f"{value:.0f}" if float(value).is_integer() else significant(value)
    return f"{number} {unit}".rstrip()


def joules(value: float) -> str:
    """An energy with a prefix and three digits: 1.23 mJ, 45.6 uJ."""
    if not math.isfinite(value):
        return "not finite"
    for size, prefix in _SMALL_PREFIXES:
        if abs(value) >= 0.9995 * size:
            return f"{significant(value / size)} {prefix}J"
    return f"{significant(value / 1e-12)} pJ" if value else "0 J"


def times(value: float) -> str:
    """A ratio: 8.3x, 24x."""
    if not math.isfinite(value):
        return "not finite"
    return f"{value:.1f}x" if abs(value) < 99.95 else f"{value:.0f}x"


def shown(value: float | None, unit: Unit) -> str:
    """One figure in its unit, or `ABSENT` where it was not measured."""
    if value is None:
        return ABSENT
    if unit == "share":
        return share(value)
    if unit == "points":
        return points(value)
    if unit == "macs":
        return scaled(value)
    if unit == "bytes":
        return scaled(value, "B")
    if unit == "joules":
        return joules(value)
    if unit == "times":
        return times(value)
    if unit == "number":
        return significant(value)
    return f"{value:.0f}" if math.isfinite(value) else "not finite"


def judged(value: float, what: str) -> str:
    """How good something is, by accuracy, error, fidelity or a score: which alone has a unit of its own."""
    return shown(value, "number" if what == "score" else "share")


def signed(value: float) -> str:
    """A difference of scores: -0.012, +0.5."""
    return f"{'+' if value > 0 else ''}{significant(value, 2)}"


def interval(estimate: Estimate, unit: Unit) -> str:
    """The 95% interval of an estimate: [73.1%, 77.9%] or [-1.2, +0.5]."""
    return f"[{shown(estimate.low, unit)}, {shown(estimate.high, unit)}]"


def duration(seconds: float) -> str:
    """Wall time: 42 s, 3 min 20 s, 2 h 5 min."""
    if not math.isfinite(seconds):
        return "not finite"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def counted(number: int, thing: str, things: str | None = None) -> str:
    """A number with its noun: 1 video, 12 videos."""
    return f"{number} {thing if number == 1 else things or thing + 's'}"


def ordinal(number: int) -> str:
    """2nd, 3rd, 4th, 11th, 21st."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
