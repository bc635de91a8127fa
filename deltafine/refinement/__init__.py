"""The run: settings, calibration, training step, checkpoints."""

from __future__ import annotations

from deltafine.refinement.settings import RefineSettings, resolve

__all__ = ["RefineSettings", "resolve"]
