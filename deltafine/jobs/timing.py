"""The delta runtime and dense ones on the same frames, taking turns."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from deltafine.jobs.frame_times import percentile

DELTA = "deltafine"
TURN = 16
"""Frames of a turn. One frame alone would find the caches filled by the other runtimes, as no camera's frame does."""

Frame = TypeVar("Frame")


@dataclass
class Times:
    """Milliseconds per frame of one runtime."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def wall_percentile(self, percent: float) -> float:
        """Of the time that passed, see ``deltafine.jobs.frame_times``."""
        return percentile(self.wall, percent)

    @property
    def processor_median(self) -> float:
        """Of the processor time of all threads: what other work on the machine disturbs least."""
        return percentile(self.processor, 50)


def take_turns(
    runs: Mapping[str, Callable[[Frame], object]],
    frames: Iterable[Frame],
    reset: Callable[[], None] = lambda: None,
    heard: Callable[[str, Any], None] = lambda name, answer: None,
) -> dict[str, Times]:
    """Time every runtime on every frame of one video, some frames at a time, one runtime after the other.

    Args:
        runs: by name; each takes a frame, or whatever stands for it.
        frames: of one video, in order; the first of each turn is computed by all and not timed.
        reset: called before the first frame.
        heard: told the answer of each of them to each frame; that is not timed.
    """
    times = {name: Times() for name in runs}
    reset()
    rest = iter(frames)
    while block := list(itertools.islice(rest, TURN)):
        for name, run in runs.items():
            for number, frame in enumerate(block):
                begin, begin_processor = time.perf_counter(), time.process_time()
                answer = run(frame)
                processor, wall = time.process_time() - begin_processor, time.perf_counter() - begin
                if number >= 1:
                    times[name].wall.append(1e3 * wall)
                    times[name].processor.append(1e3 * processor)
                heard(name, answer)
    return times


def merged(rounds: Iterable[Mapping[str, Times]]) -> dict[str, Times]:
    """The times of several videos together."""
    result: dict[str, Times] = {}
    for one_round in rounds:
        for name, times in one_round.items():
            kept = result.setdefault(name, Times())
            kept.wall += times.wall
            kept.processor += times.processor
    return result


def fastest_dense(times: Mapping[str, Times]) -> str:
    """The dense runtime with the smallest median of processor time."""
    return min((name for name in times if name != DELTA), key=lambda name: times[name].processor_median)
