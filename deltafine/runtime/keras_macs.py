"""The MACs of layers that a plan leaves to Keras."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from deltafine.model import graph
from deltafine.model.fan_out_counts import fan_out, is_covered, stages
from deltafine.model.macs import mac_call, mac_layers
from deltafine.model.trace import Call, Value
from deltafine.runtime.lowering.draft import as_image
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
        if call in counted:  # an operation for each output of a call
            continue
        counted.add(call)
        operation.dense_macs = _dense_macs(call)
        if is_covered(call.operation) and len(stages(call.operation)) == 1:
            shape = call.inputs[0].sample_shape
            fan = np.broadcast_to(fan_out(call.operation, shape), shape).reshape(as_image(shape))[:, :, 0]
            operation.fan = f"{operation.name}:fan"
            plan.arrays[operation.fan] = np.ascontiguousarray(fan, np.int32)


def _dense_macs(call: Call) -> int | None:
    """MACs of one call; 0 if it does none, None if no rule counts them."""
    if isinstance(call.operation, keras.layers.TimeDistributed):
        return _of_wrapper(call)
    entry = mac_call(call)
    return 0 if entry is None else entry.dense_macs


def _of_wrapper(call: Call) -> int | None:
    """Of a layer or model that runs at each step of an axis."""
    inner, (steps, *shape) = call.operation.layer, call.inputs[0].sample_shape
    if graph.is_graph(inner):
        macs = [entry.dense_macs for entry in mac_layers(inner, shape)]
    else:
        value = Value((None, *shape), call.inputs[0].dtype)
        spec = inner.compute_output_spec(keras.KerasTensor(value.shape, value.dtype))
        output = Value(tuple(spec.shape), keras.backend.standardize_dtype(spec.dtype))
        macs = [_dense_macs(Call(call.path, inner, (value,), (output,), (value,)))]
    known = [count for count in macs if count is not None]
    return steps * sum(known) if len(known) == len(macs) else None
