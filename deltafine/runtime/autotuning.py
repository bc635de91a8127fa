"""Choosing how to run each convolution: by rows or by events, from timings on the user's frames on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np

from deltafine.errors import DeltafineError
from deltafine.runtime.frame_counts import macs_per_row
from deltafine.runtime.kernels import columns as layout
from deltafine.runtime.numba_stream import KerasCall, NumbaState
from deltafine.runtime.packed_plan import Program
from deltafine.runtime.plan import Plan, can_run_by_events

WARM_UP = 4
"""Frames that are not counted: the first is computed whole, and sums for events are taken up after it."""

CLEARLY_FASTER = 0.9


def choose(plan: Plan, frames: Iterable[np.ndarray], keras_call: KerasCall) -> dict[str, float]:
    """Run the frames both ways and compare, convolution by convolution.

    Returns:
        For each convolution that is clearly faster by events: how many times as much one multiply-accumulate costs.

    Raises:
        DeltafineError: there are too few frames.
    """
    video = [np.asarray(frame, np.float32) for frame in frames]
    if len(video) <= WARM_UP + 1:
        raise DeltafineError(f"Calibrating takes more than {WARM_UP + 1} frames, there are {len(video)}.")
    candidates = [place for place, operation in enumerate(plan.operations) if can_run_by_events(operation)]
    program = Program(plan)
    by_rows, rows = _timed(NumbaState(program, keras_call), video)
    free = {plan.operations[place].name: 0.0 for place in candidates}
    by_events, events = _timed(NumbaState(Program(plan, free), keras_call), video)
    places = {operation.output: place for place, operation in enumerate(plan.operations)}
    for index, added in program.part_of.items():  # by rows, it is computed there
        for seconds in (by_rows, by_events):
            seconds[places[index]] += seconds[places[added.output]]
    row_macs = rows[:, layout.ROWS] * macs_per_row(plan)
    event_macs = events[:, layout.EVENT_MACS]
    choice = {}
    for place in candidates:
        if event_macs[place] and row_macs[place] and by_events[place] < CLEARLY_FASTER * by_rows[place]:
            price = (by_events[place] / event_macs[place]) / (by_rows[place] / row_macs[place])
            choice[plan.operations[place].name] = float(price)
    return choice


def _timed(state: NumbaState, video: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of processor time per operation, and the counters, after the warm-up."""
    size = len(state.program.operations)
    seconds = np.zeros(size)
    for number, frame in enumerate(video):
        if number == WARM_UP:
            seconds[:], state.counters[:] = 0, 0
        state.take_in(frame)
        for first, last in state.program.sections:
            together = state.program.plan.runs_in_python(state.program.plan.operations[first])
            for place in [first] if together else range(first, last):
                begin = time.thread_time()
                state.run(place, last if together else place + 1)
                seconds[place] += time.thread_time() - begin
        state.end_frame()
    return seconds, state.counters
