"""The layers of a model that do multiply-accumulates (MACs), covered by the fan-out rules or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from deltafine.model import fan_out
from deltafine.model.trace import Call, Trace, trace
from deltafine.model.uncovered import uncovered_macs


@dataclass(frozen=True)
class MacLayer:
    """One call of a layer or operation with MACs.

    Unpacks as ``path, layer``.

    Attributes:
        path: where it is called, ``outer/inner`` for nested models, ``#1`` behind whatever is called again.
        layer: the layer, or the operation.
        input_shape: shape of its (first) input for one sample, without the batch axis.
        output_shape: likewise of its (first) output.
        repeats: calls per sample of the model's input; more than 1 inside ``TimeDistributed``.
        dense_macs: MACs per sample of the model's input, all repeats together; None where unknown.
        covered: whether ``fan_out`` counts it.
        reason: why it is not covered; empty if it is.
    """

    path: str
    layer: Any
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    repeats: int
    dense_macs: int | None
    covered: bool
    reason: str

    def __iter__(self) -> Iterator[Any]:
        return iter((self.path, self.layer))


def mac_layers(model: Any, frame_shape: Sequence[int] | None = None) -> list[MacLayer]:
    """All calls with MACs in order of computation, those of nested models included.

    Args:
        model: a built Functional or Sequential model.
        frame_shape: shape of one input sample, for a model that takes any size.

    Returns:
        One entry per call. Layers that the fan-out rules do not cover (recurrent, attention, products of two
        tensors, layers of the user's own with weights) are there too, marked, with the reason.
    """
    return list(mac_calls(trace(model, frame_shape)).values())


def mac_calls(traced: Trace) -> dict[Call, MacLayer]:
    """The calls with MACs of a traced model, in order of computation."""
    found = ((call, mac_call(call)) for call in traced.calls)
    return {call: entry for call, entry in found if entry is not None}


def mac_call(call: Call) -> MacLayer | None:
    """The entry of one traced call, or None if it does no MACs."""
    if not call.inputs:
        return None
    shape, output_shape = call.inputs[0].sample_shape, call.outputs[0].sample_shape
    if fan_out.is_covered(call.operation):
        macs = call.repeats * fan_out.dense_macs(call.operation, shape)
        return MacLayer(call.path, call.operation, shape, output_shape, call.repeats, macs, True, "")
    known = uncovered_macs(call)
    if known is None:
        return None
    macs_once, reason = known
    total = None if macs_once is None else call.repeats * macs_once
    return MacLayer(call.path, call.operation, shape, output_shape, call.repeats, total, False, reason)
