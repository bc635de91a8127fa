"""Who is told how far a run is."""

from __future__ import annotations

from typing import Protocol

from deltafine.document.history import Epoch


class Listener(Protocol):
    """Told how far a refinement is."""

    def say(self, text: str) -> None:
        """One line about what was found or comes next."""

    def progress(self, what: str, done: int, total: int, figures: str = "") -> None:
        """``done`` of ``total`` of something, with the latest figures in words; total 0: nobody knows of how much."""

    def epoch(self, epoch: Epoch, epochs: int) -> None:
        """An epoch is over."""
