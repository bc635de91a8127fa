"""Measured times per frame as a table that every way to show a report shares."""

from __future__ import annotations

from deltafine.document.report import Timing
from deltafine.report.text import clean, counted, ordinal, significant, times

HEADINGS = ("ms per frame", "p50", "p95", "CPU p50", "deltafine is", "in CPU time")


def title(timing: Timing) -> str:
    """What was timed where."""
    held = f", of every {ordinal(timing.every)} frame" if timing.every > 1 else ""
    return f"Milliseconds per frame{held}, {counted(timing.threads, 'thread')}"


def lines(timing: Timing) -> list[tuple[str, ...]]:
    """A line for each runtime, in the columns of ``HEADINGS``: ratios of medians, above 1 where deltafine is faster."""
    ours = timing.runtimes[0]
    return [
        (
            clean(one.name),
            significant(one.p50),
            significant(one.p95),
            significant(one.processor_p50),
            "" if one is ours else _ratio(one.p50, ours.p50),
            "" if one is ours else _ratio(one.processor_p50, ours.processor_p50),
        )
        for one in timing.runtimes
    ]


def sentence(timing: Timing) -> str:
    """On what it was measured, and with how many threads."""
    versions = timing.versions
    held = f"; per frame of the video each time is divided by {timing.every}" if timing.every > 1 else ""
    return (
        f"{counted(timing.frames, 'frame')} of {counted(timing.videos, 'video')} ({timing.data}), runtimes in turn, "
        f"some frames at a time, on {timing.machine}; the dense ones with {counted(timing.threads, 'thread')}, "
        f"deltafine {versions.deltafine} ({timing.engine}) with one, Python {versions.python}, {timing.created}{held}."
    )


def _ratio(dense: float, delta: float) -> str:
    return f"{times(dense / delta)} as fast" if delta > 0 else ""
