"""MACs of layers that are no graph of Keras' layers and operations, by the graph that TensorFlow makes of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import keras

from deltafine.model.composite_layers import bound
from deltafine.model.trace import Call

if TYPE_CHECKING:
    import tensorflow as tf


_MATRICES = ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
_OTHERS = frozenset({
    "XlaEinsum", "Conv", "Conv2D", "Conv3D", "DepthwiseConv2dNative", "Conv2DBackpropInput",
    "Conv3DBackpropInputV2", "SparseTensorDenseMatMul", "CudnnRNN", "CudnnRNNV2", "CudnnRNNV3",
})  # fmt: skip


def tensorflow_macs(call: Call) -> int | None:
    """MACs of a call of a layer on one sample; None where it does other products than those of matrices.

    Convolutions without padding are known, too: of others, it is open how many MACs fall on zeros around a picture.
    """
    import tensorflow as tf

    @tf.autograph.experimental.do_not_convert
    def compute(*tensors: Any) -> Any:
        args, kwargs = bound(call, tensors)
        return call.operation.call(*args, **kwargs)

    specs = [tf.TensorSpec((1, *value.shape[1:]), value.dtype) for value in call.inputs]
    try:
        # What the layer would assign to its variables is dropped with the scope.
        with keras.StatelessScope():
            graph = tf.function(compute).get_concrete_function(*specs).graph
    except Exception:  # a layer of the user's own may raise anything
        return None
    inner = [node.op for function in graph.as_graph_def().library.function for node in function.node_def]
    operations = graph.get_operations()
    if any(kind in _OTHERS or kind in _COUNTED for kind in inner):
        return None  # how often inner functions run is not known
    if any(one.type in _OTHERS and not _is_plain_convolution(one) for one in operations):
        return None
    products = [
        _COUNTED[operation.type](operation)
        for operation in operations
        if operation.type in _COUNTED or _is_plain_convolution(operation)
    ]
    known = [macs for macs in products if macs is not None]
    return sum(known) if len(known) == len(products) else None


def _is_plain_convolution(operation: tf.Operation) -> bool:
    return operation.type == "Conv2D" and operation.get_attr("padding") == b"VALID"


def _of_convolution(operation: tf.Operation) -> int | None:
    kernel, made = operation.inputs[1].shape, operation.outputs[0].shape
    if not (kernel.is_fully_defined() and made.is_fully_defined()):
        return None
    return int(math.prod(made) * math.prod(kernel[:-1]))


def _of_matrices(operation: tf.Operation) -> int | None:
    left, made = operation.inputs[0].shape, operation.outputs[0].shape
    if not (left.is_fully_defined() and made.is_fully_defined()):
        return None
    transposed = any(operation.node_def.attr[name].b for name in ("transpose_a", "adj_x"))
    return int(math.prod(made) * left[-2 if transposed else -1])


def _of_einsum(operation: tf.Operation) -> int | None:
    terms = operation.get_attr("equation").decode().split("->")[0].split(",")
    sizes: dict[str, int | None] = {}
    for term, value in zip(terms, operation.inputs, strict=True):
        if "." in term or value.shape.rank != len(term):
            return None
        sizes.update(zip(term, value.shape, strict=True))
    known = [size for size in sizes.values() if size is not None]
    return math.prod(known) if len(terms) == 2 and len(known) == len(sizes) else None


_COUNTED = {**dict.fromkeys(_MATRICES, _of_matrices), "Einsum": _of_einsum, "Conv2D": _of_convolution}
