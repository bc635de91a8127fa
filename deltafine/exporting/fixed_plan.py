"""The plan in whole numbers: weights in 8 bits, state in 16, sums in 32; for hardware without floating point.

docs/plan.md explains it, and docs/fixed-plan.schema.json is its schema. What plays it here (``fixed_player.py``) is its
reference: whoever follows the page gets the same whole numbers, to the last bit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from deltafine.errors import DeltafineError
from deltafine.exporting.comparing import compare_streams
from deltafine.exporting.export_format import Agreement, ExportFormat, Source
from deltafine.exporting.fixed_numbers import STATE_BITS, SUM_BITS, WEIGHT_BITS
from deltafine.exporting.fixed_operations import in_whole_numbers, require_fixed
from deltafine.exporting.fixed_player import FixedPlayer
from deltafine.exporting.plan_file import described, read_both, require_plain, with_model_file, write_both
from deltafine.model.insert import delta_layers
from deltafine.runtime.activation_functions import ACTIVATIONS
from deltafine.runtime.lowering.lower import compile_model
from deltafine.runtime.plan import Plan
from deltafine.storage.files import JsonObject

FORMAT, FORMAT_VERSION = "deltafine fixed plan", 1


@dataclass(frozen=True)
class FixedPlan:
    """What is written.

    Attributes:
        plan: in floating point.
        refined: the model that it was made of.
        document, arrays: in whole numbers; empty until frames to calibrate on are at hand.
    """

    plan: Plan
    refined: keras.Model
    document: JsonObject = dataclasses.field(default_factory=dict)
    arrays: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)


class FixedPlanFile(ExportFormat):
    """``FILE.json``, and ``FILE.npz`` beside it."""

    name = "fixed-plan"
    purpose = "firmware and hardware without floating point: the plan in 8-, 16- and 32-bit whole numbers"
    suffix = ".json"
    endings = (".json",)
    forms = ()

    def files(self, file: Path) -> tuple[Path, ...]:
        return (file, file.with_suffix(".npz"))

    def frames_per_video(self, form: str) -> int:
        return 75

    def input_shape(self, made: FixedPlan) -> tuple[int | None, ...]:
        return (None, *made.plan.input_shape)

    def make(self, refined: keras.Model, *, form: str = "stripped", frames: int | None = None) -> FixedPlan:
        if not delta_layers(refined):
            raise DeltafineError(f"Model '{refined.name}' has no delta layers: give the refined model of a run.")
        plan = compile_model(refined).plan
        require_plain(plan)
        require_fixed(plan)
        return FixedPlan(plan, refined)

    def complete(self, made: FixedPlan, source: Source) -> FixedPlan:
        if source.clips is None:
            raise DeltafineError("fixed-plan is calibrated on frames of the run's videos: leave --no-check out.")
        operations, fractions, arrays = in_whole_numbers(made.plan, source.clips)
        document = described(made.plan)
        document["input"]["type"] = "uint8"
        for tensor, fraction in zip(document["tensors"], fractions, strict=True):
            tensor["fraction"] = fraction
        for delta in document["delta_layers"]:
            (of,) = (one for one in operations if one["output"] == delta["tensor"])
            delta["threshold"] = of["delta"]["threshold"]
        head = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "bits": {"weights": WEIGHT_BITS, "state": STATE_BITS, "sums": SUM_BITS},
        }
        document = with_model_file({**head, **document, "operations": operations}, source.model_file)
        return dataclasses.replace(made, document=document, arrays=arrays)

    def write(self, made: FixedPlan, file: Path) -> None:
        write_both(made.document, made.arrays, file)

    def check(self, made: FixedPlan, file: Path, clips: np.ndarray | None) -> Agreement | None:
        document, arrays = read_both(file, FORMAT, FORMAT_VERSION)
        return None if clips is None else compare_streams(_stepper(document, arrays), made.refined, clips)


def _stepper(document: JsonObject, arrays: dict[str, np.ndarray]) -> Callable[[np.ndarray, bool], list[np.ndarray]]:
    """Plays a file, and makes of its whole numbers what the model gives."""
    player = FixedPlayer(document, arrays)
    left_out = {operation["output"]: operation["left_out"] for operation in document["operations"]}

    def step(frame: np.ndarray, first: bool) -> list[np.ndarray]:
        if first:
            player.reset()
        player.step(np.round(frame).astype(np.int64))
        found = []
        for index in document["outputs"]:
            tensor = document["tensors"][index]
            value: Any = player.values[index].reshape(tensor["sample_shape"]) / 2.0 ** tensor["fraction"]
            found.append(ACTIVATIONS[left_out[index] or "linear"](value.astype(np.float32)))
        return found

    return step
