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
    "Einsum", "XlaEinsum", "Conv", "Conv2D", "Conv3D", "DepthwiseConv2dNative", "Conv2DBackpropInput",
    "Conv3DBackpropInputV2", "SparseTensorDenseMatMul", "CudnnRNN", "CudnnRNNV2", "CudnnRNNV3",
})  # fmt: skip


def tensorflow_macs(call: Call) -> int | None:
    """MACs of a call of a layer on one sample; None where it does other products than those of matrices."""
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
    if any(kind in _OTHERS or kind in _MATRICES for kind in inner) or any(one.type in _OTHERS for one in operations):
        return None  # how often inner functions run is not known
    products = [_of_matrices(operation) for operation in operations if operation.type in _MATRICES]
    known = [macs for macs in products if macs is not None]
    return sum(known) if len(known) == len(products) else None


def _of_matrices(operation: tf.Operation) -> int | None:
    left, made = operation.inputs[0].shape, operation.outputs[0].shape
    if not (left.is_fully_defined() and made.is_fully_defined()):
        return None
    transposed = any(operation.node_def.attr[name].b for name in ("transpose_a", "adj_x"))
    return int(math.prod(made) * left[-2 if transposed else -1])
