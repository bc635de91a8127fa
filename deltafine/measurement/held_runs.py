"""Measuring a model that runs on every k-th frame: its counts and answers, frame by frame of the video."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from deltafine.measurement.probe import Piece, PlaceCounts, Probe

CHANGES = ("changed", "changed_positions", "macs_spatial", "macs_delta", "channel_changed")
"""Of the counts of a place, those that are 0 where nothing is computed."""


@dataclass
class HeldState:
    """Where a stream stands.

    Attributes:
        seen: frames so far; windows, of a network that takes clips.
        last: the piece that the model ran on last, with what it carries along.
    """

    seen: int
    last: Piece


def run_held(probe: Probe, frames: np.ndarray, state: HeldState | None, every: int) -> tuple[Piece, HeldState]:
    """Run on every k-th frame of a stream, from its first on; the piece has all frames.

    On a frame that is left out nothing changes and nothing is computed. Its values, its staleness and its prediction
    are those of the frame before.

    Args:
        probe: the model.
        frames: (batch, time, height, width, channels); one window, of a network that takes clips.
        state: where the stream stands; None at its beginning.
        every: k.
    """
    seen = 0 if state is None else state.seen
    by_window = probe.window is not None
    steps = 1 if by_window else frames.shape[1]
    runs = (seen + np.arange(steps)) % every == 0
    last = None if state is None else state.last
    ran = None
    if runs.any():
        ran = probe.run(frames if by_window else frames[:, runs], None if last is None else last.state)
    now = HeldState(seen + steps, ran or _of(last))
    return now.last if runs.all() else _with_held(last, ran, runs, by_window), now


def _of(piece: Piece | None) -> Piece:
    assert piece is not None  # every stream begins with a run
    return piece


def _with_held(last: Piece | None, ran: Piece | None, runs: np.ndarray, by_window: bool) -> Piece:
    """All frames of a piece, or a window: from those that ran, after what was before."""
    source = np.cumsum(runs)  # 0: before the piece
    known = ran or _of(last)

    def line(of: Callable[[Piece], np.ndarray], *, changes: bool = False) -> np.ndarray:
        """Values (batch, time, ...) of all frames; on those that are left out there are no changes."""
        if by_window:  # with steps of its own
            values = of(known)
            return np.zeros_like(values) if changes else np.repeat(values[:, -1:], values.shape[1], axis=1)
        before = of(known)[:, :1] if last is None else of(last)[:, -1:]
        values = (before if ran is None else np.concatenate([before, of(ran)], axis=1))[:, source]
        if changes:
            values[:, ~runs] = 0
        return values

    def counts_at(index: int) -> PlaceCounts:
        found: dict[str, Any] = {
            name: line(lambda piece, name=name: getattr(piece.counts[index], name), changes=name in CHANGES)  # type: ignore[misc]
            for name, value in vars(known.counts[index]).items()
            if isinstance(value, np.ndarray)
        }
        return replace(known.counts[index], **found)

    held = np.broadcast_to(~runs, (len(known.steady), len(runs)))
    return Piece(
        predictions=line(lambda piece: piece.predictions),
        counts=[counts_at(index) for index in range(len(known.counts))],
        steady=line(lambda piece: piece.steady) | held,
        state=known.state,
        held=held,
    )
