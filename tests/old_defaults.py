"""Settings as they were when other defaults held, to compare with what earlier versions wrote."""

from __future__ import annotations

from typing import Any

from deltafine.settings import RefineSettings, resolve

DEFAULTS: dict[str, Any] = {
    "penalty": 20.0, "epochs": 4, "learning_rate": 1e-3, "warmup": 0.1, "recalibrate": 0, "training_divergence": 0.05,
    "freeze_batchnorm": False, "task": "classification",
}  # fmt: skip


def as_before(**values: Any) -> RefineSettings:
    """The settings that these values gave before version 0.2."""
    return resolve(model="m", data="d", **{**DEFAULTS, **values}).model_copy(update={"start": None, "at": ()})
