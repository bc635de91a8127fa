"""Values in another order, and constants: whatever only moves values becomes one operation with a table.

Where each value goes, Keras is asked: the call is made with the places of the values instead of the values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import numpy as np

from deltafine.model.trace import Call, Value
from deltafine.runtime.lowering.draft import Lowering, as_image
from deltafine.runtime.plan import Finish

layers = keras.layers
MOST_VALUES = 1 << 24
"""Of a table. Larger ones would take more memory than they are worth."""
_LAYERS = (layers.Permute, layers.RepeatVector, layers.Concatenate)
_OF_SEVERAL = ("Concatenate", "Stack", "Hstack", "Vstack")
_OF_ONE = (
    "GetItem", "Transpose", "Split", "ArraySplit", "Unstack", "Flip", "Fliplr", "Flipud", "Roll", "Repeat", "Tile",
    "ExpandDims", "Squeeze", "Moveaxis", "Swapaxes", "BroadcastTo", "Ravel", "Reshape", "Rot90", "Pad",
    "Take",
)  # fmt: skip


def only_moves(call: Call) -> bool:
    """Whether a call does nothing but move values, all of them those of its inputs, or zeros."""
    operation, name = call.operation, type(call.operation).__name__
    if isinstance(operation, layers.Layer):
        return type(operation) in _LAYERS
    if name == "Pad" and any(value not in (None, 0, 0.0) for value in (*call.args[1:], *call.kwargs.values())):
        return False
    one = len(call.inputs) == 1 and bool(call.args) and call.args[0] is call.inputs[0]
    return (name in _OF_ONE and one) or name in _OF_SEVERAL


def moved(lowering: Lowering, call: Call) -> bool:
    """Append what a call that only moves values does; False if that is not known before the values are."""
    inputs = list(dict.fromkeys(call.inputs))
    ends = np.cumsum([math.prod(value.sample_shape) for value in inputs])
    if ends[-1] > MOST_VALUES or any(math.prod(value.sample_shape) > MOST_VALUES for value in call.outputs):
        return False
    places = {
        value: np.arange(end - math.prod(value.sample_shape) + 1, end + 1, dtype=np.int32)  # 0 is for zeros
        for value, end in zip(inputs, ends, strict=True)
    }

    def place(leaf: object) -> object:
        if not isinstance(leaf, Value):
            return leaf
        return keras.ops.convert_to_tensor(places[leaf].reshape(1, *leaf.sample_shape))

    args, kwargs = keras.tree.map_structure(place, (call.args, call.kwargs))
    try:
        results = [np.asarray(result) for result in keras.tree.flatten(call.operation(*args, **kwargs))]
    except Exception:  # whatever Keras may say of whole numbers: it gets the values
        return False
    if [result.shape for result in results] != [(1, *value.sample_shape) for value in call.outputs]:
        return False
    if any(result.min(initial=0) < 0 or result.max(initial=0) > ends[-1] for result in results):
        return False
    for number, (value, result) in enumerate(zip(call.outputs, results, strict=True)):
        name = f"{call.path}:{number}" if number else call.path
        tensors = [lowering.known[one] for one in inputs]
        layer = type(call.operation).__name__
        lowering.known[value] = add_gather(lowering, name, tensors, result[0].astype(np.int64) - 1, layer)
    return True


def add_gather(
    lowering: Lowering, name: str, inputs: Sequence[int], places: np.ndarray, layer: str, finish: Finish | None = None
) -> int:
    """Append values in another order; returns the tensor.

    Args:
        lowering: the plan in the making.
        name: of the operation.
        inputs: tensors.
        places: in the shape of the output for a frame: for each value its place in the inputs, flat, one behind the
            other; -1 for a zero.
        layer: class that it comes from.
        finish: what is done to each row of the output.
    """
    tensors = [lowering.plan.tensors[index] for index in inputs]
    table = places.reshape(as_image(places.shape)).astype(np.int32)
    if len(tensors) == 1 and finish is None and np.array_equal(table.ravel(), np.arange(math.prod(tensors[0].shape))):
        if tensors[0].sample_shape == places.shape:
            return inputs[0]
        same = tensors[0].shape == as_image(places.shape)
        return lowering.add("identity" if same else "reshape", name, tuple(inputs), places.shape, layer=layer)
    channels = table.shape[2]
    first, zeros = table[:, :, 0], (table < 0).all(axis=2)
    in_line = (table == first[:, :, None] + np.arange(channels)).all(axis=2) & (first >= 0)
    rows, count = [], 0
    for tensor in tensors:
        rows.append(np.arange(math.prod(tensor.shape)) // tensor.shape[2] + count)
        count += tensor.shape[0] * tensor.shape[1]
    row_of = np.concatenate(rows)
    together = row_of[np.maximum(first, 0)] == row_of[np.clip(table[:, :, -1], 0, None)]
    table = first if np.all(zeros | (in_line & together)) else table
    return lowering.add(
        "gather", name, tuple(inputs), places.shape, table=lowering.array(f"{name}:table", table), layer=layer,
        finish=finish or Finish(),
    )  # fmt: skip


def add_constant(lowering: Lowering, name: str, values: np.ndarray, layer: str) -> int:
    """Append values that are the same in every frame, in the shape that they have for one; returns the tensor."""
    kept = lowering.array(f"{name}:values", np.asarray(values, np.float64).reshape(as_image(values.shape)))
    return lowering.add("constant", name, (), values.shape, weights=kept, layer=layer)


def arranged(lowering: Lowering, value: Value, name: str, axes: Sequence[int], last: int, layer: str) -> int:
    """A value with its axes (without that of the batch) in this order, the ``last`` of them flat, and those before."""
    shape = value.sample_shape
    places = np.arange(math.prod(shape)).reshape(shape).transpose(axes)
    split = len(axes) - last
    flat = (math.prod(places.shape[:split]), math.prod(places.shape[split:]))
    return add_gather(lowering, name, [lowering.known[value]], places.reshape(flat), layer)


def arranged_back(lowering: Lowering, source: int, name: str, axes: Sequence[int], shape: Sequence[int]) -> int:
    """What ``arranged`` gave, in the shape that it had before."""
    order = np.arange(math.prod(shape)).reshape([shape[axis] for axis in axes])
    layer = lowering.plan.operations[-1].layer
    return add_gather(lowering, name, [source], order.transpose(np.argsort(axes)), layer)
