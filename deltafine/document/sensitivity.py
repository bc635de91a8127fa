"""What it costs, and what it gains, to multiply all thresholds while a model runs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from deltafine.document.figures import DocumentObject


class SensitivityPoint(DocumentObject):
    """The model with all thresholds multiplied by one number."""

    sensitivity: float = Field(gt=0, description="the number; 1: as it was refined")
    quality: float
    mac_density: float = Field(description="effective MACs per frame / dense MACs, first frames left out")


class SensitivityCurve(DocumentObject):
    """Quality and cost against that number, on the first frames of some streams."""

    model: str
    judged_by: Literal["accuracy", "error", "fidelity", "score"] = Field(description="what `quality` is")
    videos: int = Field(description="streams that it was measured on")
    frames: int = Field(description="of these streams that it was measured on, the same for each number")
    points: list[SensitivityPoint]
