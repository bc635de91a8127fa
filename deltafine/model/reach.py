"""Which multiply-accumulates an element of a delta layer's output feeds.

From a site the graph is followed through everything that is no layer with MACs and no other site:
normalisation, pooling, padding, reshapes, sums, concatenations, branches. What is carried along is a mask
of the elements that depend on the site. Where the mask arrives at a layer with MACs, each marked element
counts its fan-out. A MAC that depends on the site in two ways counts once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from deltafine.model import fan_out_counts, recurrent
from deltafine.model.macs import MacLayer
from deltafine.model.trace import Call, FoldFrames, Trace, UnfoldFrames, Value

layers = keras.layers

PADDINGS = (layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D)

# Called on a mask of zeros and ones, these give something above zero exactly where a one has a say.
_MOVING_LAYERS = (
    *PADDINGS,
    layers.Cropping1D, layers.Cropping2D, layers.Cropping3D,
    layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D, layers.RepeatVector,
    layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D,
    layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D,
    layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D, layers.GlobalAveragePooling3D,
    layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D,
    layers.Flatten, layers.Reshape, layers.Permute, layers.Concatenate,
)  # fmt: skip
_MOVING_OPERATIONS = frozenset({
    "Concatenate", "Stack", "Pad", "Reshape", "Transpose", "Flip", "Roll", "Moveaxis", "Swapaxes", "ExpandDims",
    "Squeeze", "Ravel", "Split", "GetItem", "Slice", "Take", "Repeat", "Tile", "BroadcastTo",
    "Mean", "Sum", "Max", "MaxPool", "AveragePool",
})  # fmt: skip

# What these give depends on the shape of their input only.
_CONSTANT_OPERATIONS = frozenset({"ZerosLike", "OnesLike", "Shape", "Arange"})

Masks = dict[Value, np.ndarray]


class Reach:
    """The MACs that one site feeds.

    Attributes:
        masks: for each call with MACs that the site reaches, which elements of its input depend on it
            (bool, shape of one sample); the inputs of a call that reads several tensors count together.
        states: those that are reached of what recurrent layers multiply beside their inputs.
    """

    def __init__(self) -> None:
        self.masks: dict[Call, np.ndarray] = {}
        self.states: set[recurrent.StateValue] = set()

    @property
    def calls(self) -> list[Call]:
        """The calls with MACs that the site reaches."""
        return list(dict.fromkeys([*self.masks, *(state.call for state in self.states)]))

    def merge(self, other: Reach) -> None:
        """Add what another site reaches; a MAC that both reach counts once."""
        for call, mask in other.masks.items():
            own = self.masks.get(call)
            self.masks[call] = mask if own is None else own | mask
        self.states |= other.states

    def macs(self, entries: Mapping[Call, MacLayer]) -> int:
        """MACs per sample that depend on the site."""
        return sum(self.macs_at(call, entries) for call in self.calls)

    def macs_at(self, call: Call, entries: Mapping[Call, MacLayer]) -> int:
        """Those of one call; 0 where it is not reached."""
        mask = self.masks.get(call)
        of_states = sum(recurrent.macs_of_state(state) for state in self.states if state.call is call)
        return of_states + (0 if mask is None else macs_of(entries[call], mask))


def reach(
    trace: Trace, entries: Mapping[Call, MacLayer], start: Collection[Value], barriers: Collection[Value]
) -> Reach:
    """Follow the values of a site up to layers with MACs and to the values of other sites.

    Args:
        trace: the traced model.
        entries: its calls with MACs.
        start: the site's output; several values where a nested model is called several times.
        barriers: outputs of the other sites; not passed.
    """
    result = Reach()
    result.states.update(value for value in start if isinstance(value, recurrent.StateValue))
    masks: Masks = {value: np.ones(value.sample_shape, bool) for value in start}
    for call in trace.calls:
        reached = [value for value in call.inputs if value in masks]
        if not reached:
            continue
        if call in entries:
            result.masks[call] = _joined_input_mask(call, masks)
            continue
        for value, mask in zip(call.outputs, _passed_on(call, masks), strict=True):
            if value not in barriers and value not in masks and mask.any():
                masks[value] = mask
    return result


def _joined_input_mask(call: Call, masks: Masks) -> np.ndarray:
    first = call.inputs[0]
    if len(set(call.inputs)) == 1:
        return masks[first]
    return np.ones(first.sample_shape, bool)


def macs_of(entry: MacLayer, mask: np.ndarray) -> int:
    """MACs per sample on the marked elements of the input."""
    layer, total = entry.counted_as, 0
    if not entry.whole and entry.covered and recurrent.is_recurrent(entry.layer):
        # What the layer keeps from step to step may be behind a delta layer of its own.
        inputs = [fan for _, _, kind, fan, _ in recurrent.products(entry.layer, entry.input_shape) if kind == "input"]
        return entry.repeats * sum(int((fan * mask).sum()) for fan in inputs)
    if layer is None:
        return entry.dense_macs or 0
    for stage in fan_out_counts.stages(layer):
        if stage == "pointwise":
            mask = _depthwise_mask(layer, mask)
        total += int((fan_out_counts.fan_out(layer, entry.input_shape, stage=stage) * mask).sum())
    return entry.repeats * total


def _depthwise_mask(layer: keras.layers.Layer, mask: np.ndarray) -> np.ndarray:
    """Elements of the intermediate tensor of a separable convolution that depend on the marked ones."""
    if mask.all():
        return np.ones(fan_out_counts.intermediate_shape(layer, mask.shape), bool)
    rank = mask.ndim - 1
    channels = mask.shape[-1] if layer.data_format == "channels_last" else mask.shape[0]
    ones = np.ones((*layer.kernel_size, channels, layer.depth_multiplier), np.float32)
    spread = ops.depthwise_conv(
        mask[None].astype(np.float32), ones, strides=layer.strides[0] if rank == 1 else layer.strides,
        padding=layer.padding, data_format=layer.data_format, dilation_rate=layer.dilation_rate,
    )  # fmt: skip
    return np.asarray(spread)[0] > 0


def _passed_on(call: Call, masks: Masks) -> list[np.ndarray]:
    """Masks of the call's outputs."""
    shapes = [value.sample_shape for value in call.outputs]
    if isinstance(call.operation, FoldFrames):
        return [np.asarray(masks[call.inputs[0]].any(axis=0))]
    if isinstance(call.operation, UnfoldFrames):
        made = [masks.get(value, np.zeros(value.sample_shape, bool)) for value in call.inputs]
        return [np.broadcast_to(mask, shape) for mask, shape in zip(made, shapes, strict=True)]
    if only_moves(call.operation):
        if all(value in masks and masks[value].all() for value in call.inputs) and not _makes_zeros(call):
            return [np.ones(shape, bool) for shape in shapes]
        return _called_on_masks(call, masks)
    if type(call.operation).__name__ in _CONSTANT_OPERATIONS:
        return [np.zeros(shape, bool) for shape in shapes]
    result = []
    for shape in shapes:
        mask = np.zeros(shape, bool)
        for value in call.inputs:
            if value in masks:
                mask = mask | _elementwise(masks[value], shape)
        result.append(mask)
    return result


def _elementwise(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The mask as seen by an element-wise operation; everything where the shapes say it is not one."""
    try:
        return np.broadcast_to(mask, shape)
    except ValueError:
        return np.full(shape, bool(mask.any()))


def only_moves(operation: keras.Operation) -> bool:
    """Whether its outputs are elements of its inputs, or means and maxima of some of them."""
    if isinstance(operation, layers.Layer):
        return isinstance(operation, _MOVING_LAYERS)
    return type(operation).__name__ in _MOVING_OPERATIONS and ".ops." in type(operation).__module__


def _makes_zeros(call: Call) -> bool:
    """Whether the operation can put elements into its output that come from no input."""
    return "Pad" in type(call.operation).__name__


def _called_on_masks(call: Call, masks: Masks) -> list[np.ndarray]:
    def as_number(leaf: Any) -> Any:
        if not isinstance(leaf, Value):
            return leaf
        mask = masks.get(leaf)
        return (
            ops.zeros((1, *leaf.sample_shape)) if mask is None else ops.convert_to_tensor(mask[None].astype(np.float32))
        )

    args, kwargs = keras.tree.map_structure(as_number, (call.args, call.kwargs))
    outputs = keras.tree.flatten(call.operation(*args, **kwargs))
    return [np.asarray(output)[0] > 0 for output in outputs]
