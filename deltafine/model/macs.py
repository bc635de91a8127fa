"""The layers of a model that do multiply-accumulates (MACs), covered by the measurement or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import keras

from deltafine.model import composite_layers as opening
from deltafine.model import fan_out_counts, recurrent
from deltafine.model.tensor_products import Product, operands_of, product_of
from deltafine.model.time_axis import takes_clips_as_traced
from deltafine.model.trace import Call, Trace, Value, trace
from deltafine.model.uncovered import may_do_macs, uncovered_macs


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
        covered: whether the measurement counts it.
        whole: whether all of its MACs count wherever any of its inputs changes, since which of them are needed is not
            known.
        reason: why it is not covered, or counted as a whole; empty where its MACs are counted one by one.
        counted_as: the layer whose fan-out its input has; itself, or for an operation one that does the same.
        product: how the elements of two tensors meet, where it is a product of two.
        inside: what is inside it, where it is made of other layers.
        inner: the entries of that graph, their paths inside its own.
    """

    path: str
    layer: keras.Operation
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    repeats: int
    dense_macs: int | None
    covered: bool
    reason: str
    counted_as: keras.layers.Layer | None = None
    product: Product | None = None
    inside: opening.Inside | None = None
    inner: tuple[MacLayer, ...] = ()
    whole: bool = False

    def __iter__(self) -> Iterator[str | keras.Operation]:
        return iter((self.path, self.layer))


def mac_layers(model: keras.Model, frame_shape: Sequence[int] | None = None) -> list[MacLayer]:
    """All calls with MACs in order of computation, those of nested models included.

    Args:
        model: a built Functional or Sequential model.
        frame_shape: shape of one input sample, for a model that takes any size.

    Returns:
        One entry per call. Layers that are counted as a whole (over masked values, or made of what is no graph of
        Keras' layers and operations), and those that are not covered, are there too, marked, with the reason.
    """
    return list(mac_calls(trace(model, frame_shape)).values())


def all_entries(model: keras.Model, frame_shape: Sequence[int] | None = None) -> Iterator[MacLayer]:
    """The same, and behind each the entries of what is inside it."""
    waiting = mac_layers(model, frame_shape)[::-1]
    while waiting:
        entry = waiting.pop()
        yield entry
        waiting.extend(entry.inner[::-1])


def mac_calls(traced: Trace) -> dict[Call, MacLayer]:
    """The calls with MACs of a traced model, in order of computation."""
    found = {call: entry for call in traced.calls if (entry := mac_call(call)) is not None}
    if takes_clips_as_traced(traced):
        return found
    return {call: _apart(entry) if call.repeats > 1 else entry for call, entry in found.items()}


def _apart(entry: MacLayer) -> MacLayer:
    """The entry of a call inside TimeDistributed in a model without time: it stays as it is, unmeasured."""
    return replace(entry, covered=False, whole=False, reason="inside TimeDistributed over parts of a frame")


def mac_call(call: Call) -> MacLayer | None:
    """The entry of one traced call, or None if it does no MACs."""
    if not call.inputs:
        return None
    operation, shape = call.operation, call.inputs[0].sample_shape
    entry = partial(MacLayer, call.path, operation, shape, call.outputs[0].sample_shape, call.repeats)
    counted_as = _as_layer(call)
    if counted_as is not None:
        macs = call.repeats * fan_out_counts.dense_macs(counted_as, shape)
        return entry(macs, True, "", counted_as)
    if recurrent.is_recurrent(operation) and recurrent.is_covered(operation) and len(call.inputs) == 1:
        every_step = call.repeats * (recurrent.dense_macs(operation, shape) or 0)
        return entry(every_step, True, "recurrent over masked steps" if call.masked else "", whole=call.masked)
    product = product_of(call)
    if product is not None:
        return entry(call.repeats * product.dense_macs, True, "", product=product)
    if _may_be_opened(operation):
        inside = opening.opened(call)
        if inside is not None:
            return _of_inner(call, inside, entry)
    known = uncovered_macs(call)
    if known is None:
        return None
    macs_once, reason = known
    total = None if macs_once is None else call.repeats * macs_once
    return entry(total, total is not None, reason, whole=total is not None)


def _as_layer(call: Call) -> keras.layers.Layer | None:
    """The layer whose fan-out the call's input has; None where it has none."""
    operation, kind = call.operation, type(call.operation).__name__
    if fan_out_counts.is_covered(operation):
        return operation
    if isinstance(operation, keras.layers.Layer) or ".ops." not in type(operation).__module__:
        return None
    values = operands_of(call.args, call.kwargs)
    if len(values) != 2 or not isinstance(values[0], Value) or isinstance(values[1], Value):
        return None
    shape = tuple(getattr(values[1], "shape", ()))
    if kind in ("Matmul", "Dot") and len(shape) == 2 and len(values[0].shape) > 1:
        return keras.layers.Dense(shape[-1])
    if kind not in ("Conv", "DepthwiseConv") or operation.data_format == "channels_first":
        return None
    rank = len(shape) - 2
    how = {name: getattr(operation, name) for name in ("strides", "padding", "dilation_rate")}
    how["data_format"] = "channels_last"
    if kind == "DepthwiseConv":
        return fan_out_counts.DEPTHWISE[rank - 1](shape[:rank], depth_multiplier=shape[-1], **how) if rank < 3 else None
    groups = values[0].shape[-1] // shape[-2]
    return fan_out_counts.CONVOLUTIONS[rank - 1](shape[-1], shape[:rank], groups=groups, **how)


def _may_be_opened(operation: keras.Operation) -> bool:
    is_layer = isinstance(operation, keras.layers.Layer) and not recurrent.is_recurrent(operation)
    may = is_layer and not isinstance(operation, keras.layers.Dot) and may_do_macs(operation)
    return may or opening.may_be_opened(operation)


def _of_inner(call: Call, inside: opening.Inside, entry: Callable[..., MacLayer]) -> MacLayer | None:
    """The entry of a layer by those of what is inside."""
    inner = tuple(_moved(one, f"{call.path}/", call.repeats) for one in mac_calls(trace(inside.function)).values())
    if not inner:
        return None
    known = [one.dense_macs for one in inner if one.dense_macs is not None]
    total = call.repeats * sum(known) if len(known) == len(inner) else None
    apart = next((f"{one.path}: {one.reason}" for one in inner if one.reason), "")
    reason = f"{type(call.operation).__name__} over masked values" if call.masked else apart
    if reason:
        return entry(total, total is not None, reason, whole=total is not None)
    return entry(total, True, "", inside=inside, inner=inner)


def _moved(entry: MacLayer, prefix: str, repeats: int) -> MacLayer:
    """The entry of a call inside a layer, as seen from outside of it."""
    inner = tuple(_moved(one, prefix, repeats) for one in entry.inner)
    return replace(entry, path=f"{prefix}{entry.path}", repeats=repeats * entry.repeats, inner=inner)
