"""The refined model in other formats: one file each, behind one contract (``export_format.py``)."""

from __future__ import annotations

from deltafine.exporting.export_format import Agreement, ExportFormat, Source
from deltafine.registry import Registry

_HERE = "deltafine.exporting"

FORMATS: Registry[ExportFormat] = Registry(
    "export format",
    {
        "keras": f"{_HERE}.keras_file:KerasFile",
        "onnx": f"{_HERE}.onnx_file:OnnxFile",
        "int8": f"{_HERE}.int8:Int8",
        "int8-onnx": f"{_HERE}.int8_onnx:Int8Onnx",
        "akida": f"{_HERE}.akida:Akida",
        "lava": f"{_HERE}.lava:Lava",
        "plan": f"{_HERE}.plan_file:PlanFile",
        "tflite": f"{_HERE}.tflite:TFLite",
        "fixed-plan": f"{_HERE}.fixed_plan:FixedPlanFile",
        "thresholds": f"{_HERE}.thresholds:ThresholdTable",
        "neurobench": f"{_HERE}.neurobench:NeuroBench",
    },
    renamed={"steps": "thresholds"},
)

__all__ = ["FORMATS", "Agreement", "ExportFormat", "Source"]
