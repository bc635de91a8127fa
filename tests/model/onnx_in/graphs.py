"""Small ONNX graphs as PyTorch writes them: channels first, names of modules, weights in the graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from deltafine.model.onnx_import.importing import imported_graph

FLOAT = TensorProto.FLOAT


class Graph:
    """A graph in the making; weights are drawn so that values stay near 1."""

    def __init__(self, *shape: int | str, name: str = "input", seed: int = 0) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.random = np.random.default_rng(seed)
        self.inputs = [helper.make_tensor_value_info(name, FLOAT, shape)]
        self.outputs: list[Any] = []
        self.last = name

    def add(self, kind: str, *inputs: Any, name: str = "", outputs: int = 1, **attributes: Any) -> str:
        """A node that reads these; without any, what came last. Arrays become weights."""
        number = len(self.nodes)
        inputs = inputs or (() if kind == "Constant" else (self.last,))
        given = [self.weight(one) if isinstance(one, np.ndarray) else one for one in inputs]
        made = [f"value_{number}_{place}" for place in range(outputs)]
        self.nodes.append(helper.make_node(kind, given, made, name=name or f"/{kind}_{number}", **attributes))
        self.last = made[0]
        return self.last

    def weight(self, values: np.ndarray) -> str:
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def drawn(self, *shape: int) -> np.ndarray:
        spread = 1 / np.sqrt(max(np.prod(shape[1:]), 1))
        return (self.random.normal(size=shape) * spread).astype("float32")

    def conv(self, given: str, filters: int, channels: int, size: int = 3, *, groups: int = 1, **more: Any) -> str:
        kernel = self.drawn(filters, channels // groups, size, size)
        more = {"pads": [size // 2] * 4, "strides": [1, 1], "dilations": [1, 1], **more}
        return self.add("Conv", given, kernel, self.drawn(filters), group=groups, kernel_shape=[size] * 2, **more)

    def norm(self, given: str, channels: int, name: str) -> str:
        ones = [self.random.uniform(0.5, 1.5, channels).astype("float32") for _ in range(2)]
        return self.add(
            "BatchNormalization", given, ones[0], self.drawn(channels), self.drawn(channels), ones[1], name=name
        )

    def output(self, *values: str) -> None:
        self.outputs += [helper.make_tensor_value_info(value, FLOAT, None) for value in values or (self.last,)]

    def proto(self, opset: int = 17, **more: Any) -> Any:
        if not self.outputs:
            self.output()
        graph = helper.make_graph(self.nodes, "main_graph", self.inputs, self.outputs, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10, **more)
        model = onnx.shape_inference.infer_shapes(model)
        for output in model.graph.output:
            if not output.type.tensor_type.HasField("shape"):
                output.type.tensor_type.shape.dim.add()  # for the checker, which wants one
        return model

    def save(self, path: Path, opset: int = 17) -> Path:
        onnx.save(self.proto(opset), str(path))
        return path


def resnet(size: int = 32, classes: int = 2, batch: int | str = "batch") -> Graph:
    """As torchvision's: a stem with pooling, residual sums, one with a convolution beside it, a dense layer."""
    graph = Graph(batch, 3, size, size)
    x = graph.add("Relu", graph.conv("input", 8, 3, 7, strides=[2, 2], name="/conv1/Conv"), name="/relu/Relu")
    x = graph.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4, name="/maxpool/MaxPool")
    for number, (channels, filters, stride) in enumerate([(8, 8, 1), (8, 12, 2)], 1):
        path = f"/layer{number}/layer{number}.0"
        y = graph.conv(x, filters, channels, strides=[stride] * 2, name=f"{path}/conv1/Conv")
        y = graph.add("Relu", graph.norm(y, filters, f"{path}/bn1/BatchNormalization"), name=f"{path}/relu/Relu")
        y = graph.conv(y, filters, filters, name=f"{path}/conv2/Conv")
        if stride > 1:
            x = graph.conv(x, filters, channels, 1, strides=[stride] * 2, name=f"{path}/downsample/downsample.0/Conv")
        x = graph.add("Relu", graph.add("Add", y, x, name=f"{path}/Add"), name=f"{path}/relu_1/Relu")
    graph.add("GlobalAveragePool", x, name="/avgpool/GlobalAveragePool")
    graph.add("Flatten", name="/Flatten", axis=1)
    graph.add("Gemm", graph.last, graph.drawn(classes, 12), graph.drawn(classes), name="/fc/Gemm", transB=1)
    return graph


def mobilenet(size: int = 32, classes: int = 2) -> Graph:
    """As torchvision's second one: ReLU6 as Clip, depthwise convolutions, linear bottlenecks."""
    graph = Graph("batch", 3, size, size)
    low, high = np.array(0, "float32"), np.array(6, "float32")

    def relu6(value: str, name: str) -> str:
        return graph.add("Clip", value, low, high, name=f"{name}/Clip")

    x = relu6(graph.conv("input", 8, 3, strides=[2, 2], name="/features/features.0/features.0.0/Conv"), "/features.0.2")
    for number, (channels, filters, stride) in enumerate([(8, 8, 1), (8, 12, 2), (12, 12, 1)], 1):
        path = f"/features/features.{number}/conv"
        wide = graph.conv(x, channels * 2, channels, 1, name=f"{path}/conv.0/conv.0.0/Conv")
        y = relu6(wide, f"{path}/conv.0/conv.0.2")
        deep = {"groups": channels * 2, "strides": [stride] * 2, "name": f"{path}/conv.1/conv.1.0/Conv"}
        y = relu6(graph.conv(y, channels * 2, channels * 2, **deep), f"{path}/conv.1/conv.1.2")
        y = graph.conv(y, filters, channels * 2, 1, name=f"{path}/conv.2/Conv")
        x = graph.add("Add", x, y, name=f"/features/features.{number}/Add") if channels == filters else y
    graph.add("ReduceMean", x, axes=[2, 3], keepdims=0)
    weights = graph.drawn(classes, 12)
    graph.add("Gemm", graph.last, weights, graph.drawn(classes), name="/classifier/classifier.1/Gemm", transB=1)
    return graph


def answers_apart(proto: Any, seed: int = 1, frames: int = 3) -> float:
    """The largest difference between ONNX Runtime and the Keras model made of the graph, on frames of noise."""
    imported = imported_graph(proto, "model")
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    sizes = [size if isinstance(size, int) else None for size in session.get_inputs()[0].shape]
    shape = [sizes[0] or frames, *(size or 24 for size in sizes[1:])]
    given = np.random.default_rng(seed).normal(size=shape).astype("float32")
    expected = session.run(None, {session.get_inputs()[0].name: given})
    made = imported.model(given.transpose(imported.inputs[0]), training=False)
    made = made if isinstance(made, list) else [made]
    worst = 0.0
    for own, other, order in zip(made, expected, imported.outputs, strict=True):
        values = np.asarray(own).transpose([order.index(axis) for axis in range(len(order))])
        assert values.shape == other.shape
        worst = max(worst, float(np.abs(values - other).max() / max(1, np.abs(other).max())))
    return worst
