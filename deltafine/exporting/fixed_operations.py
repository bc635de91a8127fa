"""From the operations of a plan in floating point to those in whole numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deltafine.errors import DeltafineError
from deltafine.exporting.fixed_numbers import (
    LARGEST_STATE,
    MOST_FRACTION,
    SUM_BITS,
    fraction_of,
    whole_weights,
)
from deltafine.runtime.activation_functions import NO_LIMIT
from deltafine.runtime.numpy_stream import NumpyState
from deltafine.runtime.plan import MACS, Operation, Plan
from deltafine.runtime.value_ranges import value_ranges
from deltafine.storage.files import JsonObject

_SAME = ("max_pool", "average_pool", "global_average", "global_max", "place", "reshape", "identity")
"""What they give is no larger than what they are given."""
_ALIGNED = ("concatenate", "add", "subtract", "maximum", "minimum", "average")
_MONOTONE = ("softmax", "sigmoid")
"""Activations that may be left out at the end, as the largest value stays the largest."""
FACTOR_BITS, RELATIVE_BITS = 20, 8
"""Of 1 / threshold, and of a change in thresholds; for rules that ask all channels of a position."""


def require_fixed(plan: Plan) -> None:
    """Refuse what has no form in whole numbers.

    Raises:
        DeltafineError: naming the layer.
    """
    read = {index for operation in plan.operations for index in operation.inputs}
    for operation in plan.operations:
        finish, why = operation.finish, ""
        slope, _, start = finish.parameters if finish.activation == "relu" else (0.0, 0.0, 0.0)
        at_end = operation.output in plan.outputs and operation.output not in read and finish.delta is None
        if finish.activation == "relu" and (slope or start):
            why = "has a ReLU with a slope or a threshold"
        elif finish.activation not in ("linear", "relu") and not (finish.activation in _MONOTONE and at_end):
            why = f"has the activation {finish.activation} before the end"
        elif operation.kind == "multiply" and (len(operation.inputs) != 2 or finish.scale):
            why = "multiplies more than two values"
        if why:
            raise DeltafineError(
                f"Layer '{operation.name}' of model '{plan.name}' {why}, which has no form in whole numbers: export "
                "the model as plan, or replace the layer."
            )


def in_whole_numbers(plan: Plan, clips: np.ndarray) -> tuple[list[JsonObject], list[int], dict[str, np.ndarray]]:
    """The operations in whole numbers, the fraction of each tensor, and the arrays.

    Args:
        plan: in floating point, with nothing that ``require_fixed`` refuses.
        clips: frames that show how large values become, (clips, time, height, width, channels).
    """
    bare = _without_ends(plan)
    made = _Conversion(bare, _largest(bare, clips))
    operations = [
        {**made.converted(operation), "left_out": "" if same is operation else same.finish.activation}
        for operation, same in zip(bare.operations, plan.operations, strict=True)
    ]
    return operations, [made.fractions[index] for index in range(len(plan.tensors))], made.arrays


def _without_ends(plan: Plan) -> Plan:
    operations = [
        dataclasses.replace(one, finish=dataclasses.replace(one.finish, activation="linear", parameters=()))
        if one.finish.activation in _MONOTONE
        else one
        for one in plan.operations
    ]
    return dataclasses.replace(plan, operations=operations)


def _no_keras(operations: Sequence[Operation], given: Mapping[int, np.ndarray]) -> list[np.ndarray]:
    raise AssertionError(f"'{operations[0].name}' was refused")


def _largest(plan: Plan, clips: np.ndarray) -> list[float]:
    """The largest size of any value of each tensor."""
    state, shape = NumpyState(plan, _no_keras), plan.tensors[plan.operations[0].output].shape
    largest = np.zeros(len(plan.tensors))
    for clip in clips:
        state.reset()
        ranges = value_ranges(plan, state, (frame.reshape(shape) for frame in clip))
        largest = np.maximum(largest, np.abs(ranges).max(axis=1))
    return [float(most) for most in largest]


class _Conversion:
    """Operations one by one, as each needs the fractions of those before."""

    def __init__(self, plan: Plan, largest: list[float]) -> None:
        self._plan, self._largest = plan, largest
        self.fractions: dict[int, int] = {}
        self.arrays: dict[str, np.ndarray] = {}

    def converted(self, operation: Operation) -> JsonObject:
        finish, channels = operation.finish, self._plan.tensors[operation.output].shape[2]
        inputs = [self.fractions[index] for index in operation.inputs]
        raw: Any = inputs[0] if operation.kind in _SAME else sum(inputs) if operation.kind == "multiply" else 0
        changed = bool(finish.scale or finish.shift)
        own = fraction_of(self._largest[operation.output])
        fraction = raw if operation.kind in _SAME and not changed else own
        align: list[int] = []
        if operation.kind == "input":
            fraction = own if changed else 0
        if operation.kind in _ALIGNED:
            raw = min([*inputs, fraction]) if changed else fraction
            align = [one - raw for one in inputs]
        shift = self._array(finish.shift, channels, 0.0)
        names = {"weights": "", "multiplier": "", "bias": ""}
        digits = np.zeros(channels, np.int32)
        if operation.kind in MACS:
            raw = inputs[0]
            weights = self._plan.arrays[operation.weights]
            by_output = weights.reshape(*weights.shape[:2], -1) if operation.kind == "depthwise" else weights
            whole, added, digits = whole_weights(by_output, shift, raw)
            names["weights"] = self._keep(operation, "weights", whole.reshape(weights.shape))
            names["bias"] = self._keep(operation, "bias", added)
        elif changed:
            whole, added, digits = _multiplier(
                self._array(finish.scale, channels, 1.0), shift, raw, max(len(operation.inputs), 1)
            )
            names["multiplier"] = self._keep(operation, "multiplier", whole) if finish.scale else ""
            digits = digits if finish.scale else np.zeros(channels, np.int32)
            if not finish.scale:
                added = np.round(shift * 2.0**raw).clip(-(2**30), 2**30).astype(np.int32)
            names["bias"] = self._keep(operation, "bias", added)
        right = raw + digits.astype(np.int64) - fraction
        self.fractions[operation.output] = int(fraction)
        return {
            "kind": operation.kind,
            "name": operation.name,
            "layer": operation.layer,
            **{name: list(getattr(operation, name)) for name in ("inputs", "kernel", "strides", "dilation", "padding")},
            "output": operation.output,
            "groups": operation.groups,
            "align": align,
            **names,
            "right": self._keep(operation, "right", right.astype(np.int32)),
            **self._limits(operation, int(fraction)),
            "delta": self._delta(operation, int(fraction)),
        }

    def _limits(self, operation: Operation, fraction: int) -> JsonObject:
        if operation.finish.activation != "relu":
            return {"low": None, "high": None}
        most = operation.finish.parameters[1]
        high = None if most >= NO_LIMIT else min(round(most * 2.0**fraction), LARGEST_STATE)
        return {"low": 0, "high": high}

    def _delta(self, operation: Operation, fraction: int) -> JsonObject | None:
        delta = operation.finish.delta
        if delta is None:
            return None
        exact = self._plan.arrays[delta.threshold].astype(np.float64)
        whole = np.maximum(np.round(exact * 2.0**fraction), 1).clip(max=2**30).astype(np.int32)
        factor = np.maximum(np.round(2.0**FACTOR_BITS / whole), 1).astype(np.int32)
        pixel = delta.granularity == "pixel" and delta.rule == "send-on-delta"
        return {
            "name": delta.name,
            "rule": delta.rule,
            "granularity": delta.granularity,
            "threshold": self._keep(operation, "threshold", whole),
            "factor": self._keep(operation, "factor", factor) if pixel else "",
        }

    def _array(self, name: str, channels: int, default: float) -> np.ndarray:
        return self._plan.arrays[name].astype(np.float64) if name else np.full(channels, default)

    def _keep(self, operation: Operation, role: str, values: np.ndarray) -> str:
        name = f"{operation.name}:{operation.output}:{role}"
        self.arrays[name] = values
        return name


def _multiplier(
    scale: np.ndarray, shift: np.ndarray, fraction: int, terms: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What values are multiplied with in 16 bits, what is added, and the digits of each; the result fits 32 bits."""
    room = 2 ** (SUM_BITS - 1) - 1
    whole, added, digits = (np.zeros(len(scale), kind) for kind in (np.int16, np.int32, np.int32))
    for channel, (one, other) in enumerate(zip(scale, shift, strict=True)):
        places = MOST_FRACTION - fraction
        while True:
            times, plus = round(float(one) * 2.0**places), round(float(other) * 2.0 ** (places + fraction))
            if abs(times) <= LARGEST_STATE and abs(times) * terms * (LARGEST_STATE + 1) + abs(plus) <= room:
                break
            places -= 1
        whole[channel], added[channel], digits[channel] = times, plus, places
    return whole, added, digits
