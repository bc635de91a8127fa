"""The ways a dataset can lie on disk: one file per layout, and the choice between them."""

from __future__ import annotations

from deltafine.video.layouts.choice import LAYOUTS, find

__all__ = ["LAYOUTS", "find"]
