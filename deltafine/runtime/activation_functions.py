"""The activation functions that the runtime computes itself: how Keras names them, and what they are in NumPy.

``ACTIVATIONS`` maps a name to a function of rows ``(..., channels)`` and the parameters; its order gives the codes that
the compiled kernels switch on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

Rows = np.ndarray
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805
NO_LIMIT = 3.0e38
"""Stands for "no largest value" where a number is needed."""


def _sigmoid(x: Rows) -> Rows:
    return (1.0 / (1.0 + np.exp(-x))).astype(x.dtype)


def _relu(x: Rows, slope: float, most: float, threshold: float) -> Rows:
    kept = np.minimum(np.where(x >= threshold, x, np.float32(slope) * (x - np.float32(threshold))), np.float32(most))
    return np.where(np.isnan(x), x, kept)


def _elu(x: Rows, alpha: float) -> Rows:
    return np.where(x > 0, x, np.float32(alpha) * np.expm1(np.minimum(x, 0)))


def _softplus(x: Rows) -> Rows:
    return np.logaddexp(x, np.float32(0))


def _gelu(x: Rows) -> Rows:
    return (0.5 * x * (1.0 + np.vectorize(math.erf, otypes=[x.dtype])(x / np.float32(math.sqrt(2))))).astype(x.dtype)


def _gelu_tanh(x: Rows) -> Rows:
    inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
    return np.float32(0.5) * x * (1 + np.tanh(inner))


def _softmax(x: Rows) -> Rows:
    exponential = np.exp(x - x.max(axis=-1, keepdims=True))
    return exponential / exponential.sum(axis=-1, keepdims=True)


def _log_softmax(x: Rows) -> Rows:
    below = x - x.max(axis=-1, keepdims=True)
    return below - np.log(np.exp(below).sum(axis=-1, keepdims=True))


def _normalize(x: Rows, epsilon: float) -> Rows:
    wide = x.astype(np.float64)
    apart = wide - wide.mean(axis=-1, keepdims=True)
    return apart / np.sqrt(np.square(apart).mean(axis=-1, keepdims=True) + epsilon)


def _rms(x: Rows, epsilon: float) -> Rows:
    return x / np.sqrt(np.square(x.astype(np.float64)).mean(axis=-1, keepdims=True) + epsilon)


def _unit(x: Rows, epsilon: float) -> Rows:
    return x / np.maximum(np.sqrt(np.square(x.astype(np.float64)).sum(axis=-1, keepdims=True)), epsilon)


def _celu(x: Rows, alpha: float) -> Rows:
    return np.where(x > 0, x, np.float32(alpha) * np.expm1(np.minimum(x, 0) / np.float32(alpha)))


def _soft_shrink(x: Rows, threshold: float) -> Rows:
    return np.where(np.abs(x) > threshold, x - np.sign(x) * np.float32(threshold), x * 0)


def _sparse_plus(x: Rows) -> Rows:
    return np.where(x >= 1, x, np.square(np.maximum(x, -1) + 1) / 4)


ACTIVATIONS: dict[str, Callable[..., Rows]] = {
    "linear": lambda x: x,
    "relu": _relu,
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "silu": lambda x: x * _sigmoid(x),
    "hard_sigmoid": lambda x: np.clip(x / np.float32(6) + np.float32(0.5), 0, 1),
    "hard_silu": lambda x: x * np.clip(x / np.float32(6) + np.float32(0.5), 0, 1),
    "elu": _elu,
    "selu": lambda x: np.float32(SELU_SCALE) * _elu(x, SELU_ALPHA),
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "softplus": _softplus,
    "softsign": lambda x: x / (1 + np.abs(x)),
    "exponential": np.exp,
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "normalize": _normalize,
    "rms": _rms,
    "unit": _unit,
    "celu": _celu,
    "mish": lambda x: x * np.tanh(_softplus(x)),
    "log_sigmoid": lambda x: -_softplus(-x),
    "clip": lambda x, least, most: np.clip(x, np.float32(least), np.float32(most)),
    "hard_shrink": lambda x, threshold: np.where(np.abs(x) > threshold, x, x * 0),
    "soft_shrink": _soft_shrink,
    "tanh_shrink": lambda x: x - np.tanh(x),
    "squareplus": lambda x, b: (x + np.sqrt(x * x + np.float32(b))) / 2,
    "threshold": lambda x, least, other: np.where(x > least, x, np.float32(other)),
    "sparse_plus": _sparse_plus,
    "sparse_sigmoid": lambda x: np.clip((x + 1) / 2, 0, 1),
    "abs": np.abs,
    "square": np.square,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "reciprocal": lambda x: 1 / x,
    "log": np.log,
    "log1p": np.log1p,
    "expm1": np.expm1,
    "sin": np.sin,
    "cos": np.cos,
    "power": lambda x, exponent: np.power(x, np.float32(exponent)),
}
"""Of ``normalize``, ``rms`` and ``unit`` the last divides by at least its parameter, the others add it to the mean."""
BY_POSITION = ("softmax", "log_softmax", "normalize", "rms", "unit")
"""Those of which each value depends on all channels of its position."""
CODES = {name: code for code, name in enumerate(ACTIVATIONS)}

_RELU = (0.0, NO_LIMIT, 0.0)
_BY_FUNCTION: dict[str, tuple[str, tuple[float, ...]]] = {
    "linear": ("linear", ()),
    "relu": ("relu", _RELU),
    "relu6": ("relu", (0.0, 6.0, 0.0)),
    "leaky_relu": ("relu", (0.2, NO_LIMIT, 0.0)),
    "elu": ("elu", (1.0,)),
    "gelu": ("gelu", ()),
    "silu": ("silu", ()),
    "swish": ("silu", ()),
    "hard_swish": ("hard_silu", ()),
    **{name: (name, ()) for name in ("sigmoid", "tanh", "hard_sigmoid", "hard_silu", "selu", "softplus", "softsign")},
    **{
        name: (name, ())
        for name in ("exponential", "softmax", "log_softmax", "mish", "log_sigmoid", "tanh_shrink", "sparse_plus")
    },
    "sparse_sigmoid": ("sparse_sigmoid", ()),
    "celu": ("celu", (1.0,)),
    "hard_tanh": ("clip", (-1.0, 1.0)),
    "hard_shrink": ("hard_shrink", (0.5,)),
    "soft_shrink": ("soft_shrink", (0.5,)),
    "squareplus": ("squareplus", (4.0,)),
}


def of_function(function: Any) -> tuple[str, tuple[float, ...]] | None:
    """Name and parameters of what ``Conv2D(activation=...)`` holds, or None where the runtime has none like it."""
    import keras

    if function is None:
        return "linear", ()
    if isinstance(function, keras.layers.Layer):
        return of_layer(function)
    name = getattr(function, "__name__", "")
    known = _BY_FUNCTION.get(name)
    return known if known is not None and function is getattr(keras.activations, name, None) else None


def of_layer(layer: keras.layers.Layer) -> tuple[str, tuple[float, ...]] | None:
    """Name and parameters of an activation layer or operation, or None."""
    import keras

    kind = type(layer)
    if kind is keras.layers.Activation:
        return of_function(layer.activation)
    if kind is keras.layers.ReLU:
        most = NO_LIMIT if layer.max_value is None else float(layer.max_value)
        return "relu", (float(layer.negative_slope), most, float(layer.threshold))
    if kind is keras.layers.LeakyReLU:
        return "relu", (float(layer.negative_slope), NO_LIMIT, 0.0)
    if kind is keras.layers.ELU:
        return "elu", (float(layer.alpha),)
    if kind is keras.layers.Softmax:
        return ("softmax", ()) if layer.axis == -1 else None
    return _of_operation(layer)


def _of_operation(operation: keras.Operation) -> tuple[str, tuple[float, ...]] | None:
    """``keras.ops.relu(x)`` and its like: told apart by name, as their classes are private to Keras."""
    from deltafine.model import keras_private  # only models are compiled with; the tables above need no Keras

    if not keras_private.is_keras_operation(operation):
        return None
    name = type(operation).__name__
    if name == "LeakyRelu":
        return "relu", (float(operation.negative_slope), NO_LIMIT, 0.0)
    if name == "Gelu":
        return ("gelu_tanh" if operation.approximate else "gelu"), ()
    if name == "Softmax":
        return ("softmax", ()) if operation.axis == -1 else None
    if name == "LogSoftmax":
        return ("log_softmax", ()) if operation.axis == -1 else None
    if name in _WITH_NUMBERS:
        code, attributes = _WITH_NUMBERS[name]
        numbers = [getattr(operation, attribute) for attribute in attributes]
        return (code, tuple(map(float, numbers))) if all(isinstance(one, int | float) for one in numbers) else None
    if name in _PLAIN:
        return _PLAIN[name], ()
    return _BY_FUNCTION[_BY_CLASS[name]] if name in _BY_CLASS else None


_BY_CLASS = {
    "Relu": "relu", "Relu6": "relu6", "Sigmoid": "sigmoid", "Tanh": "tanh", "Silu": "silu", "Selu": "selu",
    "HardSigmoid": "hard_sigmoid", "HardSilu": "hard_silu", "Softplus": "softplus", "Softsign": "softsign",
    "Exp": "exponential", "HardTanh": "hard_tanh", "TanhShrink": "tanh_shrink", "LogSigmoid": "log_sigmoid",
    "SparsePlus": "sparse_plus", "SparseSigmoid": "sparse_sigmoid",
}  # fmt: skip
_PLAIN = {
    "Abs": "abs", "Absolute": "abs", "Square": "square", "Sqrt": "sqrt", "Rsqrt": "rsqrt", "Reciprocal": "reciprocal",
    "Log": "log", "Log1p": "log1p", "Expm1": "expm1", "Sin": "sin", "Cos": "cos",
}  # fmt: skip
_WITH_NUMBERS = {
    "Elu": ("elu", ("alpha",)), "Celu": ("celu", ("alpha",)), "Clip": ("clip", ("x_min", "x_max")),
    "HardShrink": ("hard_shrink", ("threshold",)), "SoftShrink": ("soft_shrink", ("threshold",)),
    "Squareplus": ("squareplus", ("b",)), "Threshold": ("threshold", ("threshold", "default_value")),
}  # fmt: skip
