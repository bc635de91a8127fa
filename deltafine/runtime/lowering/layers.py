"""What each Keras layer or operation is in plain operations. Whatever is not here runs through Keras."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import keras
import numpy as np

from deltafine.errors import DeltafineError
from deltafine.layers import DeltaActivation, FoldTime, StateDelta, UnfoldTime
from deltafine.model import keras_private
from deltafine.model.augmentation_layers import is_augmentation
from deltafine.model.trace import Call
from deltafine.runtime.activation_functions import of_layer
from deltafine.runtime.event_rules import KNOWN
from deltafine.runtime.lowering.attention_products import attention_products, combined
from deltafine.runtime.lowering.convolutions import conv, dense, depthwise, separable
from deltafine.runtime.lowering.draft import Lowering, add_call, as_image, geometry, pair
from deltafine.runtime.lowering.merges import affine, elementwise, layer_scale, negative, prelu, spread
from deltafine.runtime.lowering.moving import moved, only_moves
from deltafine.runtime.lowering.normalizations import (
    group_normalization,
    layer_normalization,
    reduction,
    rms_normalization,
    softmax,
    unit_normalization,
)
from deltafine.runtime.lowering.products import attention, einsum_dense, transposed
from deltafine.runtime.lowering.resizing import resized
from deltafine.runtime.plan import Delta, Finish

layers = keras.layers
Rule = Callable[[Lowering, Call], int | None]


def lower(lowering: Lowering, call: Call) -> None:
    """Append what computes a call to the plan.

    Raises:
        DeltafineError: nothing can.
    """
    operation = call.operation
    lowering.maker.update(dict.fromkeys(call.outputs, call))
    if isinstance(operation, FoldTime | UnfoldTime) or (_does_nothing(operation) and _reads_one(call)):
        lowering.alias(call.outputs[0], call.inputs[0])
        return
    if only_moves(call) and _reads_one(call) and not _has_own_rule(call) and moved(lowering, call):
        return
    rule = _RULES.get(type(operation))
    if rule is attention and _in_floating_point(call) and _lowered(lowering, call, attention):
        return
    if rule is None and isinstance(operation, layers.Layer) and keras_private.is_layer_scale(operation):
        rule = layer_scale
    if rule is None and keras_private.is_keras_operation(operation):
        rule = _OPERATIONS.get(type(operation).__name__)
    if rule is None and of_layer(operation) is not None:
        rule = _activation
    known = rule is not None and len(call.outputs) == 1 and _reads_one(call) and _in_floating_point(call)
    if not (known and rule is not None and _lowered(lowering, call, rule)):
        _leave_to_keras(lowering, call)


def _lowered(lowering: Lowering, call: Call, rule: Rule) -> bool:
    """Append what a rule makes of a call, if it knows it."""
    index = rule(lowering, call)
    if index is not None:
        lowering.known[call.outputs[0]] = index
    return index is not None


def _has_own_rule(call: Call) -> bool:
    """Whether rows are laid side by side, which is quicker than by a table."""
    channels = len(call.inputs[0].shape) - 1
    axis = getattr(call.operation, "axis", None)
    return type(call.operation).__name__ == "Concatenate" and axis in (-1, channels) and channels < 4


def _does_nothing(operation: keras.Operation) -> bool:
    """Whether the layer only does something in training; a class of the user's own may do anything."""
    if keras_private.is_keras_operation(operation):
        return type(operation).__name__ == "Copy"
    plain = type(operation).__module__.startswith("keras.")
    return plain and (isinstance(operation, _NOTHING) or is_augmentation(operation))


def _reads_one(call: Call) -> bool:
    """Whether a layer reads nothing beside its inputs: a mask, states, or whatever else it takes."""
    if not isinstance(call.operation, layers.Layer) or isinstance(call.operation, DeltaActivation):
        return True
    unread = ("training", "mask") if isinstance(call.operation, layers.BatchNormalization) else ("training",)
    named = [name for name, value in call.kwargs.items() if value is not None and name not in unread]
    return len(call.args) + len(named) == 1


def _in_floating_point(call: Call) -> bool:
    """Whether Keras computes the call in floating point, as the engines do; integers wrap around and truncate."""
    values = call.outputs if isinstance(call.operation, _TAKE_INTEGERS) else (*call.inputs[:1], *call.outputs)
    if not isinstance(call.operation, layers.Layer):
        values = (*call.inputs, *call.outputs)
    return isinstance(call.operation, _MOVE_ONLY) or all("float" in value.dtype for value in values)


def _leave_to_keras(lowering: Lowering, call: Call) -> None:
    inputs = tuple(lowering.known[value] for value in call.inputs)
    if getattr(call.operation, "stateful", False):
        raise DeltafineError(
            f"Layer '{call.path}' of model '{lowering.plan.name}' is stateful, so it gives something else when it "
            "is called again, and the runtime calls it when its input changes: build it with stateful=False."
        )
    for place, value in enumerate(call.outputs):
        numbers = any(kind in value.dtype for kind in ("int", "float", "bool"))
        if value.shape[:1] not in ((None,), (1,)) or not numbers:
            raise DeltafineError(
                f"Operation '{call.path}' ({type(call.operation).__name__}) of model '{lowering.plan.name}' gives "
                f"{value.dtype} of shape {value.shape}, and the runtime works on numbers of one frame at a time, "
                "(batch, ...): give it an axis other than that of the batch."
            )
        name = f"{call.path}:{place}" if place else call.path
        lowering.calls[name] = call, place
        kind = type(call.operation).__name__
        lowering.known[value] = lowering.add("keras", name, inputs, value.sample_shape, layer=kind)


def _batch_norm(lowering: Lowering, call: Call) -> int | None:
    layer = call.operation
    scale = 1.0 / np.sqrt(np.asarray(layer.moving_variance, np.float64) + layer.epsilon)
    if layer.gamma is not None:
        scale = scale * np.asarray(layer.gamma, np.float64)
    shift = -np.asarray(layer.moving_mean, np.float64) * scale
    unmasked = replace(call, inputs=call.inputs[:1])
    shift = shift if layer.beta is None else shift + np.asarray(layer.beta, np.float64)
    own = layer.axis % len(call.inputs[0].shape)
    if own == len(call.inputs[0].shape) - 1:
        return affine(lowering, unmasked, scale, shift)
    shape = [size if axis == own else 1 for axis, size in enumerate(call.inputs[0].sample_shape, 1)]
    return spread(lowering, unmasked, scale.reshape(shape), shift.reshape(shape))


def _normalization(lowering: Lowering, call: Call) -> int | None:
    layer = call.operation
    if layer.invert:
        return None
    scale = 1.0 / np.maximum(np.sqrt(np.asarray(layer.variance, np.float64)), keras.backend.epsilon())
    shift = -np.asarray(layer.mean, np.float64) * scale
    by_channel = affine(lowering, call, scale, shift)
    return spread(lowering, call, scale, shift) if by_channel is None else by_channel


def _rescaling(lowering: Lowering, call: Call) -> int | None:
    return affine(lowering, call, call.operation.scale, call.operation.offset)


def _activation(lowering: Lowering, call: Call) -> int | None:
    known = of_layer(call.operation)
    if known is None:
        return None
    return add_call(lowering, call, "identity", finish=Finish(activation=known[0], parameters=known[1]))


def _delta(lowering: Lowering, call: Call) -> int:
    layer = call.operation
    threshold = np.asarray(layer.threshold, np.float32)
    shape = call.inputs[0].sample_shape
    threshold = (
        threshold.reshape(as_image(shape))
        if threshold.ndim and threshold.shape == tuple(shape) and threshold.ndim > 1
        else threshold
    )
    rule = layer.rule
    if rule.name not in KNOWN:
        lowering.plan.own_rules[call.path] = rule
    name = lowering.array(f"{call.path}:threshold", threshold)
    delta = Delta(call.path, rule.name, layer.granularity, name)
    how = {"finish": Finish(delta=delta), "layer": "DeltaActivation", "restarts": layer.restarts}
    return lowering.add("identity", call.path, (lowering.known[call.inputs[0]],), shape, **how)


def _pool(kind: str) -> Rule:
    def rule(lowering: Lowering, call: Call) -> int | None:
        layer = call.operation
        ones = (1,) * len(tuple(layer.pool_size))
        return add_call(lowering, call, kind, **geometry(call, layer.pool_size, layer.strides, ones, layer.padding))

    return rule


def _global_pool(kind: str) -> Rule:
    return lambda lowering, call: add_call(lowering, call, kind)


def _mean(lowering: Lowering, call: Call) -> int | None:
    axes = call.operation.axis
    axes = (axes,) if isinstance(axes, int) else tuple(axes or ())
    rank = len(call.inputs[0].shape)
    if rank not in (3, 4) or sorted(axis % rank for axis in axes) != list(range(1, rank - 1)):
        return reduction("mean")(lowering, call)
    return add_call(lowering, call, "global_average")


def _place(lowering: Lowering, call: Call) -> int | None:
    """Padding and cropping: the output starts ``padding`` before the input."""
    layer = call.operation
    cropping = isinstance(layer, layers.Cropping1D | layers.Cropping2D)
    amounts = layer.cropping if cropping else layer.padding
    top, left = (0, amounts[0]) if isinstance(amounts[0], int) else (amounts[0][0], amounts[1][0])
    sign = -1 if cropping else 1
    return add_call(lowering, call, "place", padding=(sign * top, sign * left))


def _upsampling(lowering: Lowering, call: Call) -> int | None:
    layer = call.operation
    if getattr(layer, "interpolation", "nearest") != "nearest":
        return resized(lowering, call)
    size = (layer.size,) if isinstance(layer.size, int) else layer.size
    return add_call(lowering, call, "place", strides=pair(size))


def _reshape(lowering: Lowering, call: Call) -> int:
    return lowering.reshaped(call.inputs[0], call.path, call.outputs[0].sample_shape)


def _concatenate(lowering: Lowering, call: Call) -> int | None:
    rank = len(call.inputs[0].shape)
    return add_call(lowering, call, "concatenate") if call.operation.axis in (-1, rank - 1) and rank <= 4 else None


def _time_distributed(lowering: Lowering, call: Call) -> int | None:
    """What works on each position alone does so without the wrapper, too."""
    inner = call.operation.layer
    rule = _BY_POSITION.get(type(inner), _activation)
    return rule(lowering, replace(call, operation=inner))


_BY_POSITION: dict[type, Rule] = {layers.Dense: dense}
_NOTHING = (
    layers.Identity, layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D, layers.GaussianNoise,
    layers.GaussianDropout, layers.AlphaDropout, layers.ActivityRegularization,
)  # fmt: skip
_MOVE_ONLY = (
    layers.Flatten, layers.Reshape, layers.ZeroPadding1D, layers.ZeroPadding2D, layers.Cropping1D, layers.Cropping2D,
)  # fmt: skip
_TAKE_INTEGERS = (layers.Rescaling, layers.Normalization)
_RULES: dict[type, Rule] = {
    layers.Conv1D: conv, layers.Conv2D: conv, layers.DepthwiseConv1D: depthwise, layers.DepthwiseConv2D: depthwise,
    layers.SeparableConv1D: separable, layers.SeparableConv2D: separable, layers.Dense: dense,
    layers.BatchNormalization: _batch_norm, layers.Normalization: _normalization, layers.Rescaling: _rescaling,
    DeltaActivation: _delta, StateDelta: _delta,
    layers.MaxPooling1D: _pool("max_pool"), layers.MaxPooling2D: _pool("max_pool"),
    layers.AveragePooling1D: _pool("average_pool"), layers.AveragePooling2D: _pool("average_pool"),
    layers.GlobalAveragePooling1D: _global_pool("global_average"),
    layers.GlobalAveragePooling2D: _global_pool("global_average"),
    layers.GlobalMaxPooling1D: _global_pool("global_max"), layers.GlobalMaxPooling2D: _global_pool("global_max"),
    layers.ZeroPadding1D: _place, layers.ZeroPadding2D: _place, layers.Cropping1D: _place, layers.Cropping2D: _place,
    layers.UpSampling1D: _upsampling, layers.UpSampling2D: _upsampling,
    layers.Flatten: _reshape, layers.Reshape: _reshape, layers.Concatenate: _concatenate,
    layers.TimeDistributed: _time_distributed,
    layers.Add: elementwise("add"), layers.Subtract: elementwise("subtract"),
    layers.Multiply: elementwise("multiply"), layers.Average: elementwise("average"),
    layers.Maximum: elementwise("maximum"), layers.Minimum: elementwise("minimum"),
    layers.LayerNormalization: layer_normalization, layers.RMSNormalization: rms_normalization,
    layers.UnitNormalization: unit_normalization, layers.GroupNormalization: group_normalization,
    layers.Softmax: softmax("softmax"), layers.PReLU: prelu, layers.Resizing: resized,
    layers.Conv1DTranspose: transposed, layers.Conv2DTranspose: transposed, layers.EinsumDense: einsum_dense,
    layers.MultiHeadAttention: attention, layers.GroupQueryAttention: attention,
}  # fmt: skip
_OPERATIONS: dict[str, Rule] = {
    "Add": elementwise("add"), "Subtract": elementwise("subtract"), "Multiply": elementwise("multiply"),
    "Maximum": elementwise("maximum"), "Minimum": elementwise("minimum"),
    "Divide": elementwise("divide"), "TrueDivide": elementwise("divide"), "Power": elementwise("power"),
    "Mean": _mean, "Sum": reduction("sum"), "Max": reduction("max"), "Min": reduction("min"),
    "Concatenate": _concatenate, "Negative": negative, "Resize": resized,
    "Softmax": softmax("softmax"), "LogSoftmax": softmax("log_softmax"),
    "DotProductAttention": attention_products, "Einsum": combined,
}  # fmt: skip
