"""The ways a dataset can lie on disk: a class each, behind one contract (``layout.py``), and the choice."""

from __future__ import annotations

from deltafine.video.layouts.choice import LAYOUTS, find
from deltafine.video.layouts.layout import Layout, LayoutOptions

__all__ = ["LAYOUTS", "Layout", "LayoutOptions", "find"]
