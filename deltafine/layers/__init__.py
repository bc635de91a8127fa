"""Delta layers: what is inserted into a model, and how it is trained."""

from __future__ import annotations

from deltafine.layers.delta_activation import THRESHOLD_SCOPES, DeltaActivation
from deltafine.layers.events import EventDensity
from deltafine.layers.rules import GRANULARITIES, RULES, EventRule, relative_change
from deltafine.layers.state_deltas import StateDelta
from deltafine.layers.stream import Stream, current_stream
from deltafine.layers.time import FoldTime, TimeLast, TimeMean, UnfoldTime

__all__ = [
    "GRANULARITIES",
    "RULES",
    "THRESHOLD_SCOPES",
    "DeltaActivation",
    "EventDensity",
    "EventRule",
    "FoldTime",
    "StateDelta",
    "Stream",
    "TimeLast",
    "TimeMean",
    "UnfoldTime",
    "current_stream",
    "relative_change",
]
