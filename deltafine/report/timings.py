"""Measured times per frame as a table that every way to show a report shares."""

from __future__ import annotations

from deltafine.document.report import Timing
from deltafine.report.text import clean, counted, ordinal, shown, significant, times

_ANSWERS = (
    ("agrees", "fidelity"),
    ("differs", "relative_error"),
    ("accuracy", "accuracy"),
    ("error", "label_error"),
)
_TIMES = ("ms per frame", "p50", "p95", "CPU p50", "deltafine is", "in CPU time")


def title(timing: Timing) -> str:
    """What was timed where."""
    held = f", of every {ordinal(timing.every)} frame" if timing.every > 1 else ""
    precision = f", deltafine in {clean(timing.precision)}" if timing.precision != "float32" else ""
    return f"Milliseconds per frame{held}, {counted(timing.threads, 'thread')}{precision}"


def headings(timing: Timing) -> tuple[str, ...]:
    """Of the columns of ``lines``: with how far answers agree, and how good they are, where that was looked at."""
    return (*_TIMES, *(heading for heading, field in _ANSWERS if _found(timing, field)))


def lines(timing: Timing) -> list[tuple[str, ...]]:
    """A line for each runtime below ``headings``: ratios of medians, above 1 where deltafine is faster."""
    ours = timing.runtimes[0]
    return [
        (
            clean(one.name),
            significant(one.p50),
            significant(one.p95),
            significant(one.processor_p50),
            "" if one is ours else _ratio(one.p50, ours.p50),
            "" if one is ours else _ratio(one.processor_p50, ours.processor_p50),
            *(shown(getattr(one, field), "share") for _, field in _ANSWERS if _found(timing, field)),
        )
        for one in timing.runtimes
    ]


def sentence(timing: Timing) -> str:
    """On what it was measured, and with how many threads."""
    versions = timing.versions
    held = f"; per frame of the video each time is divided by {timing.every}" if timing.every > 1 else ""
    ours = f"{versions.deltafine} ({timing.engine}, {timing.precision})"
    own_threads = str(timing.delta_threads) if timing.delta_threads > 1 else "one"
    return (
        f"{counted(timing.frames, 'frame')} of {counted(timing.videos, 'video')} ({timing.data}), runtimes in turn, "
        f"some frames at a time, on {timing.machine}; the dense ones with {counted(timing.threads, 'thread')}, "
        f"deltafine {ours} with {own_threads}, Python {versions.python}, {timing.created}{held}."
    )


def _found(timing: Timing, field: str) -> bool:
    return any(getattr(one, field) is not None for one in timing.runtimes)


def _ratio(dense: float, delta: float) -> str:
    return f"{times(dense / delta)} as fast" if delta > 0 else ""
