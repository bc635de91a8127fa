"""Stopping a run."""

from __future__ import annotations

from pathlib import Path


class Interrupted(KeyboardInterrupt):
    """The user stopped the run; ``saved`` is the best model so far, if an epoch was over."""

    def __init__(self, saved: Path | None) -> None:
        super().__init__()
        self.saved = saved
