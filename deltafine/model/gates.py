"""Gates: branches whose result only scales another tensor.

A squeeze-and-excite block pools its tensor to 1x1, passes it through two small layers and multiplies the
tensor by the result. Every element of the product changes when the gate does, however little, so a
delta layer inside the gate saves next to nothing and delays everything behind it. The same goes for a
sigmoid that multiplies (a hand-written swish, spatial attention).
"""

from __future__ import annotations

import math
from typing import Any

import keras

from deltafine.model.activation_calls import activation_kind
from deltafine.model.fan_out_counts import is_covered
from deltafine.model.trace import Call, Trace, Value

GATE_KINDS = frozenset({"sigmoid", "hard_sigmoid", "log_sigmoid", "sparse_sigmoid", "softmax", "tanh", "hard_tanh"})


def gate_calls(trace: Trace) -> set[Call]:
    """All calls that only serve to scale another tensor."""
    gates: set[Call] = set()
    for call in trace.calls:
        if not _multiplies_tensors(call):
            continue
        for value in dict.fromkeys(call.inputs):
            maker = _maker_of_gate(trace, value)
            if maker is not None or is_stretched(value, call.outputs[0]):
                gates |= _branch(trace, value, call, maker)
    return gates


def _multiplies_tensors(call: Call) -> bool:
    named = isinstance(call.operation, keras.layers.Multiply) or (
        type(call.operation).__name__ == "Multiply" and ".ops." in type(call.operation).__module__
    )
    return named and len(set(call.inputs)) > 1


def is_stretched(value: Value, product: Value) -> bool:
    """Whether the value is 1x1 in space and the product is not."""
    return len(value.shape) > 2 and _spatial_size(value) == 1 and _spatial_size(product) > 1


def _spatial_size(value: Value) -> int:
    """Positions of a channels-last or channels-first tensor: the smaller count is the spatial one of a gate."""
    shape = value.sample_shape
    return min(math.prod(shape[:-1]), math.prod(shape[1:]))


def _maker_of_gate(trace: Trace, value: Value) -> Call | None:
    """The bounded activation that the value comes from through steps that only rescale or reshape it."""
    while (call := trace.maker.get(value)) is not None:
        kind = activation_kind(call.operation)
        if kind is not None:
            return call if kind in GATE_KINDS or is_hard_sigmoid(trace, call) else None
        if len(call.inputs) != 1 or is_covered(call.operation):
            return None
        value = call.inputs[0]
    return None


def is_hard_sigmoid(trace: Trace, call: Call) -> bool:
    """Whether the call is the clipping inside a hard sigmoid written out: relu6(x + 3) / 6."""
    capped = getattr(call.operation, "max_value", None) == 6 or type(call.operation).__name__ == "Relu6"
    readers = trace.readers[call.outputs[0]]
    return capped and len(readers) == 1 and _scales_by_a_sixth(readers[0])


def _scales_by_a_sixth(call: Call) -> bool:
    factors: list[Any] = [
        leaf for leaf in keras.tree.flatten((call.args, call.kwargs)) if isinstance(leaf, float | int)
    ]
    factors += [getattr(call.operation, "scale", None)]
    return any(isinstance(factor, float) and abs(factor - 1 / 6) < 1e-3 for factor in factors) or (
        type(call.operation).__name__ in ("Divide", "TrueDivide") and 6 in factors
    )


def _branch(trace: Trace, value: Value, product: Call, activation: Call | None) -> set[Call]:
    """The calls that lead to the gate and nowhere else, as far back as they are 1x1 in space.

    The steps from the bounded activation to the product belong to the gate whatever their size.
    """
    branch: set[Call] = set()
    waiting, past_activation = [value], activation is None
    while waiting:
        current = waiting.pop()
        call = trace.maker.get(current)
        if call is None or call in branch:
            continue
        if past_activation and _spatial_size(current) != 1:
            continue
        only_for_gate = all(
            reader in branch or (reader is product and current is value) for reader in trace.readers[current]
        )
        if not only_for_gate:
            continue
        branch.add(call)
        past_activation = past_activation or call is activation
        waiting.extend(call.inputs)
    if activation is not None:
        branch.add(activation)
    return branch
