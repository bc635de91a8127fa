"""The thresholds of a refined model as JSON, for a hardware toolchain."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np

from deltafine.errors import DeltafineError
from deltafine.exporting.export_format import Agreement, ExportFormat
from deltafine.layers.rules import EventRule, stored_rule
from deltafine.model.insert import delta_layers
from deltafine.storage.files import JsonObject, write_atomically

THRESHOLDS_VERSION = 2
"""Version 1 called thresholds steps, and the granularity unit."""


class ThresholdTable(ExportFormat):
    """A table of the delta layers; no network."""

    name = "thresholds"
    purpose = "a hardware toolchain that has the network itself: the thresholds of all delta layers"
    suffix = ".json"
    forms = ()
    compared = "no"
    takes_further_inputs = True

    def make(self, refined: keras.Model, *, form: str = "stripped", frames: int | None = None) -> JsonObject:
        return threshold_table(refined)

    def write(self, made: JsonObject, file: Path) -> None:
        write_atomically(file, (json.dumps(made, indent=1) + "\n").encode())

    def check(self, made: JsonObject, file: Path, clips: np.ndarray | None) -> Agreement | None:
        if json.loads(file.read_text("utf-8")) != made:
            raise DeltafineError(f"{file} reads back as other thresholds than the model's: one of them is not finite.")
        return None


def threshold_table(refined: keras.Model) -> JsonObject:
    """The thresholds of a refined model as plain values.

    Returns:
        ``version`` and ``layers``: for each delta layer its path, rule, granularity, scope and thresholds. For a rule
        of the user's own also ``rule_config``, its class and parameters as Keras writes them.

    Raises:
        DeltafineError: there are no delta layers.
    """
    deltas = delta_layers(refined)
    if not deltas:
        raise DeltafineError(f"Model '{refined.name}' has no delta layers: give the refined model of a run.")
    return {
        "version": THRESHOLDS_VERSION,
        "layers": [
            {
                "name": path,
                "rule": layer.rule.name,
                **_own_config(layer.rule),
                "granularity": layer.granularity,
                "threshold_per": layer.threshold_per,
                "threshold": np.asarray(layer.threshold, "float64").tolist(),
            }
            for path, layer in deltas.items()
        ],
    }


def _own_config(rule: EventRule) -> JsonObject:
    stored = stored_rule(rule)
    return {} if isinstance(stored, str) else {"rule_config": stored}
