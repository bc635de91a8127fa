"""Measuring what a model computes and what of it was needed: one metric per file, behind one contract (``metric``)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deltafine.measurement.probe import Probe as Probe
    from deltafine.measurement.side_by_side import measure as measure

_HOMES = {"measure": "deltafine.measurement.side_by_side", "Probe": "deltafine.measurement.probe"}

__all__ = ["Probe", "measure"]


def __getattr__(name: str) -> Any:
    """Load what needs TensorFlow only when it is used: reading figures does not."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'deltafine.measurement' has no attribute {name!r}")
