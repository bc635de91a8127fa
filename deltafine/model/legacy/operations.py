"""TensorFlow functions that Keras 2 kept in a graph (``TFOpLambda``), as Keras 3 operations.

MobileNetV3's hard sigmoid, every ``preprocess_input`` and all arithmetic on tensors left such functions behind.
The arguments have the names that TensorFlow gives them, for files name them so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from deltafine.errors import DeltafineError


def _bias_add(value: keras.KerasTensor, bias: keras.KerasTensor, data_format: str | None = None) -> keras.KerasTensor:
    if data_format and data_format.startswith("NC"):
        raise DeltafineError("The model adds a bias to channels that come first, which is not supported.")
    return ops.add(value, ops.convert_to_tensor(bias, dtype=value.dtype))


def _get_item(tensor: keras.KerasTensor, slice_spec: Any) -> keras.KerasTensor:
    indices = slice_spec if isinstance(slice_spec, list) else [slice_spec]
    return tensor[tuple(_slice(index) for index in indices)]


def _slice(index: Any) -> Any:
    if isinstance(index, dict):
        if index.get("class_name") == "__ellipsis__":
            return Ellipsis
        return slice(index.get("start"), index.get("stop"), index.get("step"))
    return index


def _split(
    value: keras.KerasTensor, num_or_size_splits: int | list[int], axis: int = 0, num: int | None = None
) -> list[keras.KerasTensor]:
    if isinstance(num_or_size_splits, int):
        return ops.split(value, num_or_size_splits, axis=axis)
    ends = [sum(num_or_size_splits[: index + 1]) for index in range(len(num_or_size_splits) - 1)]
    return ops.split(value, ends, axis=axis)


def _axes(function: Callable[..., Any]) -> Callable[..., Any]:
    def reduce(
        input_tensor: keras.KerasTensor, axis: int | list[int] | None = None, keepdims: bool = False
    ) -> keras.KerasTensor:
        axes = tuple(axis) if isinstance(axis, list) else axis
        return function(input_tensor, axis=axes, keepdims=keepdims)

    return reduce


def _one(function: Callable[..., Any], argument: str) -> Callable[..., Any]:
    return lambda *args, **kwargs: function(*args, *([kwargs[argument]] if argument in kwargs else []))


def _matmul(
    a: keras.KerasTensor, b: keras.KerasTensor, transpose_a: bool = False, transpose_b: bool = False, **_: Any
) -> keras.KerasTensor:
    a = ops.swapaxes(a, -1, -2) if transpose_a else a
    return ops.matmul(a, ops.swapaxes(b, -1, -2) if transpose_b else b)


_add = lambda x, y: ops.add(x, y)  # noqa: E731
_multiply = lambda x, y: ops.multiply(x, y)  # noqa: E731
_sigmoid = lambda x: ops.sigmoid(x)  # noqa: E731

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "__operators__.add": _add,
    "math.add": _add,
    "math.subtract": lambda x, y: ops.subtract(x, y),
    "math.multiply": _multiply,
    "math.truediv": lambda x, y: ops.true_divide(x, y),
    "math.divide": lambda x, y: ops.true_divide(x, y),
    "math.negative": lambda x: ops.negative(x),
    "math.maximum": lambda x, y: ops.maximum(x, y),
    "math.minimum": lambda x, y: ops.minimum(x, y),
    "math.pow": lambda x, y: ops.power(x, y),
    "math.abs": lambda x: ops.abs(x),
    "math.square": lambda x: ops.square(x),
    "math.sqrt": lambda x: ops.sqrt(x),
    "math.rsqrt": lambda x: ops.rsqrt(x),
    "math.exp": lambda x: ops.exp(x),
    "math.log": lambda x: ops.log(x),
    "math.sigmoid": _sigmoid,
    "nn.sigmoid": _sigmoid,
    "math.tanh": lambda x: ops.tanh(x),
    "math.reduce_mean": _axes(ops.mean),
    "math.reduce_sum": _axes(ops.sum),
    "math.reduce_max": _axes(ops.max),
    "math.reduce_min": _axes(ops.min),
    "nn.relu": _one(ops.relu, "features"),
    "nn.relu6": _one(ops.relu6, "features"),
    "nn.elu": _one(ops.elu, "features"),
    "nn.selu": _one(ops.selu, "features"),
    "nn.softplus": _one(ops.softplus, "features"),
    "nn.silu": lambda features, beta=1.0: (
        ops.silu(features) if beta == 1.0 else features * ops.sigmoid(beta * features)
    ),
    "nn.gelu": lambda features, approximate=False: ops.gelu(features, approximate=approximate),
    "nn.leaky_relu": lambda features, alpha=0.2: ops.leaky_relu(features, negative_slope=alpha),
    "nn.softmax": lambda logits, axis=-1: ops.softmax(logits, axis=-1 if axis is None else axis),
    "nn.bias_add": _bias_add,
    "linalg.matmul": _matmul,
    "concat": lambda values, axis: ops.concatenate(values, axis=axis),
    "stack": lambda values, axis=0: ops.stack(values, axis=axis),
    "split": _split,
    "reshape": lambda tensor, shape: ops.reshape(tensor, tuple(shape)),
    "transpose": lambda a, perm=None: ops.transpose(a, axes=perm),
    "expand_dims": lambda input, axis: ops.expand_dims(input, axis),
    "squeeze": lambda input, axis=None: ops.squeeze(input, axis=tuple(axis) if isinstance(axis, list) else axis),
    "clip_by_value": lambda t, clip_value_min, clip_value_max: ops.clip(t, clip_value_min, clip_value_max),
    "cast": lambda x, dtype: ops.cast(x, keras.backend.standardize_dtype(dtype)),
    "identity": lambda input: input,
    "stop_gradient": lambda input: ops.stop_gradient(input),
    "pad": lambda tensor, paddings, mode="CONSTANT", constant_values=0: ops.pad(
        tensor, paddings, mode=mode.lower(), constant_values=constant_values if mode == "CONSTANT" else None
    ),
    "__operators__.getitem": _get_item,
}


def call_function(name: str, layer_name: str, first: keras.KerasTensor, kwargs: dict[str, Any]) -> keras.KerasTensor:
    """Call the Keras 3 operation for a TensorFlow function.

    Args:
        name: TensorFlow's name without ``tf.``, such as ``math.multiply``.
        layer_name: name of the layer in the file, for the message.
        first: the first argument, a tensor or a list of tensors.
        kwargs: the other arguments.

    Raises:
        DeltafineError: there is no rule for the function.
    """
    function = _FUNCTIONS.get(name)
    if function is None:
        raise DeltafineError(
            f"Layer '{layer_name}' calls the TensorFlow function tf.{name}, which has no Keras 3 operation here: "
            "replace it by a Keras layer in the code that built the model, and save it with Keras 3 as .keras."
        )
    return function(first, **{key: value for key, value in kwargs.items() if key != "name"})
