"""The figures of a run's report under the keys of NeuroBench (Yik et al., arXiv 2304.04640), as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from deltafine.document.figures import Figures
from deltafine.errors import DeltafineError
from deltafine.exporting.export_format import Agreement, ExportFormat, Source
from deltafine.model.insert import delta_layers
from deltafine.storage.files import JsonObject, write_atomically


@dataclass(frozen=True)
class _Asked:
    """What was made before the run's report is at hand."""

    model: str


class NeuroBench(ExportFormat):
    """Figures, no network: those of the streams, by model."""

    name = "neurobench"
    purpose = "comparing with NeuroBench: the report's figures under its keys"
    suffix = ".json"
    endings = (".json",)
    forms = ()
    compared = "no"
    takes_further_inputs = True

    def make(self, refined: keras.Model, *, form: str = "stripped", frames: int | None = None) -> _Asked:
        if not delta_layers(refined):
            raise DeltafineError(f"Model '{refined.name}' has no delta layers: give the refined model of a run.")
        return _Asked(refined.name)

    def complete(self, made: _Asked, source: Source) -> JsonObject:
        if source.report is None:
            raise DeltafineError(
                f"The format neurobench holds the figures of a run, and model '{made.model}' comes without one: give a "
                "run directory."
            )
        report = source.report()
        return {name: figures_of(measured.streams) for name, measured in report.models.items() if measured.streams}

    def write(self, made: JsonObject, file: Path) -> None:
        write_atomically(file, (json.dumps(made, indent=1) + "\n").encode())

    def check(self, made: JsonObject, file: Path, clips: np.ndarray | None) -> Agreement | None:
        if json.loads(file.read_text("utf-8")) != made:
            raise DeltafineError(f"{file} reads back as other figures than the report's.")
        return None


def figures_of(figures: Figures) -> JsonObject:
    """The figures of one model on streams by NeuroBench's keys; ``deltafine`` holds what it has no key for."""
    operations = figures.operations
    acs = operations.accumulates_spatial_with_first or 0.0
    found: JsonObject = {
        "ActivationSparsity": operations.activation_sparsity,
        "SynapticOperations": {
            "Effective_MACs": operations.effective_macs_spatial_with_first - acs,
            "Effective_ACs": acs,
            "Dense": operations.dense_macs,
        },
    }
    if figures.frame_accuracy is not None:
        found["ClassificationAccuracy"] = figures.frame_accuracy.value
    found["deltafine"] = {
        "frames": figures.frames,
        "effective_macs_delta": operations.effective_macs_delta,
        "mac_density": operations.mac_density,
        "delta_sparsity": operations.delta_sparsity,
        "pixel_density": operations.pixel_density,
        "state_bytes": operations.state_bytes,
    }
    return found
