"""Which calls are activations, and how a layer with a fused activation is taken apart."""

from __future__ import annotations

from typing import Any

import keras

from deltafine.model.fan_out_counts import COVERED
from deltafine.model.trace import Call

layers = keras.layers

# Layer classes that are an activation by themselves, and the kind each stands for.
_LAYER_KINDS: dict[type, str] = {
    layers.ReLU: "relu",
    layers.LeakyReLU: "leaky_relu",
    layers.PReLU: "prelu",
    layers.ELU: "elu",
    layers.Softmax: "softmax",
}

# Operations on tensors, by class name; they live in private modules of Keras, so they are told apart by
# name and by the modules that may define them.
_OPERATION_KINDS = {
    "ReLU": "relu", "Relu": "relu", "Relu6": "relu6", "LeakyRelu": "leaky_relu", "Elu": "elu", "Selu": "selu",
    "Celu": "celu", "Gelu": "gelu", "Glu": "glu", "Silu": "silu", "Mish": "mish", "Sigmoid": "sigmoid",
    "HardSigmoid": "hard_sigmoid", "HardSilu": "hard_silu", "HardTanh": "hard_tanh", "HardShrink": "hard_shrink",
    "LogSigmoid": "log_sigmoid", "Softplus": "softplus", "Softsign": "softsign", "SoftShrink": "soft_shrink",
    "SparsePlus": "sparse_plus", "SparseSigmoid": "sparse_sigmoid", "Squareplus": "squareplus",
    "TanhShrink": "tanh_shrink", "Tanh": "tanh", "Threshold": "threshold", "Softmax": "softmax",
    "LogSoftmax": "log_softmax", "Sparsemax": "sparsemax",
}  # fmt: skip
_OPERATION_MODULES = (".ops.nn", ".ops.numpy", ".activations.activations")


def activation_kind(operation: keras.Operation) -> str | None:
    """The kind of non-linearity that the operation ends in (``"relu"``, ...), or None.

    Layers with a fused activation (``Conv2D(activation="relu")``) count; a layer whose ``call`` its user has
    overridden does not, as nobody can tell where its activation stands.
    """
    for layer_class, kind in _LAYER_KINDS.items():
        if isinstance(operation, layer_class):
            return kind
    if isinstance(operation, layers.Activation) or has_fused_activation(operation):
        return function_name(operation.activation)
    module = type(operation).__module__
    if not isinstance(operation, layers.Layer) and module.endswith(_OPERATION_MODULES):
        return _OPERATION_KINDS.get(type(operation).__name__)
    return None


def has_fused_activation(operation: keras.Operation) -> bool:
    """Whether the layer is a known linear layer followed, inside it, by a non-linear activation."""
    for base in COVERED:
        if isinstance(operation, base) and type(operation).call is base.call:
            return function_name(operation.activation) is not None
    return False


def function_name(function: Any) -> str | None:
    """Name of an activation function or layer; None for the identity."""
    if function is None or function is keras.activations.linear:
        return None
    for layer_class, kind in _LAYER_KINDS.items():
        if isinstance(function, layer_class):
            return kind
    if isinstance(function, layers.Activation):
        return function_name(function.activation)
    return getattr(function, "__name__", type(function).__name__.lower())


def is_activation(call: Call) -> bool:
    """Whether the call is an activation with one output."""
    return len(call.outputs) == 1 and activation_kind(call.operation) is not None
