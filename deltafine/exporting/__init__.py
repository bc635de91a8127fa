"""The refined model in other formats: one file each, behind one contract (``format.py``)."""

from __future__ import annotations

from deltafine.exporting.export_format import Agreement, ExportFormat
from deltafine.registry import Registry

_HERE = "deltafine.exporting"

FORMATS: Registry[ExportFormat] = Registry(
    "export format",
    {
        "keras": f"{_HERE}.keras_file:KerasFile",
        "tflite": f"{_HERE}.tflite:TFLite",
        "thresholds": f"{_HERE}.thresholds:ThresholdTable",
    },
    renamed={"steps": "thresholds"},
)

__all__ = ["FORMATS", "Agreement", "ExportFormat"]
