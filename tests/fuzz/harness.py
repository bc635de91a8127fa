"""Feeding thousands of mutated files to what reads them, with limits on time and memory."""

from __future__ import annotations

import resource
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from deltafine.errors import DeltafineError

FEW, MANY = 30, 2000
SECONDS = 10
BYTES = 2 << 30


class Hang(BaseException):
    """Something took too long."""


def fuzz(inputs: SearchStrategy[Any], read: Callable[[Any], object], examples: int) -> Counter[str]:
    """Let ``read`` have mutated inputs: it may take each or refuse it with a ``DeltafineError``, and nothing else.

    Returns:
        How many were taken, and how many refused.
    """
    counts: Counter[str] = Counter()

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs)
    def attempt(content: Any) -> None:
        with limits():
            try:
                read(content)
                counts["taken"] += 1
            except DeltafineError as error:
                counts["refused" if str(error).rstrip().endswith((".", "?")) else f"refused badly: {error}"] += 1

    attempt()
    assert counts.keys() <= {"taken", "refused"}, counts
    print(f"{sum(counts.values())} inputs: {dict(counts)}")
    return counts


@contextmanager
def limits() -> Iterator[None]:
    """At most 10 seconds and 2 GiB for what is done within."""
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", "utf-8")  # the peak is counted anew
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + 2 * BYTES, hard))
    handler = signal.signal(signal.SIGALRM, _too_long)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    profiler = signal.signal(signal.SIGPROF, _too_long)
    signal.alarm(30 * SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGALRM, handler)
        signal.signal(signal.SIGPROF, profiler)
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    assert status("VmHWM") - before < BYTES


def _too_long(*_: object) -> None:
    raise Hang(f"more than {SECONDS} seconds of processor time")


def status(name: str) -> int:
    """A figure of this process in bytes, as Linux keeps it."""
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)
