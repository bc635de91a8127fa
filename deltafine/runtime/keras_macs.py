"""The MACs of layers that a plan leaves to Keras."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from deltafine.model.fan_out import fan_out, stages
from deltafine.model.macs import mac_call
from deltafine.model.trace import Call
from deltafine.runtime.lowering import as_image
from deltafine.runtime.plan import Plan


def count_left_to_keras(plan: Plan, calls: Mapping[str, tuple[Call, int]]) -> None:
    """Set the dense MACs of these operations, and fan-outs where the report measures such a layer by its input.

    Args:
        plan: a plan as it will be run.
        calls: by name of operation, and which of the call's outputs it is.
    """
    counted = set()
    for operation in plan.unknown:
        call, _ = calls[operation.name]
        entry = mac_call(call)
        if entry is None or call in counted:  # an operation for each output of a call
            continue
        counted.add(call)
        operation.dense_macs = entry.dense_macs
        if entry.covered and entry.repeats == 1 and len(stages(call.operation)) == 1:
            shape = entry.input_shape
            fan = np.broadcast_to(fan_out(call.operation, shape), shape).reshape(as_image(shape))[:, :, 0]
            operation.fan = f"{operation.name}:fan"
            plan.arrays[operation.fan] = np.ascontiguousarray(fan, np.int32)
