"""deltafine: refine pretrained Keras models for temporal sparsity on video.

Everything public is loaded when first used, so that ``import deltafine`` stays instant and does not load
TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from deltafine.registration import register_layers_with_keras

__version__ = "0.1.0"

_HOMES = {
    "DeltaActivation": "deltafine.layers",
    "DeltaRuntime": "deltafine.runtime.runtime",
    "DeltafineError": "deltafine.errors",
    "DeltafineWarning": "deltafine.errors",
    "bench": "deltafine.jobs.bench",
    "export": "deltafine.jobs.export",
    "find_activations": "deltafine.model",
    "insert_deltas": "deltafine.model",
    "inspect_model": "deltafine.jobs.inspect",
    "load_report": "deltafine.report",
    "measure": "deltafine.measurement",
    "measure_model": "deltafine.jobs.measure",
    "open_dataset": "deltafine.video",
    "refine": "deltafine.jobs.refine",
}

__all__ = [*sorted(_HOMES), "__version__"]

if TYPE_CHECKING:
    from deltafine.errors import DeltafineError as DeltafineError
    from deltafine.errors import DeltafineWarning as DeltafineWarning
    from deltafine.jobs.bench import bench as bench
    from deltafine.jobs.export import export as export
    from deltafine.jobs.inspect import inspect_model as inspect_model
    from deltafine.jobs.measure import measure_model as measure_model
    from deltafine.jobs.refine import refine as refine
    from deltafine.layers import DeltaActivation as DeltaActivation
    from deltafine.measurement import measure as measure
    from deltafine.model import find_activations as find_activations
    from deltafine.model import insert_deltas as insert_deltas
    from deltafine.report import load_report as load_report
    from deltafine.runtime.runtime import DeltaRuntime as DeltaRuntime
    from deltafine.video import open_dataset as open_dataset

register_layers_with_keras()


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'deltafine' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
