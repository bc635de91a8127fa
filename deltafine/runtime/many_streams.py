"""Advancing several streams of a model at once."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from deltafine.errors import DeltafineError
from deltafine.runtime.plan import Plan
from deltafine.runtime.single_thread import entered

if TYPE_CHECKING:
    from deltafine.runtime.delta_stream import DeltaStream


def step_many(
    plan: Plan,
    frames: Mapping[DeltaStream, np.ndarray],
    further: Mapping[DeltaStream, Mapping[str, Any]] | None = None,
) -> dict[DeltaStream, Any]:
    """See ``DeltaRuntime.step_many``."""
    if not isinstance(frames, Mapping):
        raise DeltafineError("Frames of several streams are given by stream: step_many({stream: frame, ...}).")
    if any(stream._plan is not plan for stream in frames):
        raise DeltafineError("step_many takes streams of this runtime: make them with its stream().")
    with ExitStack() as in_use:
        for stream in frames:
            in_use.enter_context(entered(stream))
        pixels = {stream: stream._accepted(frame, (further or {}).get(stream)) for stream, frame in frames.items()}
        begin = time.perf_counter()
        first = {stream: stream._begun(held=pixels[stream] is None) for stream in frames}
        looked_at = {stream: frame for stream, frame in pixels.items() if frame is not None}
        _advance(looked_at)
        milliseconds = 1e3 * (time.perf_counter() - begin) / max(len(looked_at), 1)
        return {stream: stream._ended(first[stream], milliseconds if stream in looked_at else 0.0) for stream in frames}


def _advance(frames: Mapping[DeltaStream, np.ndarray]) -> None:
    """Advance the states: those that the same tables are read for together, and those in NumPy one by one."""
    groups = defaultdict(list)
    for stream, frame in frames.items():
        program = getattr(stream.state, "program", None)
        if program is None:
            stream.state.step(frame)
        else:
            groups[id(program)].append((stream.state, frame))
    for group in groups.values():
        if len(group) == 1:  # which several threads may share
            ((state, frame),) = group
            state.step(frame)
            continue
        from deltafine.runtime.numba_stream import step_together

        step_together(*zip(*group, strict=True))
